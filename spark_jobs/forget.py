"""Users leave the lake: every row, file, log entry, snapshot and cache that holds them; a receipt stays.

Sources are not ours: who is not removed there as well is kept out by the list of the forgotten alone.
"""

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from qanchor_plugin import schemas as S
from qanchor_plugin.declare import Settings
from qanchor_plugin.errors import LakeError, QAnchorError
from qanchor_plugin.prefix_store.forgotten import FOLDER, ForgottenUsers
from spark_jobs.ledger import lake_folder, record, tables_of, undisturbed
from spark_jobs.lock import only_run
from spark_jobs.references import SNAPSHOTS, named_texts, renew_snapshots, unnamed
from spark_jobs.runs import FAILED, SUCCEEDED, RunClock
from spark_jobs.table_files import LOG, TableFiles
from spark_jobs.unused_files import Sweep

JOB = "forget"
RECEIPTS = "_receipts"
UNFINISHED = "unfinished"
PROMPTS = "_prompts"
REDACTED = "(forgotten)"
REMOVED, NOTHING_LEFT, INCOMPLETE = "removed", "nothing left", "incomplete"
SOURCES_REMAIN = (
    "Sources are not touched: remove the users there as well. Until then only the list of the forgotten "
    "keeps the next refresh from bringing them back. Backups, training sets and log files are not touched "
    "either."
)
Hook = Callable[[Sequence[bytes]], int]
"""Removes users from a cache or an online store; returns how many entries it removed."""


@dataclass(kw_only=True)
class Receipt:
    """What was removed where, without naming anyone.

    Attributes:
        run: its id.
        state: ``removed``, ``nothing left`` (there was nothing of them), or ``incomplete`` (run it again).
        users: salted digests, as the list of the forgotten has them.
        tables: by table: rows, data files and log files removed; rows whose text was redacted.
        elsewhere: by cache or store: entries removed.
        faults: what could not be done.
        note: what is left to the operator.
    """

    run: str
    state: str = INCOMPLETE
    started_at: str = ""
    ended_at: str = ""
    users: list[str] = field(default_factory=list)
    tables: dict[str, dict[str, int]] = field(default_factory=dict)
    elsewhere: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    note: str = SOURCES_REMAIN

    def count(self, table: str, what: str, num: int) -> None:
        """``num`` more of something were removed from a table."""
        if num:
            counts = self.tables.setdefault(table, {})
            counts[what] = counts.get(what, 0) + num


def forget(
    settings: Settings, users: Mapping[bytes, str], *, elsewhere: Mapping[str, Hook] | None = None
) -> Receipt:
    """Nothing in the lake holds the users, and none of the hooks' places does; the receipt says what went.

    A run that was killed is finished by the same call again; a second call finds nothing left.

    Args:
        users: serialised entity key to readable key.
        elsewhere: online store and worker caches by name. One that fails makes the receipt incomplete.

    Raises:
        JobBusyError: another run holds the lake. LakeError: a table cannot be read or written.
    """
    folder, clock = lake_folder(settings.lake), RunClock(settings)
    began = datetime.now(UTC)
    with only_run(folder, clock.run):
        known = ForgottenUsers(folder)
        known.add(users)
        marker = folder / FOLDER / UNFINISHED
        resumed = marker.exists()
        marker.write_text(clock.run, encoding="utf-8")
        receipt = Receipt(run=clock.run, users=sorted(known.digest(one) for one in users))
        _Forgetting(folder, users, receipt, resumed).everywhere()
        for name, hook in (elsewhere or {}).items():
            _elsewhere(receipt, name, hook, list(users))
        found = any(receipt.tables.values()) or any(receipt.elsewhere.values())
        receipt.state = INCOMPLETE if receipt.faults else REMOVED if found else NOTHING_LEFT
        receipt.started_at, receipt.ended_at = began.isoformat(), datetime.now(UTC).isoformat()
        _keep(folder, receipt)
        if not receipt.faults:
            marker.unlink(missing_ok=True)
        state = FAILED if receipt.faults else SUCCEEDED
        counts = {"users": len(users), "tables": receipt.tables, "elsewhere": receipt.elsewhere}
        record(
            folder, job=JOB, run=clock.run, state=state, started_at=clock.started_at, ended_at=clock.now,
            counts=counts, message="; ".join(receipt.faults),
        )  # fmt: skip
    return receipt


def forget_again(settings: Settings) -> int:
    """Nobody on the list of the forgotten is in the lake, as after a restore; how many were."""
    folder = lake_folder(settings.lake)
    listed = ForgottenUsers(folder)
    found: dict[bytes, str] = {}
    for table in tables_of(folder).values() if len(listed) else ():
        if {S.USER, S.USER_KEY} <= set(table.schema.names):
            for file in table.files():
                for rows in table.batches(file, [S.USER, S.USER_KEY]):
                    each = rows.group_by([S.USER, S.USER_KEY]).aggregate([]).to_pylist()
                    found |= {row[S.USER]: row[S.USER_KEY] for row in each if row[S.USER] in listed}
    if found:
        forget(settings, found)
    return len(found)


