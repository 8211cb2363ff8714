"""Runs the demo; what it cannot do ends it with one message and the log's place."""

import logging
import os
import sys
import warnings
from pathlib import Path

from feast_repo.demo.stage import Stage
from qanchor_plugin.errors import QAnchorError

ROOT = Path(__file__).resolve().parents[2]
NUM_STEPS = 8


def main() -> int:
    """0 when every step went well, 1 after one message."""
    os.chdir(ROOT)
    warnings.simplefilter("ignore")
    log = ROOT / "logs" / "demo.log"
    with Stage(log, num_steps=NUM_STEPS) as stage:
        logging.basicConfig(level=logging.INFO)
        with stage.step("Load feast, pyspark and torch"):
            from feast_repo.demo import story
        try:
            story.tell(stage, ROOT)
        except QAnchorError as error:
            stage.console.print(
                f"\nThe demo stopped. {error}\nMore stands in {log.relative_to(ROOT)}.", style="red"
            )
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
