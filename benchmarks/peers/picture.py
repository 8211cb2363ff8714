"""The figures as small bars: one panel a dtype and case, one bar a peer with its figure, the engine dark."""

from pathlib import Path
from typing import Any

Key = tuple[str, int, str, int, str]
CASES = {
    "full": "single full encode",
    "batch": "batch of users, {queries} queries each",
    "more": "{queries} more queries on a cached user",
    "batch-alike": "batch of users, {queries} queries each that begin alike",
    "more-alike": "{queries} more queries that begin alike on a cached user",
}
COLUMNS = 3


def unit_of(case: str) -> str:
    """What a case's figures are in."""
    return "embeddings/s" if case.startswith("batch") else "ms"


def draw(figures: dict[Key, float], path: Path) -> None:
    """``path`` holds the plot.

    Args:
        figures: of one prefix; see :func:`unit_of`.
        path: an svg.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    (prefix,) = {key[1] for key in figures}
    panels = sorted({(key[0], key[2], key[3]) for key in figures})
    num_rows = -(-len(panels) // COLUMNS)
    figure, axes = pyplot.subplots(num_rows, COLUMNS, figsize=(12, 2.2 * num_rows), squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, panel in zip(axes.flat, panels, strict=False):
        _panel(axis, {key[4]: figures[key] for key in figures if (key[0], key[2], key[3]) == panel}, panel)
    figure.suptitle(f"Qwen2.5-0.5B shape, random weights, prefix of {prefix} tokens, queries of 20")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _panel(axis: Any, bars: dict[str, float], panel: tuple[str, str, int]) -> None:
    dtype, case, queries = panel
    axis.set_axis_on()
    colours = ["#1f3a5f" if name == "qanchor" else "#b8c4d2" for name in bars]
    drawn = axis.barh(list(bars), list(bars.values()), color=colours)
    unit = unit_of(case)
    axis.bar_label(drawn, fmt="{:,.0f}" if unit == "ms" else "{:.2f}", fontsize=7, padding=2)
    axis.margins(x=0.2)
    axis.invert_yaxis()
    better = "less" if unit == "ms" else "more"
    axis.set_title(f"{CASES[case].format(queries=queries)}\n{dtype}, {unit}, {better} is better", fontsize=7)
    axis.tick_params(labelsize=7)
    axis.locator_params(axis="x", nbins=4)
