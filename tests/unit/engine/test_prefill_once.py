"""A prefix is read once, however many cutoffs and queries it is asked at."""

import numpy as np
import pytest

from qanchor_plugin.sequence.slice import MICROS_PER_DAY
from tests.unit.engine.conftest import TODAY


@pytest.mark.parametrize("name", ["demo", "paper"])
def test_one_prefix_at_three_cutoffs_is_one_prefill_and_the_same_answers(
    engine_named, prefixes_of, users, name, monkeypatch
):
    engine = engine_named(name)
    one, other = prefixes_of(engine, users[2:4])
    queries = [engine.prepare_query(text) for text in ("beer?", "dog food?")]
    asked = [one, other, one, one]
    cutoffs = [TODAY + n * MICROS_PER_DAY for n in (0, 0, 3, 40)]
    apart = [engine.embed([prefix], queries, [at])[0] for prefix, at in zip(asked, cutoffs, strict=True)]
    read, prefill = [], engine.modules.prefill

    def counted(rows, positions, valid):
        read.append(len(rows))
        return prefill(rows, positions, valid)

    monkeypatch.setattr(engine.modules, "prefill", counted)
    together = engine.embed(asked, queries, cutoffs)
    assert sum(read) == 2
    np.testing.assert_allclose(together, np.stack(apart), atol=1e-6)
    if engine.suffix_knows_time:
        assert np.abs(together[0] - together[3]).max() > 1e-4