class _Forgetting:
    """The steps within the lake, each of them safe to repeat."""

    def __init__(self, folder: Path, users: Mapping[bytes, str], receipt: Receipt, resumed: bool) -> None:
        self.folder, self.users, self.receipt, self.resumed = folder, users, receipt, resumed
        self.tables = tables_of(folder)
        self.keys = pa.array(sorted(users), pa.binary())
        self.sweep = Sweep(self.receipt.count, self.receipt.faults)

    def everywhere(self) -> None:
        """Rows first, then the texts that nobody names any more, then the files and logs of all."""
        people = {name: one for name, one in self.tables.items() if S.USER in one.schema.names}
        texts = {
            name: one
            for name, one in self.tables.items()
            if name not in people and S.TEXT_ID in one.schema.names
        }
        for name, table in people.items():
            self._remove(name, table, S.USER, self.keys)
        named = named_texts(people.values())
        for name, table in texts.items():
            self._remove(name, table, S.TEXT_ID, unnamed(table, named))
            self.sweep.files(name, table, lambda rows: _any_not_in(rows, S.TEXT_ID, named), [S.TEXT_ID])
        for name in sorted(set(self.tables) - set(people) - set(texts)):
            self._redact(name, self.tables[name])
        for name, table in people.items():
            self.sweep.files(name, table, lambda rows: _any_in(rows, S.USER, self.keys), [S.USER])
        self.receipt.count(SNAPSHOTS, "folders", renew_snapshots(self.folder, named))
        self._prompts()
        needles = needles_of(self.users)
        for name, table in self.tables.items():
            if self.resumed or self.receipt.tables.get(name) or mentioned(table.folder / LOG, needles):
                with undisturbed(table):
                    self.receipt.count(name, "log_files", table.cut_log())

    def _remove(self, name: str, table: TableFiles, column: str, values: pa.Array) -> None:
        values = values.cast(table.schema.field(column).type)
        if not len(values):
            return
        with undisturbed(table):
            holding = table.holding(column, values, table.files())
            if holding:
                self.receipt.count(name, "rows", table.rewrite(holding, _without(column, values)))
                self.receipt.count(name, "files_rewritten", len(holding))

    def _redact(self, name: str, table: TableFiles) -> None:
        """Rows that only mention a user (a run's message) stay, without the mention."""
        told = [text for key in self.users.values() for text in (key, json.dumps(key)[1:-1])]
        columns = [one.name for one in table.schema if pa.types.is_string(one.type) or _is_view(one.type)]
        holding = [
            one for one in table.files() if any(_mentions(part, told) for part in table.batches(one, columns))
        ]
        if holding:
            table.rewrite(holding, lambda rows: _redacted(rows, told))
            self.receipt.count(name, "files_redacted", len(holding))
        self.sweep.files(name, table, lambda rows: _mentions(rows, told), columns)

    def _prompts(self) -> None:
        """What an LLM was told and answered of users is kept by digest alone, so all of it goes."""
        for path in sorted((self.folder / PROMPTS).glob("*")):
            path.unlink()
            self.receipt.count(PROMPTS, "files", 1)


def needles_of(users: Mapping[bytes, str]) -> list[bytes]:
    """How a user can stand in a file: key bytes, as hex or base64, and the readable key, also within JSON."""
    found: list[bytes] = []
    for user, name in users.items():
        found += [user, user.hex().encode(), base64.b64encode(user)]
        found += [name.encode(), json.dumps(name)[1:-1].encode()]
    return found


def mentioned(folder: Path, needles: Sequence[bytes]) -> bool:
    """Whether a file below the folder holds one of the needles."""
    for path in folder.rglob("*"):
        if path.is_file():
            body = path.read_bytes()
            if any(one in body for one in needles):
                return True
    return False


def _elsewhere(receipt: Receipt, name: str, hook: Hook, users: list[bytes]) -> None:
    try:
        receipt.elsewhere[name] = hook(users)
    except (QAnchorError, OSError) as error:
        receipt.faults.append(f"{name}: {type(error).__name__}: {error}")


def _keep(folder: Path, receipt: Receipt) -> None:
    path = folder / RECEIPTS / f"{receipt.run}.json"
    try:
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(asdict(receipt), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise LakeError(f"the receipt {path} cannot be written ({error}); run it again.") from error


def _without(column: str, values: pa.Array) -> Callable[[pa.Table], pa.Table]:
    return lambda rows: rows.filter(pc.invert(pc.is_in(rows[column], value_set=values)))


def _any_in(rows: pa.Table, column: str, values: pa.Array) -> bool:
    return bool(pc.any(pc.is_in(rows[column].cast(values.type), value_set=values)).as_py())


def _any_not_in(rows: pa.Table, column: str, named: set[bytes]) -> bool:
    return any(one not in named for one in pc.unique(rows[column]).to_pylist())


def _mentions(rows: pa.Table, told: Sequence[str]) -> bool:
    return any(
        pc.any(pc.match_substring(rows[name], text)).as_py() for name in rows.column_names for text in told
    )


def _redacted(rows: pa.Table, told: Sequence[str]) -> pa.Table:
    for number, one in enumerate(rows.schema):
        if pa.types.is_string(one.type):
            column = rows[one.name]
            for text in told:
                column = pc.replace_substring(column, text, REDACTED)
            rows = rows.set_column(number, one, column)
    return rows


def _is_view(kind: pa.DataType) -> bool:
    return pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
