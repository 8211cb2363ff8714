"""``python -m feast_repo.evaluation.ship``: trains the weights that the package ships and puts them in place.

The same plan as seed 0 of ``make evaluate``: where that has run, nothing is trained again.
"""

import os
import shutil
import sys
import warnings

from feast_repo.demo.stage import Stage
from feast_repo.evaluation.__main__ import ROOT
from qanchor_plugin.errors import QAnchorError


def main() -> int:
    """0 when the package holds the trained weights, 1 after one message."""
    os.chdir(ROOT)
    warnings.simplefilter("ignore")
    with Stage(ROOT / "logs" / "evaluate.log", num_steps=1) as stage:
        from feast_repo.evaluation.training import Trainings
        from qanchor_plugin.engine import QueryAnchorEngine
        from qanchor_plugin.engine.load import SHIPPED, WEIGHTS
        from qanchor_plugin.evaluation.tasks import FINAL_CUT

        trainings = Trainings(root=ROOT, cut=FINAL_CUT, say=lambda text: stage.console.print(text))
        try:
            folder = trainings.train_engine(0)
        except QAnchorError as error:
            stage.console.print(f"\nNothing was shipped. {error}", style="red")
            return 1
        target = SHIPPED["demo"]
        shutil.copyfile(folder / WEIGHTS, target)
        shipped = QueryAnchorEngine.load("demo", device="cpu")
        size = target.stat().st_size / 1e6
        stage.console.print(f"{target.relative_to(ROOT)}: {size:.1f} MB, engine {shipped.digest}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
