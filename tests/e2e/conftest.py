"""The example store on a sample of its households, in a folder of its own."""

import shutil
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from feast import FeatureStore
from feast.repo_config import load_repo_config
from feast.repo_operations import apply_total

from feast_repo.ingest import ingest
from qanchor_plugin.declare import Declarations, Settings
from qanchor_plugin.feast_ext.declarations import declarations_from_registry, settings_from_config

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

REPO = Path(__file__).resolve().parents[2]
START = datetime(2017, 1, 1, tzinfo=UTC)
END = datetime(2018, 1, 1, tzinfo=UTC)
NUM_REDEEMERS, NUM_OTHERS = 10, 10


@dataclass(frozen=True, kw_only=True)
class Example:
    """The store, materialised to END.

    Attributes:
        root: its folder; the tests' process stands in it.
        households: the sampled households, ascending.
        files: the sampled files by name.
    """

    root: Path
    store: FeatureStore
    settings: Settings
    declarations: Declarations
    households: list[int]
    files: dict[str, pd.DataFrame]


def sampled(shipped: Path, target: Path) -> tuple[list[int], dict[str, pd.DataFrame]]:
    """Files of the same layout with a sample of households: half of them redeemed a coupon."""
    files = {path.name.removesuffix(".csv.gz"): pd.read_csv(path) for path in shipped.glob("*.csv.gz")}
    redeemed = sorted(set(files["coupon_redemptions"].household_id))
    others = sorted(set(files["transactions"].household_id) - set(redeemed))
    chosen = sorted([*redeemed[:NUM_REDEEMERS], *others[:NUM_OTHERS]])
    of_household = ("transactions", "campaigns", "coupon_redemptions", "demographics")
    for name in of_household:
        files[name] = files[name][files[name].household_id.isin(chosen)]
    files["coupons"] = files["coupons"][
        files["coupons"].coupon_upc.isin(files["coupon_redemptions"].coupon_upc)
    ]
    bought = pd.concat([files["transactions"].product_id, files["coupons"].product_id])
    files["products"] = files["products"][files["products"].product_id.isin(bought)]
    target.mkdir()
    for name, frame in files.items():
        frame.to_csv(target / f"{name}.csv.gz", index=False)
    return chosen, files


@contextmanager
def spark_stands_in(spark: "SparkSession", folder: Path) -> Iterator[None]:
    """Within the block the JVM reads relative paths from ``folder``, as one started there would."""
    jvm, conf = spark.sparkContext._jvm, spark.sparkContext._jsc.hadoopConfiguration()
    files = jvm.org.apache.hadoop.fs.FileSystem.getLocal(conf)
    before = files.getWorkingDirectory()
    files.setWorkingDirectory(jvm.org.apache.hadoop.fs.Path(str(folder)))
    yield
    files.setWorkingDirectory(before)


@pytest.fixture(scope="package")
def example(spark: "SparkSession", tmp_path_factory: pytest.TempPathFactory) -> Iterator[Example]:
    """Ingested, applied and materialised, every component the real one."""
    root = tmp_path_factory.mktemp("example")
    households, files = sampled(REPO / "feast_repo" / "data", root / "files")
    for name in ("feature_store.yaml", ".feastignore"):
        shutil.copy(REPO / name, root / name)
    shutil.copytree(REPO / "feast_repo", root / "feast_repo", ignore=shutil.ignore_patterns("data", "demo"))
    with chdir(root), spark_stands_in(spark, root):
        config = load_repo_config(root, root / "feature_store.yaml")
        ingest(root, files=root / "files", settings=settings_from_config(config))
        apply_total(config, root, skip_source_validation=False)
        store = FeatureStore(repo_path=str(root))
        store.materialize(START, END)
        store = FeatureStore(repo_path=str(root))
        yield Example(
            root=root,
            store=store,
            settings=settings_from_config(store.config),
            declarations=declarations_from_registry(store.registry, store.project),
            households=households,
            files=files,
        )
