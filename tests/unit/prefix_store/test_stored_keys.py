"""What the scenario job takes of the keys that the prefix job stored, and when it prefills instead."""

from qanchor_plugin import schemas as S
from qanchor_plugin.declare import Settings
from qanchor_plugin.prefix_store import KVPolicy, entry_to_row
from spark_jobs.stored_keys import StoredKeys
from tests.unit.prefix_store.entries import ENGINE, entry, kept
from tests.unit.prefix_store.test_tiered import ALWAYS, constants, in_delta


def test_sound_keys_of_the_very_prefix_are_taken_and_no_others(tmp_path):
    settings = Settings(lake=str(tmp_path))
    stored = [
        entry(b"sound").with_kv(kept(fill=1)),
        entry(b"bare"),
        entry(b"foreign").with_kv(kept(kv_digest="a" * 32)),
        entry(b"other tokens", fill=2.0).with_kv(kept(fill=4)),
    ]
    in_delta(settings, *stored)
    rows = [entry_to_row(one) for one in stored[:3]]
    rows += [entry_to_row(entry(b"other tokens", fill=3.0)), entry_to_row(entry(b"absent"))]
    keys = StoredKeys(lake=settings.lake, profile="p", policy=ALWAYS)
    found = keys.of(rows)
    assert [one is not None for one in found] == [True, False, False, False, False]
    assert found[0].payload.tolist() == [1] * 64
    slow = KVPolicy(mode="auto", schemes=("int8",), kv_digest=ENGINE, calibration=constants())
    assert keys.of(rows[:1]) != [None]
    assert StoredKeys(lake=settings.lake, profile="p", policy=slow).of(rows[:1]) == [None], "3 tokens: no"
    assert rows[0][S.KV_SCHEME] == "int8"
