"""Every column name and Arrow schema of the lake, once.

Instants are UTC microseconds. ``user`` is Feast's serialised entity key (version 3);
``user_key`` is the same key as readable JSON, such as ``{"household_id": 7}``.
Statistics are off for text and user columns (the Delta log would keep them in the clear).
"""

import pyarrow as pa

INSTANT = pa.timestamp("us", tz="UTC")

# --- column names -----------------------------------------------------------------------
TEXT_ID, TEXT = "text_id", "text"
ENCODER_ID, VECTOR = "encoder_id", "vector"
MODALITY, MODALITY_DIGEST = "modality", "modality_digest"
USER, USER_KEY, USER_BUCKET = "user", "user_key", "user_bucket"
MONTH, BATCH, NUM_EVENTS = "month", "batch", "num_events"
EVENT_AT, KNOWN_AT, GROUPS, AMOUNTS = "event_at", "known_at", "groups", "amounts"
PROFILE, PREFIX_ID, VISIBLE_DIGEST = "profile", "prefix_id", "visible_digest"
PREFIX_DIGEST = "prefix_digest"
NUM_TOKENS, TOKENS, TOKENS_DTYPE, POSITIONS = "num_tokens", "tokens", "tokens_dtype", "positions"
KV, KV_SCHEME, CONTENT_DIGEST = "kv", "kv_scheme", "content_digest"
AS_OF, CUTOFF = "as_of", "cutoff"
NEXT_CHANGE_AT = "next_change_at"
SCENARIO, SCENARIO_ID, EMBEDDING, EMBEDDING_ID = (
    "scenario",
    "scenario_id",
    "embedding",
    "embedding_id",
)
SERVED_AT = "served_at"
PUSHED_AT, PUSHED_ROW, GROUP_TEXTS = "pushed_at", "pushed_row", "group_texts"
QUERY, ANSWER, KIND, TOPIC, EVIDENCE, GENERATOR = "query", "answer", "kind", "topic", "evidence", "generator"
ALTERNATIVES, SHARD, HELD_OUT = "alternatives", "shard", "held_out"
JOB, RUN, STATE, STARTED_AT, ENDED_AT = "job", "run", "state", "started_at", "ended_at"
COMPLETE_TO, SOURCE_VERSIONS, COUNTS, MESSAGE = (
    "complete_to",
    "source_versions",
    "counts",
    "message",
)

# --- tables ------------------------------------------------------------------------------
EVENT_TEXTS = pa.schema([(TEXT_ID, pa.binary()), (TEXT, pa.string())])

EVENT_VECTORS = pa.schema([(ENCODER_ID, pa.string()), (TEXT_ID, pa.binary()), (VECTOR, pa.binary())])
"""``vector`` holds little-endian float16, ``dim * 2`` bytes."""

BEHAVIOUR_SEQUENCES = pa.schema(
    [
        (MODALITY, pa.string()),
        (MODALITY_DIGEST, pa.string()),
        (USER, pa.binary()),
        (USER_KEY, pa.string()),
        (USER_BUCKET, pa.int32()),
        (MONTH, pa.string()),
        (BATCH, pa.string()),
        (NUM_EVENTS, pa.int32()),
        (EVENT_AT, pa.list_(INSTANT)),
        (KNOWN_AT, pa.list_(INSTANT)),
        (TEXT_ID, pa.list_(pa.binary())),
        (GROUPS, pa.list_(pa.binary())),
        (AMOUNTS, pa.list_(pa.list_(pa.float64()))),
    ]
)
"""One row a (modality, user, month, batch). ``groups`` holds one element an event: the text ids of
its group names, 16 bytes for each declared ``group_by`` key in order, zeros where the key is null.
``amounts`` holds one list an event, one number for each declared amount, NaN where null."""

PROFILE_ROWS = pa.schema(
    [
        (MODALITY, pa.string()),
        (MODALITY_DIGEST, pa.string()),
        (USER, pa.binary()),
        (USER_KEY, pa.string()),
        (USER_BUCKET, pa.int32()),
        (BATCH, pa.string()),
        (EVENT_AT, INSTANT),
        (KNOWN_AT, INSTANT),
        (TEXT_ID, pa.binary()),
    ]
)

CHANGED_USERS = pa.schema(
    [(MODALITY_DIGEST, pa.string()), (USER, pa.binary()), (USER_BUCKET, pa.int32()), (BATCH, pa.string())]
)
"""Users of whom a batch took or changed events, for no row may be left to carry the batch; a null user stands
for everyone. Written before the rows themselves; of use until every profile has looked past the batch."""

USER_PREFIXES = pa.schema(
    [
        (PROFILE, pa.string()),
        (USER, pa.binary()),
        (USER_KEY, pa.string()),
        (USER_BUCKET, pa.int32()),
        (BATCH, pa.string()),
        (CUTOFF, INSTANT),
        (PREFIX_ID, pa.string()),
        (PREFIX_DIGEST, pa.string()),
        (VISIBLE_DIGEST, pa.string()),
        (AS_OF, INSTANT),
        (NUM_EVENTS, pa.int32()),
        (NUM_TOKENS, pa.int32()),
        (TOKENS_DTYPE, pa.string()),
        (TOKENS, pa.binary()),
        (POSITIONS, pa.binary()),
        (CONTENT_DIGEST, pa.string()),
        (KV_SCHEME, pa.string()),
        (KV, pa.binary()),
        (NEXT_CHANGE_AT, INSTANT),
    ]
)
"""``tokens``: row-major (num_tokens, token_width) of ``tokens_dtype``; ``positions``: int32.
``prefix_digest`` is the engine's: prefixes of several engines stand side by side. ``next_change_at`` is
the first instant after ``cutoff`` at which other events are visible though none is new
(``sequence.next_change``); null in rows of an earlier layout."""

