"""What a prefix holds, where its tokens stand, and the defined empty one."""

import numpy as np
import pytest

from qanchor_plugin.engine.config import DEMO
from qanchor_plugin.engine.prefix import DAY_OFFSET, layout
from qanchor_plugin.errors import EngineError, MissingVectorsError
from qanchor_plugin.identity import text_id
from qanchor_plugin.sequence import UserHistory, slice_at
from tests.unit.engine.conftest import DAY, GROUPS, TEXTS, TODAY, RandomVectors, household_row, some_events

EPOCH_DAY = 10_957  # 2000-01-01


def test_order_is_coarse_to_fine(make_user):
    user = make_user(2, 1, seed=1)
    kinds = [(slot.kind, slot.modality) for slot in layout(user, DEMO)]
    num_groups = len(user.groups)
    assert num_groups >= 2
    assert kinds[:4] == [("usr", ""), ("mdl", "purchases"), ("mdl", "visits"), ("mdl", "household")]
    assert {kind for kind, _ in kinds[4 : 4 + num_groups]} == {"grp"}
    assert kinds[4 + num_groups :] == [
        *[("start", "purchases"), ("evt", "purchases"), ("evt", "purchases"), ("end", "purchases")],
        *[("start", "visits"), ("evt", "visits"), ("end", "visits")],
        *[("start", "household"), ("evt", "household"), ("end", "household")],
    ]
    assert "grp" not in {slot.kind for slot in layout(user, DEMO.with_(group_tokens=False))}


def test_positions_follow_the_calendar(demo, make_user):
    user = make_user(3, 0, row=False, seed=2)
    prefix = demo.build_prefixes([user], RandomVectors(384))[0]
    days = [DAY_OFFSET + at // DAY - EPOCH_DAY for at in user.modalities[0].event_at]
    assert prefix.positions.dtype == np.int32
    assert prefix.positions[0] == 0
    assert prefix.positions[-4:-1].tolist() == days
    assert prefix.positions[1] == prefix.positions[-1] == days[-1]
    assert (prefix.as_of, prefix.num_events) == (user.as_of, 3)


def test_index_positions_count_up(paper, make_user):
    prefix = paper.build_prefixes([make_user(3, 1, seed=3)], RandomVectors(32))[0]
    assert prefix.positions.tolist() == list(range(len(prefix.tokens)))


def test_tokens_are_stored_in_the_declared_type(demo, paper, make_user):
    user = make_user(3, 1, seed=3)
    small, large = (
        engine.build_prefixes([user], RandomVectors(engine.encoder_dim))[0] for engine in (demo, paper)
    )
    assert (demo.token_dtype, small.tokens.dtype, small.tokens.shape[1]) == ("float16", np.float16, 384)
    assert (paper.token_dtype, large.tokens.dtype, large.tokens.shape[1]) == ("bfloat16", np.uint16, 64)


@pytest.mark.parametrize("name", ["demo", "paper"])
def test_without_events_the_embedding_is_the_query_s_alone(engine_named, profile, name):
    engine = engine_named(name)
    never = slice_at(UserHistory(user=b"a", user_key="a", events={}), profile, TODAY)
    rows = {"household": household_row(), "purchases": some_events(4, 1)}
    before = slice_at(UserHistory(user=b"b", user_key="b", events=rows), profile, 100 * DAY)
    prefixes = engine.build_prefixes([never, before], RandomVectors(engine.encoder_dim))
    assert [one.num_events for one in prefixes] == [0, 0]
    assert [one.as_of for one in prefixes] == [None, None]
    assert prefixes[0].tokens.tobytes() == prefixes[1].tokens.tobytes()
    queries = [engine.prepare_query("beer?"), engine.prepare_query("Will this user leave?")]
    answers = engine.embed(prefixes, queries, [TODAY] * 2)
    np.testing.assert_array_equal(answers[0], answers[1])
    assert np.abs(answers[0, 0] - answers[0, 1]).max() > 1e-3


def test_a_prefix_stays_valid_as_time_passes_and_the_answer_moves(demo, make_user):
    today = make_user(5, 0, row=False, seed=4)
    later = make_user(5, 0, row=False, seed=4, cutoff=TODAY + 30 * DAY)
    vectors = RandomVectors(384)
    one, other = demo.build_prefixes([today, later], vectors)
    assert one.tokens.tobytes() == other.tokens.tobytes()
    query = [demo.prepare_query("Will this household stop purchasing?")]
    answers = demo.embed([one, one, one], query, [TODAY, TODAY + DAY // 3, TODAY + 30 * DAY])[:, 0]
    np.testing.assert_array_equal(answers[0], answers[1])
    assert np.abs(answers[0] - answers[2]).max() > 1e-4
    assert demo.suffix_knows_time


def test_the_paper_s_answer_does_not_depend_on_the_day(paper, make_user):
    prefix = paper.build_prefixes([make_user(5, 2, seed=4)], RandomVectors(32))
    query = [paper.prepare_query("beer?")]
    assert not paper.suffix_knows_time
    np.testing.assert_array_equal(
        paper.embed(prefix, query, [TODAY]), paper.embed(prefix, query, [TODAY + 90 * DAY])
    )


def test_texts_without_vectors_are_an_error(demo, make_user, tmp_path):
    from qanchor_plugin.engine import VectorSnapshot, write_snapshot

    ids = np.frombuffer(text_id(TEXTS[0]), np.uint8).reshape(1, 16)
    folder = write_snapshot(tmp_path, encoder_id="e", ids=ids, vectors=np.ones((1, 384), np.float16))
    with pytest.raises(MissingVectorsError):
        demo.build_prefixes([make_user(30, 3)], VectorSnapshot.open(folder))


def test_preview_reads_as_people_do(demo, paper, make_user):
    user = make_user(1, 0, row=False, seed=11)
    text_of = {text_id(one): one for one in (*TEXTS, *GROUPS)}
    lines = demo.preview_prefix(user, text_of)
    assert [line.kind for line in lines] == ["template", "usr", "mdl", "grp", "start", "evt", "end"]
    assert lines[3].text.startswith("g: GROUP ")
    assert lines[3].text.endswith("×1")
    assert lines[5].text in TEXTS
    assert lines[5].day == str(np.datetime64(user.as_of, "us").astype("datetime64[D]"))
    assert demo.preview_prefix(user, {})[5].text.startswith("<text ")
    assert paper.preview_prefix(user, text_of)[0].text == (
        "Below is a user's behaviour from these sources: purchases, visits, household.\n"
    )


def test_prefixes_of_another_width_are_refused(demo, paper, make_user):
    prefixes = paper.build_prefixes([make_user(3, 1)], RandomVectors(32))
    with pytest.raises(EngineError, match="384 wide"):
        demo.embed(prefixes, [demo.prepare_query("beer?")], [TODAY])
    with pytest.raises(EngineError, match="one cutoff a prefix"):
        paper.embed(prefixes, [], [])
