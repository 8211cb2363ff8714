"""The wire contract: what is written is read back equal, and whatever is torn or foreign is refused."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.flight as flight
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qanchor_plugin import schemas as S
from qanchor_plugin.backend import wire
from qanchor_plugin.backend.protocol import Answer, Ask
from qanchor_plugin.errors import (
    BackendError,
    BrokenAnswerError,
    DeadlineError,
    DrainingError,
    InputDataError,
    LakeError,
    MissingVectorsError,
    OverloadedError,
    QAnchorError,
    UnauthenticatedError,
    WrongEngineError,
)
from qanchor_plugin.identity import embedding_id
from qanchor_plugin.prefix_store import make_entry
from tests.shop import PROFILE

SCENARIO = "ab" * 16
ASK = Ask(profile=PROFILE, query="Beer?", engine="demo", engine_digest="e1", scenario_id=SCENARIO)
OTHER = Ask(profile=PROFILE, query="Çay?", engine="demo", soft_prompt="prompts/tea")
HEADER = wire.Header(kind="users", asks=(ASK, OTHER), cutoff=1_000, deadline_ms=2_000, request_id="r-1")
END = wire.End(rows=4, engines={"demo": "e1"}, request_id="r-1", queue_ms=0.5, compute_ms=1.5)


def answer(seed: int = 0, scenario: str = SCENARIO) -> Answer:
    vector = np.random.default_rng(seed).normal(size=128)
    return Answer(
        embedding=(vector / np.linalg.norm(vector)).astype(np.float32),
        embedding_id=embedding_id(scenario=scenario, prefix="cd" * 16, suffix_day=None),
        cutoff=1_000,
        as_of=None if seed == 3 else 900 + seed,
        num_events=seed,
    )


ROWS = [(0, 0, answer(1)), (1, 0, None), (0, 1, answer(2)), (1, 1, answer(3))]


def messages(rows=ROWS, end: wire.End | None = END):
    yield from ((batch, None) for batch in wire.answer_batches(rows))
    if end is not None:
        yield None, end.to_bytes()


def read(found, asked=(ASK, OTHER), cutoffs=(1_000, 1_000)):
    return wire.read_answers(found, asked=asked, cutoffs=cutoffs)


# --- header ---------------------------------------------------------------------------------


def test_a_header_is_read_back_equal_and_carries_each_profile_once():
    made = HEADER.to_bytes()
    assert wire.Header.from_bytes(made) == HEADER
    assert len(json.loads(made)["profiles"]) == 1


@given(
    query=st.text(max_size=200),
    deadline=st.integers(1, 2**31 - 1),
    cutoff=st.integers(-(2**62), 2**62),
    priority=st.sampled_from(wire.PRIORITIES),
)
def test_any_header_is_read_back_equal(query, deadline, cutoff, priority):
    header = replace(
        HEADER, asks=(replace(ASK, query=query),), cutoff=cutoff, deadline_ms=deadline, priority=priority
    )
    assert wire.Header.from_bytes(header.to_bytes()) == header


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"version": 2}, "speaks version 2"),
        ({"surprise": 1}, "surprise"),
        ({"kind": "pickle"}, "kind is 'pickle'"),
        ({"asks": []}, "asks nothing"),
        ({"priority": "urgent"}, "priority is 'urgent'"),
        ({"deadline_ms": 0}, "deadline_ms is 0"),
        ({"deadline_ms": 1.5}, "deadline_ms is 1.5"),
        ({"cutoff": None}, "cutoff is None"),
        ({"kind": "prefixes"}, "carry their cutoffs"),
        ({"request_id": "x" * 200}, "request_id"),
        ({"profiles": []}, "cannot be read"),
        ({"profiles": ["{}"]}, "cannot be read"),
        ({"asks": [{"query": "Beer?", "engine": "demo", "profile": -1}]}, "not a number"),
        ({"asks": [{"query": 7, "engine": "demo", "profile": 0}]}, "not text"),
        ({"asks": [{"query": "Beer?", "engine": "demo", "profile": 0, "code": "x"}]}, "code"),
    ],
)
def test_a_header_that_cannot_be_right_is_refused(changed, said):
    body = {**json.loads(HEADER.to_bytes()), **changed}
    with pytest.raises(InputDataError, match=said):
        wire.Header.from_bytes(json.dumps(body).encode())


@pytest.mark.parametrize("given_bytes", [b"", b"\x80\x04garbage", b"[1]", b"7", b"[" * 100_000])
def test_garbage_is_no_header(given_bytes):
    with pytest.raises(InputDataError):
        wire.Header.from_bytes(given_bytes)


def test_an_oversized_header_is_neither_sent_nor_read():
    big = replace(HEADER, asks=(replace(ASK, query="x" * wire.MAX_HEADER_BYTES),))
    with pytest.raises(InputDataError, match="at most 1,048,576"):
        big.to_bytes()
    with pytest.raises(InputDataError, match="at most 1,048,576"):
        wire.Header.from_bytes(b" " * (wire.MAX_HEADER_BYTES + 1))


# --- inputs ---------------------------------------------------------------------------------


def entry(user: bytes = b"u1", dtype: str = "float32"):
    kind = {"float32": np.float32, "bfloat16": np.uint16}[dtype]
    return make_entry(
        user=user,
        prefix_id="p1",
        visible_digest="v1",
        as_of=None if user == b"u2" else 5,
        num_events=2,
        tokens=np.arange(12).reshape(3, 4).astype(kind),
        tokens_dtype=dtype,
        positions=np.arange(3, dtype=np.int32),
    )


def test_users_are_read_back_and_nulls_refused():
    assert wire.read_users(wire.users_batch([b"a", b"\x00b"])) == [b"a", b"\x00b"]
    with pytest.raises(InputDataError, match="1 nulls"):
        wire.read_users(pa.record_batch([pa.array([b"a", None], pa.binary())], schema=wire.USERS))
    with pytest.raises(InputDataError, match="columns"):
        wire.read_users(pa.record_batch({"user": ["text"]}))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_prefixes_are_read_back_bit_for_bit(dtype):
    entries = [entry(b"u1", dtype), entry(b"u2", dtype)]
    found = wire.read_prefixes(wire.prefix_batch(entries, [7, 8]))
    assert [one.cutoff for one in found] == [7, 8]
    for read_back, sent in zip(found, entries, strict=True):
        np.testing.assert_array_equal(read_back.entry.tokens, sent.tokens)
        np.testing.assert_array_equal(read_back.entry.positions, sent.positions)
        assert (read_back.entry.as_of, read_back.entry.user) == (sent.as_of, sent.user)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        (S.USER, b"u9"),
        (S.PREFIX_ID, "p9"),
        (S.TOKENS, bytes(48)),
        (S.TOKENS, b"short"),
        (S.NUM_TOKENS, -1),
        (S.NUM_TOKENS, 2**40),
        (S.TOKENS_DTYPE, "object"),
        (S.CONTENT_DIGEST, "00"),
    ],
)
def test_a_prefix_changed_on_the_way_is_refused(column, value):
    batch = wire.prefix_batch([entry()], [7])
    place = wire.PREFIXES.get_field_index(column)
    changed = batch.set_column(place, wire.PREFIXES.field(place), pa.array([value], batch.schema[place].type))
    with pytest.raises(InputDataError, match="content digest"):
        wire.read_prefixes(changed)


# --- answers --------------------------------------------------------------------------------


def test_answers_are_read_back_equal_in_the_order_asked():
    found, end = read(messages(ROWS[::-1]))
    assert [[one is not None for one in row] for row in found] == [[True, True], [False, True]]
    for row, ask, sent in ROWS:
        if sent is not None:
            np.testing.assert_array_equal(found[row][ask].embedding, sent.embedding)
            assert found[row][ask].embedding_id == sent.embedding_id
            assert (found[row][ask].as_of, found[row][ask].num_events) == (sent.as_of, sent.num_events)
    assert end == END


def test_many_rows_go_in_several_messages():
    one = answer(1)
    rows = [(row, 0, one) for row in range(wire.MAX_ANSWER_ROWS + 1)]
    batches = list(wire.answer_batches(rows))
    assert [batch.num_rows for batch in batches] == [wire.MAX_ANSWER_ROWS, 1]
    found, _ = read(messages(rows, replace(END, rows=len(rows))), (ASK,), [1_000] * len(rows))
    assert len(found) == len(rows)


@pytest.mark.parametrize(
    ("rows", "end", "said"),
    [
        (ROWS, None, "broke off"),
        (ROWS[:3], END, "has 3 rows"),
        (ROWS[:3], replace(END, rows=3), "has 3 rows"),
        ([*ROWS, ROWS[0]], replace(END, rows=5), "twice"),
        ([*ROWS[:3], (2, 1, None)], END, "not asked"),
        ([*ROWS[:3], (1, -1, None)], END, "not asked"),
        ([(0, 0, replace(answer(1), cutoff=999)), *ROWS[1:]], END, "cutoff 999"),
        ([(0, 0, answer(1, "cd" * 16)), *ROWS[1:]], END, "not of scenario"),
        ([(0, 0, replace(answer(1), embedding=np.zeros(128, np.float32))), *ROWS[1:]], END, "length 1"),
        ([(0, 0, replace(answer(1), embedding=np.full(128, np.nan))), *ROWS[1:]], END, "not finite"),
        ([(0, 0, replace(answer(1), embedding=np.full(128, np.inf))), *ROWS[1:]], END, "not finite"),
        (ROWS, replace(END, engines={"demo": "e2"}), "comes from engine e2"),
        (ROWS, replace(END, engines={}), "comes from engine None"),
    ],
)
def test_no_part_of_a_broken_answer_is_used(rows, end, said):
    with pytest.raises(BrokenAnswerError, match=said):
        read(messages(rows, end))


def test_an_answer_of_other_columns_or_after_its_end_is_broken():
    with pytest.raises(BrokenAnswerError, match="columns"):
        read([(pa.record_batch({"row": [1]}), None), (None, END.to_bytes())])
    with pytest.raises(BrokenAnswerError, match="goes on"):
        read([*messages(), (None, END.to_bytes())])
    with pytest.raises(BrokenAnswerError, match="cannot be read"):
        read([*messages(end=None), (None, b"{}")])


# --- errors ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raised", "kind", "code"),
    [
        (OverloadedError("full", retry_after_ms=40), OverloadedError, "resource_exhausted"),
        (DrainingError("ending", retry_after_ms=7), DrainingError, "draining"),
        (DeadlineError("late"), DeadlineError, "deadline_exceeded"),
        (UnauthenticatedError("who"), UnauthenticatedError, "unauthenticated"),
        (InputDataError("odd"), InputDataError, "bad_request"),
        (WrongEngineError("other"), WrongEngineError, "wrong_engine"),
        (LakeError("gone"), LakeError, "lake"),
        (MissingVectorsError(3, encoder_id="e"), LakeError, "lake"),
        (BackendError("broken"), BackendError, "internal"),
        (ValueError("user 7's data"), BackendError, "internal"),
    ],
)
def test_an_error_comes_back_as_it_was_raised(raised, kind, code):
    sent = wire.flight_error(raised)
    found = wire.error_of(sent, address="host:1")
    assert type(found) is kind
    assert wire.code_of(raised) == code
    assert getattr(found, "retry_after_ms", 0) == getattr(raised, "retry_after_ms", 0)
    assert str(found).startswith("worker host:1: ")
    assert ("user 7" in str(found)) is False
    if isinstance(raised, QAnchorError):
        assert str(raised) in str(found)


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (flight.FlightTimedOutError("late"), DeadlineError),
        (flight.FlightUnavailableError("refused"), BackendError),
        (flight.FlightUnauthenticatedError("who"), UnauthenticatedError),
        (flight.FlightInternalError("torn"), BackendError),
        (pa.ArrowInvalid("torn"), BackendError),
        (OSError("reset"), BackendError),
        (flight.FlightServerError("x", b"not json"), BackendError),
    ],
)
def test_what_the_transport_raises_is_an_error_of_ours(raised, kind):
    assert type(wire.error_of(raised, address="host:1")) is kind


def test_a_long_message_fits_grpc_trailers():
    assert len(bytes(wire.flight_error(InputDataError("x" * 100_000)).extra_info)) < 4_000