SCENARIO_EMBEDDINGS = pa.schema(
    [
        (SCENARIO, pa.string()),
        (SCENARIO_ID, pa.string()),
        (USER, pa.binary()),
        (USER_KEY, pa.string()),
        (USER_BUCKET, pa.int32()),
        (BATCH, pa.string()),
        (CUTOFF, INSTANT),
        (EMBEDDING_ID, pa.string()),
        (EMBEDDING, pa.list_(pa.float32())),
        (AS_OF, INSTANT),
        (NUM_EVENTS, pa.int32()),
        (SERVED_AT, INSTANT),
    ]
)

USERU_PAIRS = pa.schema(
    [
        (USER, pa.binary()),
        (USER_KEY, pa.string()),
        (CUTOFF, INSTANT),
        (KIND, pa.string()),
        (TOPIC, pa.string()),
        (QUERY, pa.string()),
        (ANSWER, pa.string()),
        (EVIDENCE, pa.string()),
        (GENERATOR, pa.string()),
        (ALTERNATIVES, pa.list_(pa.string())),
        (SHARD, pa.int32()),
        (HELD_OUT, pa.bool_()),
    ]
)
"""Pre-training pairs; not in ``TABLES``, for no refresh writes them. ``kind`` is ``future`` (D_future),
``uqa`` (D_uqa) or ``outcome``; ``evidence`` is JSON for people. ``alternatives`` holds every answer of the
scale, the given one among them (none for free text). ``shard`` numbers a shuffled block of users, all at
the same cutoffs; 1 user in 20 is ``held_out``. The table ``useru_pairs`` is partitioned by ``shard``."""

JOB_RUNS = pa.schema(
    [
        (JOB, pa.string()),
        (RUN, pa.string()),
        (STATE, pa.string()),
        (SCENARIO, pa.string()),
        (SCENARIO_ID, pa.string()),
        (STARTED_AT, INSTANT),
        (ENDED_AT, INSTANT),
        (COMPLETE_TO, INSTANT),
        (SOURCE_VERSIONS, pa.string()),
        (COUNTS, pa.string()),
        (MESSAGE, pa.string()),
    ]
)
"""``state``: succeeded or failed. ``source_versions`` and ``counts`` are JSON. A row with a scenario
says that this scenario is complete up to ``complete_to``."""

PUSHED_EVENTS = pa.schema(
    [
        (MODALITY, pa.string()),
        (MODALITY_DIGEST, pa.string()),
        (USER, pa.binary()),
        (USER_KEY, pa.string()),
        (BATCH, pa.string()),
        (PUSHED_ROW, pa.string()),
        (PUSHED_AT, INSTANT),
        (EVENT_AT, INSTANT),
        (KNOWN_AT, INSTANT),
        (TEXT_ID, pa.binary()),
        (GROUPS, pa.binary()),
        (AMOUNTS, pa.list_(pa.float64())),
        (TEXT, pa.string()),
        (GROUP_TEXTS, pa.list_(pa.string())),
    ]
)
"""Events that came by ``store.push`` and that the batch has not brought yet: one row an event, rendered as
the batch renders it, with its own texts (``event_texts`` may lack them). ``batch`` names the push, and
``pushed_row`` the row; ``pushed_at`` is the wall's time. Written by delta-rs alone, read without Spark."""

PUSHED_STATISTICS = (MODALITY, MODALITY_DIGEST, BATCH, PUSHED_AT)
"""Columns of ``pushed_events`` whose bounds the Delta log keeps, whoever creates the table."""

TABLES: dict[str, pa.Schema] = {
    "event_texts": EVENT_TEXTS,
    "event_vectors": EVENT_VECTORS,
    "behaviour_sequences": BEHAVIOUR_SEQUENCES,
    "profile_rows": PROFILE_ROWS,
    "changed_users": CHANGED_USERS,
    "user_prefixes": USER_PREFIXES,
    "scenario_embeddings": SCENARIO_EMBEDDINGS,
    "job_runs": JOB_RUNS,
    "pushed_events": PUSHED_EVENTS,
}

PAIRS_TABLE = "useru_pairs"
"""Name of the table of pre-training pairs; it is in the lake once qanchor pairs has run."""

PARTITIONED_BY: dict[str, tuple[str, ...]] = {
    "event_texts": (),
    "event_vectors": (ENCODER_ID,),
    "behaviour_sequences": (MONTH, USER_BUCKET),
    "profile_rows": (USER_BUCKET,),
    "changed_users": (USER_BUCKET,),
    "user_prefixes": (PROFILE, USER_BUCKET),
    "scenario_embeddings": (SCENARIO, USER_BUCKET),
    "job_runs": (),
    "pushed_events": (),
}

EMBEDDING_DIM = 128
