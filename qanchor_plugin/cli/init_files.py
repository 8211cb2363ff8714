"""The files of a new feature repo, as text: pure functions of what was guessed."""

import os
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from qanchor_plugin.cli.init_columns import Guess
from qanchor_plugin.cli.init_entity import EntityGuess

CLOCK_AFTER = timedelta(days=30)
LONG_HISTORY = timedelta(days=180)

FEASTIGNORE = """# feast imports every .py file below feature_store.yaml, except what stands here.
.venv
data
logs
tests
"""


@dataclass(frozen=True, kw_only=True)
class NewRepo:
    """Everything the files say.

    Attributes:
        folder: where they will stand.
        project: Feast's project name.
        entities, guesses: what the tables were taken for.
        oldest, newest: instants of the events seen (None: no table has a time).
    """

    folder: Path
    project: str
    entities: tuple[EntityGuess, ...]
    guesses: tuple[Guess, ...]
    oldest: datetime | None
    newest: datetime | None

    @property
    def profile(self) -> str:
        """Name of the profile."""
        return f"{'_'.join(entity.name for entity in self.entities)}_journey"

    @property
    def scenario(self) -> str:
        """Name of the example scenario."""
        return f"active_{self.entities[0].name}"

    @property
    def window_days(self) -> int:
        """A year for long histories, else 90 days."""
        long = self.oldest and self.newest and self.newest - self.oldest > LONG_HISTORY
        return 365 if long else 90

    def clock(self, now: datetime) -> datetime | None:
        """The midnight after the newest event when the data ended long ago, else None."""
        if self.newest is None or now - self.newest < CLOCK_AFTER:
            return None
        midnight = self.newest.replace(hour=0, minute=0, second=0, microsecond=0)
        return midnight if midnight == self.newest else midnight + timedelta(days=1)

    def files(self) -> dict[str, str]:
        """Contents by path below the folder."""
        return {
            "feature_store.yaml": self._store(),
            "entities.py": self._entities(),
            "sources.py": self._sources(),
            "profiles.py": self._profiles(),
            "scenarios/example.py": self._scenario(),
            ".feastignore": FEASTIGNORE,
        }

    def _store(self) -> str:
        clock = self.clock(datetime.now(UTC))
        line = f"clock: {clock:%Y-%m-%dT%H:%M:%SZ}   " if clock else "# clock: 2026-01-01T00:00:00Z   "
        why = (
            "# the data end here: without it every window would be empty"
            if clock
            else "# for data that ended"
        )
        return f"""project: {self.project}
provider: qanchor_plugin.feast_ext.provider.QAnchorProvider
entity_key_serialization_version: 3

registry:
  path: data/registry.db
  enable_online_feature_view_versioning: true   # view@vN stays readable while a new version fills

online_store:                 # for Redis: type: redis, connection_string: "localhost:6379"
  type: sqlite
  path: data/online_store.db

offline_store:
  type: qanchor_plugin.feast_ext.offline_store.QAnchorOfflineStore
batch_engine:
  type: qanchor_plugin.feast_ext.compute_engine.QAnchorComputeEngine

qanchor:
  lake: data/lake             # our Delta tables; feast teardown never removes them
  {line}{why}
  engine: demo                # or qwen2.5-0.5b, or a folder written by save_pretrained
  spark_master: local[*]
  log_folder: logs            # Spark's own output
"""

    def _entities(self) -> str:
        blocks = [
            f"{one.name} = Entity(\n    name={one.name!r},\n    join_keys=[{one.join_key!r}],"
            f"\n    value_type=ValueType.{one.value_type},\n)\n"
            for one in self.entities
        ]
        return _black(
            '"""Who the features are about."""\n\nfrom feast import Entity, ValueType\n\n' + "\n".join(blocks)
        )

    def _sources(self) -> str:
        timed = [guess for guess in self.guesses if not guess.static]
        delta = any(guess.table.format == "delta" for guess in timed)
        head = '"""Where behaviour stands, and which columns carry time."""\n\n'
        imports = [
            "from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource"
        ]
        imports += ["from feast.table_format import DeltaFormat"] if delta else []
        if not timed:
            return (
                head
                + "# No table has a time: their sources stand in profiles.py (feast would ask for one).\n"
            )
        blocks = [f"{guess.table.name} = {_source(guess, self.folder, '')}\n" for guess in timed]
        return _black(head + "\n".join(imports) + "\n\n" + "\n".join(blocks))

    def _profiles(self) -> str:
        static = [guess for guess in self.guesses if guess.static]
        imports = ["from datetime import timedelta", ""]
        if static:
            imports.append(
                "from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource"
            )
        if any(guess.table.format == "delta" for guess in static):
            imports.append("from feast.table_format import DeltaFormat")
        imports += ["from qanchor_plugin.declare import Modality, Profile", ""]
        imports += ["import sources"] if len(static) < len(self.guesses) else []
        imports += [f"from entities import {', '.join(sorted(one.name for one in self.entities))}", ""]
        entity = ", ".join(one.name for one in self.entities)
        entity = f"[{entity}]" if len(self.entities) > 1 else entity
        modalities = "\n".join(_modality(guess, self.folder) for guess in self.guesses)
        return _black(
            '"""Which behaviour describes a user: declared once, read once, asked by every scenario."""\n\n'
            + "\n".join(imports)
            + f"\n{self.profile} = Profile(\n    {self.profile!r},\n    {entity},\n    [\n{modalities}\n"
            + f"    ],\n    window=timedelta(days={self.window_days}),"
            + "  # an event is seen for this long; None: for ever\n)\n"
        )

    def _scenario(self) -> str:
        return _black(f'''"""One anchor query. A new scenario is a file like this one."""

from datetime import timedelta

from profiles import {self.profile}

from qanchor_plugin.feast_ext import anchor_view

{self.scenario} = anchor_view(
    name={self.scenario!r},
    # The question, in plain words; the words of your event texts work best.
    query="Will this {self.entities[0].name} be active again within the next 30 days?",
    profile={self.profile},
    ttl=timedelta(days=7),  # how long an answer may be served
)
''')


