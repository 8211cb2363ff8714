"""The world's lake: sequences, texts and vectors by the ordinary Spark jobs."""

from benchmarks.world.declarations import Place
from qanchor_plugin.declare import Declarations
from spark_jobs.encode_events import encode, export_snapshot
from spark_jobs.engines import engine_ref
from spark_jobs.progress import Progress, Silent
from spark_jobs.refresh import refresh
from spark_jobs.session import get_session
from spark_jobs.tables import Lake

ENGINE = "demo"
"""Its sentence encoder makes the vectors; training leaves the encoder as it is, so they serve every run."""


def make_lake(place: Place, *, progress: Progress | None = None) -> dict[str, int]:
    """The lake holds every user's sequences and every text's vector; rows by kind, new ones only.

    No scenario is declared: prefixes and embeddings are made by whoever asks.
    """
    watching = progress or Silent()
    settings = place.settings()
    spark = get_session(settings, app_name="qanchor world")
    declared = Declarations.of("world", [place.profile], [])
    report = refresh(spark, settings, declared, end=place.world.cutoff, progress=watching)
    lake, engine = Lake(spark, settings), engine_ref(ENGINE, settings.device)
    num_vectors = encode(lake, settings, engine, watching)
    export_snapshot(lake, engine, force=bool(num_vectors))
    sequences = sum(one["rows"] for one in report.counts["sequences"].values())
    return {"events": sequences, "texts": report.counts["texts"]["new"], "vectors": num_vectors}
