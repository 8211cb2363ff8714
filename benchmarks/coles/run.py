"""CoLES vectors of the Complete Journey before a cut, from an environment of its own.

    python -m benchmarks.coles.run feast_repo/data --cut 2017-09-01 --output build/coles_2017-09-01.npz

The environment is made once (pytorch-lifestream pins what this project does not want beside it).
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from qanchor_plugin.evaluation.journey import Journey, read_journey

PACKAGE = "pytorch-lifestream==0.7.0"
KEEP_MEMORY = {"MALLOC_TRIM_THRESHOLD_": "2000000000", "MALLOC_MMAP_THRESHOLD_": "2000000000"}
"""glibc gives every step's memory back and asks for it again, which is half of the time else."""
ENVIRONMENT = Path("build/coles_environment")
NUM_EPOCHS = 20
NUM_CATEGORIES = 200


def environment_python(folder: Path) -> Path:
    """The environment's interpreter; makes the environment where there is none."""
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", PACKAGE], check=True)
        (folder / "ready").write_text(PACKAGE)
    return python


def journey_events(journey: Journey, cut: pd.Timestamp) -> dict[str, np.ndarray]:
    """Purchases, campaigns and redemptions before ``cut`` as arrays, by household and time.

    Codes are by frequency (0 is padding, 1 is absent or rare), learnt before the cut only.
    """
    lines = journey.purchases
    purchases = lines[["household_id", "department", "brand", "sales_value"]].assign(
        at=lines["bought_at"], category=lines["product_category"], kind="purchase"
    )
    sent = journey.campaigns
    campaigns = sent[["household_id"]].assign(
        at=sent["started_at"], category=sent["campaign_type"], kind="campaign"
    )
    redeemed = journey.redemptions
    redemptions = redeemed[["household_id"]].assign(
        at=redeemed["redeemed_at"], category="coupon", kind="redemption"
    )
    events = pd.concat([purchases, campaigns, redemptions], ignore_index=True)
    events = events[events["at"] < cut].sort_values(["household_id", "at", "kind"], kind="stable")
    coded = {name: _codes(events[name]) for name in ("department", "brand", "category", "kind")}
    return {
        **coded,
        "household_id": events["household_id"].to_numpy(np.int64),
        "event_time": (events["at"] - pd.Timestamp("2017-01-01")).dt.days.to_numpy(np.int64),
        "weekday": (events["at"].dt.dayofweek + 1).to_numpy(np.int64),
        "amount": np.log1p(events["sales_value"].fillna(0)).to_numpy(np.float32),
    }


def _codes(values: pd.Series) -> np.ndarray:
    names = values.fillna("")
    common = names[names != ""].value_counts().index[:NUM_CATEGORIES]
    code = {name: place + 2 for place, name in enumerate(common)}
    return names.map(code).fillna(1).to_numpy(np.int64)


def make_vectors(
    journey: Journey,
    cut: pd.Timestamp,
    output: Path,
    *,
    environment: Path = ENVIRONMENT,
    epochs: int = NUM_EPOCHS,
    seed: int = 0,
) -> None:
    """``output`` holds household_id (N,) and vectors (N, 128) float32, trained before the cut, or is absent.

    Raises:
        OSError, subprocess.CalledProcessError: the environment or the training failed, and printed why.
    """
    python = environment_python(environment)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent) as folder:
        events, half = Path(folder) / "events.npz", Path(folder) / "vectors.npz"
        np.savez(events, allow_pickle=False, **journey_events(journey, cut))
        train = Path(__file__).with_name("train.py")
        options = ["--epochs", str(epochs), "--seed", str(seed)]
        command = [str(python), str(train), str(events), str(half), *options]
        subprocess.run(command, check=True, env={**os.environ, **KEEP_MEMORY})
        half.replace(output)


def main() -> None:
    """Write the vectors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--cut", required=True, type=pd.Timestamp)
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--environment", type=Path, default=ENVIRONMENT)
    parser.add_argument("--epochs", type=int, default=NUM_EPOCHS)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    make_vectors(
        read_journey(given.data),
        given.cut,
        given.output,
        environment=given.environment,
        epochs=given.epochs,
        seed=given.seed,
    )


if __name__ == "__main__":
    main()
