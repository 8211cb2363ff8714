"""A run's figures on disk: metrics.jsonl, tensorboard, and a picture of the loss."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qanchor_plugin.extras import require

METRICS, CURVE, BOARD = "metrics.jsonl", "loss.png", "tensorboard"


class TrainLog:
    """Writes figures as they come.

    Args:
        folder: of the run.
        after: steps that stay; lines of later ones, from before a resume, are dropped.
    """

    def __init__(self, folder: Path, *, after: int) -> None:
        path = folder / METRICS
        kept = [one for one in read_metrics(folder) if one["step"] <= after] if after else []
        path.write_text("".join(json.dumps(one) + "\n" for one in kept), encoding="utf-8")
        self._stream = path.open("a", encoding="utf-8")
        board = require("torch.utils.tensorboard", purpose="Logging a training run")
        self._board = board.SummaryWriter(str(folder / BOARD), purge_step=after + 1 if after else None)

    def step(self, step: int, figures: Mapping[str, float]) -> None:
        """The figures of a step are on disk."""
        self._write({"step": step, **figures})
        for name, value in figures.items():
            self._board.add_scalar(f"train/{name}", value, step)

    def held_out(self, step: int, figures: Mapping[str, float]) -> None:
        """The held-out figures after ``step`` are on disk."""
        self._write({"step": step, "held_out": dict(figures)})
        for name, value in figures.items():
            self._board.add_scalar(f"held_out/{name}", value, step)
        self._board.flush()

    def close(self) -> None:
        """Files are whole."""
        self._stream.close()
        self._board.close()

    def _write(self, line: Mapping[str, Any]) -> None:
        self._stream.write(json.dumps(line) + "\n")
        self._stream.flush()


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of ``metrics.jsonl`` that are whole; none where there is no file."""
    path = folder / METRICS
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(one) for one in lines[:-1]]  # the last is empty, or what a kill cut off


def losses_of(folder: Path) -> tuple[list[tuple[int, float]], list[tuple[int, float]]]:
    """(step, loss) of the logged steps, and of the looks at the held-out users."""
    lines = read_metrics(folder)
    trained = [(one["step"], one["loss"]) for one in lines if "loss" in one]
    return trained, [(one["step"], one["held_out"]["loss"]) for one in lines if "held_out" in one]


def draw_losses(folder: Path) -> None:
    """``loss.png`` shows the training loss and the held-out loss by step."""
    require("matplotlib", purpose="Drawing the loss curve")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    trained, held_out = losses_of(folder)
    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for points, style, label in ((trained, "-", "training"), (held_out, "o-", "held-out users")):
        if points:
            steps, losses = zip(*points, strict=True)
            axes.plot(steps, losses, style, label=label, markersize=4, linewidth=1)
    axes.set(xlabel="step", ylabel="loss")
    if trained or held_out:
        axes.legend()
    figure.savefig(folder / CURVE, dpi=120)
