"""``make evaluate``: every figure and picture that README and docs show, from the data and the engines.

What was done is remembered under build/, so a run that is stopped goes on where it was.
"""

import argparse
import os
import sys
import time
import warnings
from pathlib import Path

from feast_repo.demo.stage import Stage
from qanchor_plugin.errors import QAnchorError

ROOT = Path(__file__).resolve().parents[2]
CUTS = ("selection", "final")


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """The command line's options."""
    parser = argparse.ArgumentParser(prog="python -m feast_repo.evaluation", description=__doc__)
    parser.add_argument(
        "--cut",
        choices=CUTS,
        default="final",
        help="final: 2017-09-01, README and docs; selection: 2017-06-01, what choices are made on",
    )
    parser.add_argument(
        "--tuned", action="store_true", help="soft prompts inside the folds, and their pictures: 25 minutes"
    )
    parser.add_argument(
        "--full", action="store_true", help="soft prompts, ablations, scaling and sweeps of prompts: hours"
    )
    parser.add_argument(
        "--seeds", type=int, nargs="*", default=[0, 1, 2], help="trainings; none trains nothing"
    )
    parser.add_argument("--no-texts", action="store_true", help="leave the MiniLM baselines out")
    parser.add_argument(
        "--no-coles", action="store_true", help="leave CoLES out, which wants an environment of its own"
    )
    parser.add_argument(
        "--households", type=int, help="only the first so many, to try things; keeps no results"
    )
    options = parser.parse_args(given)
    options.tuned = options.tuned or options.full
    return options


def main() -> int:
    """0 when every figure was made, 1 after one message."""
    options = arguments()
    os.chdir(ROOT)
    warnings.simplefilter("ignore")
    began = time.monotonic()
    with Stage(ROOT / "logs" / "evaluate.log", num_steps=3) as stage:

        def say(text: str) -> None:
            stage.console.print(f"[{time.monotonic() - began:6.0f} s] {text}", markup=False, soft_wrap=True)

        say("loading feast, pyspark and torch")
        from feast_repo.demo.story import apply_and_materialise, ingest_files
        from feast_repo.evaluation.story import evaluate

        try:
            ingest_files(stage, ROOT)
            apply_and_materialise(stage, ROOT)
            evaluate(ROOT, options, say)
        except QAnchorError as error:
            stage.console.print(
                f"\nThe evaluation stopped. {error}\nMore stands in logs/evaluate.log.", style="red"
            )
            return 1
        say("done")
    return 0


if __name__ == "__main__":
    sys.exit(main())