def _source(guess: Guess, folder: Path, indent: str) -> str:
    table = guess.table
    place = f"table={table.given!r}" if table.format == "table" else f"path={_path(table.given, folder)!r}"
    lines = [f"name={table.name!r}", place]
    lines += {"delta": ["table_format=DeltaFormat()"], "parquet": ["file_format='parquet'"]}.get(
        table.format, []
    )
    lines += [f"timestamp_field={guess.event_at!r}"] if guess.event_at else []
    lines += [f"created_timestamp_column={guess.known_at!r}"] if guess.known_at else []
    body = "".join(f"{indent}    {line},\n" for line in lines)
    return f"SparkSource(\n{body}{indent})"


def _modality(guess: Guess, folder: Path) -> str:
    columns = f"columns: {', '.join(guess.table.columns)}"
    lines = [f"            # {line}" for note in (columns, *guess.doubts) for line in textwrap.wrap(note, 92)]
    lines.append(f"            {guess.table.name!r},")
    source = _source(guess, folder, "            ") if guess.static else f"sources.{guess.table.name}"
    lines.append(f"            {source},")
    lines.append(f"            {guess.text!r},")
    if guess.kind == "tabular":
        lines.append("            kind='tabular',  # the newest row describes the user")
    if guess.static:
        lines.append("            static=True,  # no time: always visible, not point-in-time")
    lines += (
        [f"            group_by={guess.group_by!r},  # a token a group, with its counts"]
        if guess.group_by
        else []
    )
    lines += [f"            amounts={guess.amounts!r},  # summed by group"] if guess.amounts else []
    lines += ["            max_events=64,  # newest events kept as tokens"] if guess.kind == "events" else []
    return "        Modality(\n" + "\n".join(lines) + "\n        ),"


def _path(given: str, folder: Path) -> str:
    """As feast reads it: relative to the folder of feature_store.yaml, unless given absolute."""
    place = Path(given).expanduser()
    return str(place) if place.is_absolute() else os.path.relpath(place.resolve(), folder.resolve())


def _black(text: str) -> str:
    """Python's reprs with double quotes where that changes nothing else."""
    return "".join(line if '"' in line else line.replace("'", '"') for line in text.splitlines(keepends=True))


def summary(guesses: Sequence[Guess]) -> list[dict[str, object]]:
    """What was guessed of each table and why, as JSON-like values."""
    return [
        {
            "source": guess.table.given,
            "modality": guess.table.name,
            "format": guess.table.format,
            "kind": guess.kind,
            "static": guess.static,
            "timestamp_field": guess.event_at,
            "created_timestamp_column": guess.known_at,
            "text": guess.text,
            "group_by": list(guess.group_by),
            "amounts": list(guess.amounts),
            "why": guess.why,
            "doubts": guess.doubts,
        }
        for guess in guesses
    ]
