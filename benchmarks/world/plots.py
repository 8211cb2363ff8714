"""Pictures of the world's figures: the scaling curves, and what each ablation costs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.results import Row
from qanchor_plugin.extras import require

BLUE, GREY, RED = "#2a6f97", "#9aa5b1", "#c8553d"


def scaling_picture(
    path: Path, curves: Sequence[tuple[str, Sequence[float], Sequence[Row]]], level: Row | None
) -> None:
    """One panel a curve: mean AUC with its standard error; ``level`` is the untrained engine's.

    Args:
        curves: label of the horizontal axis, places, and rows in that order.
    """
    figure, panels = _panels(len(curves), (4.2 * len(curves), 3.2))
    for panel, (label, places, rows) in zip(panels, curves, strict=True):
        values, errors = [row.value or 0.0 for row in rows], [row.standard_error or 0.0 for row in rows]
        panel.errorbar(places, values, yerr=errors, marker="o", color=BLUE, capsize=3, label="trained")
        if level is not None:
            panel.axhline(level.value, color=GREY, linestyle="--", label="untrained")
        panel.set_xlabel(label)
        panel.set_ylabel(f"mean AUC of ten tasks, n = {rows[0].n:,}")
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(frameon=False)
    _written(figure, path)


def ablation_picture(path: Path, rows: Sequence[Row]) -> None:
    """One bar a row: a paired difference with its standard error; the paper's in grey where it has one."""
    figure, (panel,) = _panels(1, (7.0, 0.5 * len(rows) + 1.0))
    places = range(len(rows))
    values, errors = [row.value or 0.0 for row in rows], [row.standard_error or 0.0 for row in rows]
    colours = [RED if value < 0 else BLUE for value in values]
    panel.barh(list(places), values, xerr=errors, color=colours, height=0.5)
    told = [
        (place, row.baseline) for place, row in zip(places, rows, strict=True) if row.baseline is not None
    ]
    panel.scatter(
        [value for _, value in told], [place for place, _ in told], color=GREY, zorder=3, label="paper"
    )
    panel.set_yticks(list(places), [row.row for row in rows])
    panel.invert_yaxis()
    panel.axvline(0, color="black", linewidth=0.8)
    panel.set_xlabel("difference of mean AUC to the base, with standard error")
    panel.spines[["top", "right"]].set_visible(False)
    if told:
        panel.legend(frameon=False)
    _written(figure, path)


def _panels(count: int, size: tuple[float, float]) -> tuple[Any, Any]:
    matplotlib = require("matplotlib", purpose="Pictures of the synthetic world")
    matplotlib.use("Agg")
    pyplot = require("matplotlib.pyplot", purpose="Pictures of the synthetic world")
    figure, panels = pyplot.subplots(1, count, figsize=size, squeeze=False)
    return figure, panels[0]


def _written(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(path, dpi=150, metadata={"Software": None})
    require("matplotlib.pyplot", purpose="Pictures of the synthetic world").close(figure)
