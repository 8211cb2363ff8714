"""A person's own tables, as ``init`` needs them: columns, types, and a sample with counts."""

import keyword
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from qanchor_plugin.errors import InputDataError

SAMPLE_ROWS = 50_000
_CATALOGUE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*){0,2}")


@dataclass(frozen=True, kw_only=True)
class SourceTable:
    """One table given to ``init``.

    Attributes:
        name: slug that its modality and its Feast source get.
        given: the path or catalogue name, as the person wrote it.
        format: ``delta``, ``parquet`` or ``table`` (a catalogue table).
        sample: its first rows, ``SAMPLE_ROWS`` at most.
        whole: whether the sample is all of it.
    """

    name: str
    given: str
    format: str
    sample: pa.Table
    whole: bool

    @property
    def columns(self) -> list[str]:
        """The column names, in the table's order."""
        return list(self.sample.column_names)

    def distinct(self, column: str) -> int:
        """Distinct non-null values of a column in the sample."""
        return int(pc.count_distinct(self.sample[column], mode="only_valid").as_py())

    def type_of(self, column: str) -> pa.DataType:
        """The column's Arrow type; dictionaries as their values."""
        kind = self.sample.schema.field(column).type
        return kind.value_type if pa.types.is_dictionary(kind) else kind


def read_source(given: str, *, read_catalogue: Callable[[str], pa.Table]) -> SourceTable:
    """The table behind ``PATH``, ``TABLE``, ``name=PATH`` or ``name=TABLE``.

    Args:
        given: a folder of a Delta table, a parquet file or folder, or a catalogue table's name.
        read_catalogue: reads the first ``SAMPLE_ROWS`` + 1 rows of a catalogue table.

    Raises:
        InputDataError: nothing there, or nothing that can be read; names what is accepted.
    """
    name, place = _named(given)
    path = Path(place).expanduser()
    if (path / "_delta_log").is_dir():
        kind, sample = "delta", _delta_sample(path)
    elif path.is_file() or (path.is_dir() and any(path.rglob("*.parquet"))):
        kind, sample = "parquet", _parquet_sample(path)
    elif path.exists():
        raise InputDataError(
            f"source {place!r} is a folder without _delta_log and without a .parquet file. "
            "Give the folder of a Delta table, a parquet file or folder, or a catalogue table's name."
        )
    elif _CATALOGUE_NAME.fullmatch(place) and not place.endswith((".delta", ".parquet")):
        kind, sample = "table", read_catalogue(place)
    else:
        raise InputDataError(
            f"source {place!r} does not exist. Give the folder of a Delta table, a parquet file or "
            "folder, or a catalogue table's name (such as shop.purchases)."
        )
    if sample.num_rows == 0:
        raise InputDataError(f"source {place!r} holds no row; there is nothing to guess from.")
    whole = sample.num_rows <= SAMPLE_ROWS
    return SourceTable(name=name, given=place, format=kind, sample=sample.slice(0, SAMPLE_ROWS), whole=whole)


def _named(given: str) -> tuple[str, str]:
    name, mark, place = given.partition("=")
    if mark and name.isidentifier() and not Path(given).exists():
        return slug(name), place
    stem = Path(given).name.removesuffix(".delta").removesuffix(".parquet")
    return slug(stem.split(".")[-1]), given


def slug(text: str) -> str:
    """A name that declarations accept: letters, digits, single underscores, a letter first."""
    plain = re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_").lower()
    plain = plain if plain[:1].isalpha() and not keyword.iskeyword(plain) else f"t_{plain}"
    return plain[:64].rstrip("_")


def _delta_sample(path: Path) -> pa.Table:
    from qanchor_plugin.extras import require

    deltalake = require("deltalake", purpose="reading a Delta table's schema")
    exceptions: Any = deltalake.exceptions
    try:
        table = deltalake.DeltaTable(str(path))
        builder = deltalake.QueryBuilder().register("given", table)
        rows = builder.execute(f"select * from given limit {SAMPLE_ROWS + 1}").read_all()
        return _plain(pa.table(rows))
    except (exceptions.DeltaError, OSError) as error:
        raise InputDataError(f"source {str(path)!r} cannot be read as a Delta table: {error}") from error


def _parquet_sample(path: Path) -> pa.Table:
    import pyarrow.dataset as ds

    try:
        return _plain(ds.dataset(path, format="parquet").head(SAMPLE_ROWS + 1))
    except (pa.ArrowInvalid, OSError) as error:
        raise InputDataError(f"source {str(path)!r} cannot be read as parquet: {error}") from error


def _plain(table: pa.Table) -> pa.Table:
    """The table with view types (as DataFusion hands them out) as ordinary strings and bytes."""
    fields = []
    for field in table.schema:
        kind = field.type
        if pa.types.is_string_view(kind) or pa.types.is_large_string(kind):
            kind = pa.string()
        elif pa.types.is_binary_view(kind) or pa.types.is_large_binary(kind):
            kind = pa.binary()
        fields.append(pa.field(field.name, kind))
    return table.cast(pa.schema(fields))


def span(table: SourceTable, column: str) -> tuple[datetime, datetime]:
    """The oldest and newest instant of a time column over the whole table (the sample, for a catalogue's)."""
    path = Path(table.given).expanduser()
    values: Any = table.sample[column]
    if not table.whole and table.format == "delta":
        import deltalake

        builder = deltalake.QueryBuilder().register("given", deltalake.DeltaTable(str(path)))
        rows = builder.execute(f'select min("{column}"), max("{column}") from given').read_all()
        values = pa.concat_arrays([pa.table(rows).column(0).chunk(0), pa.table(rows).column(1).chunk(0)])
    elif not table.whole and table.format == "parquet":
        import pyarrow.dataset as ds

        values = ds.dataset(path, format="parquet").to_table(columns=[column])[column]
    bounds = pc.min_max(values.cast(pa.timestamp("us", tz="UTC"))).as_py()
    return bounds["min"], bounds["max"]
