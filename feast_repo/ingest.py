"""The shipped files stand as Delta tables under data/raw; a table whose inputs did not change is left alone.

The digest of a table's inputs is its newest commit's user metadata, so the check needs no Spark.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import yaml
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError
from rich.progress import Progress

from feast_repo import raw_tables
from qanchor_plugin.declare import Settings
from qanchor_plugin.errors import InputDataError

DIGEST = "qanchor.inputs"


def settings_of(root: Path) -> Settings:
    """The settings in the feature repo's feature_store.yaml."""
    given = yaml.safe_load((root / "feature_store.yaml").read_text())
    return Settings.from_mapping(given.get("qanchor"), repo_path=root)


def input_digest(name: str, files: Path) -> str:
    """Identity of what a raw table is made of: its input files' bytes and the code that joins them."""
    hasher = hashlib.blake2b(Path(raw_tables.__file__).read_bytes(), digest_size=16)
    for one in raw_tables.INPUTS[name]:
        path = files / f"{one}.csv.gz"
        if not path.is_file():
            raise InputDataError(
                f"{path} is missing: the raw table {name!r} is made of it. Restore it (git checkout {path})."
            )
        hasher.update(hashlib.blake2b(path.read_bytes(), digest_size=16).digest())
    return hasher.hexdigest()


def standing_digest(table: Path) -> str | None:
    """The input digest of the table as it stands; None when there is no table of ours."""
    try:
        newest = DeltaTable(str(table)).history(1)[0]
    except TableNotFoundError:
        return None
    try:
        return json.loads(newest.get("userMetadata") or "{}").get(DIGEST)
    except json.JSONDecodeError:
        return None


def ingest(
    root: Path,
    *,
    files: Path | None = None,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> dict[str, bool]:
    """Every raw table agrees with its inputs; says which had to be written.

    Args:
        root: folder of feature_store.yaml; the tables go to ``data/raw`` below it.
        files: folder of the gzip CSV files (default: those shipped in feast_repo/data).
        settings: of the Spark session (default: feature_store.yaml's).
        progress: a bar of its own is drawn on it.
    """
    files = files or Path(__file__).parent / "data"
    target = root / "data" / "raw"
    wanted = {name: input_digest(name, files) for name in raw_tables.INPUTS}
    stale = [name for name in wanted if standing_digest(target / name) != wanted[name]]
    if stale:
        write = _writer(files, settings or settings_of(root))
        task = progress.add_task("raw tables", total=len(stale)) if progress else None
        for name in stale:
            write(name, target / name, wanted[name])
            if progress and task is not None:
                progress.advance(task)
    return {name: name in stale for name in wanted}


def _writer(files: Path, settings: Settings) -> Callable[[str, Path, str], None]:
    from spark_jobs.session import get_session  # a warm run never starts Java

    spark = get_session(settings, app_name="qanchor-ingest")

    def write(name: str, path: Path, digest: str) -> None:
        inputs = {
            one: spark.read.csv(str(files / f"{one}.csv.gz"), header=True, escape='"')
            for one in raw_tables.INPUTS[name]
        }
        frame = getattr(raw_tables, name)(inputs)
        (
            frame.coalesce(1)
            .write.format("delta")
            .mode("overwrite")
            .option("overwriteSchema", "true")
            .option("userMetadata", json.dumps({DIGEST: digest}))
            .save(str(path))
        )

    return write


def main() -> None:
    """`python -m feast_repo.ingest`: the tables stand under data/raw."""
    root = Path(__file__).resolve().parent.parent
    with Progress() as progress:
        written = ingest(root, progress=progress)
    for name, is_new in written.items():
        print(f"{name}: {'written' if is_new else 'unchanged'}")


if __name__ == "__main__":
    main()
