"""What a long retrieval has done so far, in a folder: an interrupted one goes on from there.

manifest.json       what was asked; another question is refused
rows/               the entity rows, numbered, read once
chunks/00007/       the answer to one chunk of users, parquet
chunks/00007.json   that chunk is done, with its counts: written last
report.json         the whole is done
"""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from qanchor_plugin.errors import InputDataError, JobBusyError
from qanchor_plugin.identity import digest

_OURS = {"manifest.json", "rows", "chunks", "report.json", "rows_to_look_at", "_lock"} | {
    "manifest.writing",
    "report.writing",
}


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Everything that decides what the training set holds.

    Attributes:
        entities: path or SQL text.
        entities_digest: of the file's bytes, or of the text.
        features: as asked, in order.
        mode: what every anchor view is read in; "" leaves it to them.
        declared: identity of each view by name: a query, profile or engine that changed is another one.
    """

    entities: str
    entities_digest: str
    features: tuple[str, ...]
    mode: str
    declared: Mapping[str, str]

    @property
    def digest(self) -> str:
        """Equal inputs have equal digests; where the file stands does not count."""
        return digest(
            "training-set", self.entities_digest, list(self.features), self.mode, dict(self.declared)
        )


class Checkpoint:
    """The folder of one retrieval."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Within the block no other process works on this folder; the lock dies with its process.

        Raises:
            JobBusyError: another one does. InputDataError: the folder holds something else.
        """
        others = sorted({one.name for one in self.folder.glob("*")} - _OURS)
        if others:
            raise InputDataError(
                f"--checkpoint {self.folder} holds {others[:3]}, which are not a checkpoint's. Give a folder "
                "of its own; it is made if it is not there."
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "_lock").open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise JobBusyError(
                    f"another process works on the checkpoint {self.folder}. Wait for it to end, or give "
                    "another folder."
                ) from error
            yield

    def check(self, inputs: Inputs) -> None:
        """Nothing when the folder is empty or of these inputs.

        Raises:
            InputDataError: it was begun with others; says which differ.
        """
        begun = self.manifest()
        if begun is None or begun["digest"] == inputs.digest:
            return
        now = json.loads(json.dumps(asdict(inputs)))
        differing = [
            f"{name} was {begun['inputs'][name]!r}, is {now[name]!r}"
            for name in now
            if begun["inputs"][name] != now[name]
        ]
        raise InputDataError(
            f"checkpoint {self.folder} was begun with other inputs: {'; '.join(differing)}. Give it what it "
            "was begun with, or another --checkpoint folder; it is not mixed."
        )

    def manifest(self) -> dict[str, Any] | None:
        """What stands in the manifest; None before the rows were staged."""
        return _read(self.folder / "manifest.json")

    def begin(self, inputs: Inputs, *, num_rows: int, num_chunks: int) -> dict[str, Any]:
        """The manifest stands: from now on chunks are this many, whoever resumes."""
        body = {"format": 1, "digest": inputs.digest, "inputs": asdict(inputs)}
        body |= {"rows": num_rows, "chunks": num_chunks}
        _write(self.folder / "manifest.json", body)
        return body

    @property
    def rows(self) -> str:
        """Where the numbered entity rows stand."""
        return str(self.folder / "rows")

    def place(self, number: int) -> Path:
        """Where a chunk's answer is written before it counts."""
        shutil.rmtree(self._chunk(number), ignore_errors=True)
        self._chunk(number).parent.mkdir(exist_ok=True)
        return self._chunk(number)

    def done(self, number: int) -> dict[str, Any] | None:
        """A done chunk's counts; None when it is not."""
        return _read(self._chunk(number).with_suffix(".json"))

    def commit(self, number: int, counts: Mapping[str, Any]) -> None:
        """The chunk is done."""
        _write(self._chunk(number).with_suffix(".json"), counts)

    def answers(self, num_chunks: int) -> list[str]:
        """The folders of the done chunks that have rows."""
        return [str(self._chunk(n)) for n in range(num_chunks) if (self.done(n) or {}).get("rows")]

    def finish(self, report: Mapping[str, Any]) -> None:
        """The report stands: nothing is left to do."""
        _write(self.folder / "report.json", report)

    def report(self) -> dict[str, Any] | None:
        """The report of a retrieval that ended."""
        return _read(self.folder / "report.json")

    def _chunk(self, number: int) -> Path:
        return self.folder / "chunks" / f"{number:05d}"


def _read(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _write(path: Path, body: Mapping[str, Any]) -> None:
    """The file holds the body, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".writing")
    with scratch.open("w", encoding="utf-8") as handle:
        handle.write(json.dumps(body, indent=1, ensure_ascii=False, default=str))
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(scratch, path)
