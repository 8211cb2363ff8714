"""The figures as small bars: one panel a dtype and case, one bar a peer, the engine dark."""

from pathlib import Path
from typing import Any

Key = tuple[str, int, str, int, str]


def unit_of(case: str) -> str:
    """What a case's figures are in."""
    return "embeddings/s" if case.startswith("batch") else "ms"


def draw(figures: dict[Key, float], path: Path) -> None:
    """``path`` holds the plot; the largest prefix measured is shown.

    Args:
        figures: see :func:`unit_of`.
        path: an svg.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    prefix = max(key[1] for key in figures)
    shown = [key for key in figures if key[1] == prefix]
    panels = sorted({(key[0], key[2], key[3]) for key in shown})
    dtypes = sorted({panel[0] for panel in panels})
    widest = max(sum(panel[0] == dtype for panel in panels) for dtype in dtypes)
    figure, axes = pyplot.subplots(
        len(dtypes), widest, figsize=(3 * widest, 2.6 * len(dtypes)), squeeze=False
    )
    for axis in axes.flat:
        axis.set_axis_off()
    for row, dtype in enumerate(dtypes):
        for axis, panel in zip(axes[row], [one for one in panels if one[0] == dtype], strict=False):
            _panel(axis, {key[4]: figures[key] for key in shown if (key[0], key[2], key[3]) == panel}, panel)
    figure.suptitle(f"Qwen2.5-0.5B shape, random weights, prefix of {prefix} tokens, queries of 20")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _panel(axis: Any, bars: dict[str, float], panel: tuple[str, str, int]) -> None:
    dtype, case, queries = panel
    axis.set_axis_on()
    colours = ["#1f3a5f" if name == "qanchor" else "#b8c4d2" for name in bars]
    axis.barh(list(bars), list(bars.values()), color=colours)
    axis.invert_yaxis()
    axis.set_title(f"{dtype}, {case} {queries} ({unit_of(case)})", fontsize=8)
    axis.tick_params(labelsize=6)
    axis.locator_params(axis="x", nbins=4)
