"""What passes between a caller and a worker over Arrow Flight ``DoExchange``; pyarrow alone, no pickle.

The descriptor's command is a JSON header (:class:`Header`). The caller sends one schema of record batches
(:mod:`inputs`), the worker answers with rows (:mod:`answers`) and a last message of metadata that says how
many there were: a stream without it is torn, never an end. Errors travel as Flight errors whose
``extra_info`` is JSON (:mod:`faults`).
"""

from qanchor_plugin.backend.wire.answers import (
    ANSWERS,
    MAX_ANSWER_ROWS,
    AnswerRow,
    End,
    answer_batches,
    messages,
    read_answers,
)
from qanchor_plugin.backend.wire.faults import CODES, code_of, error_of, flight_error
from qanchor_plugin.backend.wire.header import KINDS, MAX_HEADER_BYTES, PRIORITIES, VERSION, Header
from qanchor_plugin.backend.wire.inputs import (
    PREFIXES,
    USERS,
    PrefixRow,
    prefix_batch,
    read_prefixes,
    read_users,
    users_batch,
)

AUTHORIZATION = "authorization"
"""Name of the Flight header that carries ``Bearer <token>``."""

__all__ = [
    "ANSWERS",
    "AUTHORIZATION",
    "CODES",
    "KINDS",
    "MAX_ANSWER_ROWS",
    "MAX_HEADER_BYTES",
    "PREFIXES",
    "PRIORITIES",
    "USERS",
    "VERSION",
    "AnswerRow",
    "End",
    "Header",
    "PrefixRow",
    "answer_batches",
    "code_of",
    "error_of",
    "flight_error",
    "messages",
    "prefix_batch",
    "read_answers",
    "read_prefixes",
    "read_users",
    "users_batch",
]
