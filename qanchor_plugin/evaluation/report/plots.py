"""Pictures of an evaluation as PNG files: labelled axes with units, one colour a class, small files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from qanchor_plugin.errors import InputDataError
from qanchor_plugin.evaluation.report.tables import Figure
from qanchor_plugin.extras import require

NEGATIVE, POSITIVE = "#9db4c0", "#c8553d"
SERIES = ("#2e5266", "#c8553d", "#588157", "#8e6c8a")
DPI = 80
NUM_COLOURS = 64
MAP_SEED = 0


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One scatter: ``vectors`` (n, d) of users, ``labels`` (n,) bool, and what it shows."""

    title: str
    vectors: npt.NDArray[np.floating]
    labels: npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A line: figures over ascending amounts."""

    name: str
    amounts: Sequence[float]
    figures: Sequence[Figure]


def embedding_maps(path: Path, panels: Sequence[Panel], *, method: str, positive: str) -> Path:
    """Scatters side by side: ``method`` is ``pca`` (its axes say the variance they hold) or ``tsne``.

    Each panel's map is its own: places are not comparable between panels, only how the classes lie.

    Raises:
        InputDataError: an unknown method, or no panel.
    """
    if method not in ("pca", "tsne") or not panels:
        raise InputDataError(
            f"{len(panels)} panels by method {method!r}; give one panel at least, and pca or tsne."
        )
    figure, axes = _canvas(len(panels), width=3.6 * len(panels) + 0.3, height=4.1)
    for axis, panel in zip(axes, panels, strict=True):
        places, names = _pca(panel.vectors) if method == "pca" else _tsne(panel.vectors)
        for chosen, colour, size in ((~panel.labels, NEGATIVE, 5), (panel.labels, POSITIVE, 9)):
            name = positive if chosen is panel.labels else f"not {positive}"
            label = f"{name} ({int(chosen.sum()):,})"
            axis.scatter(*places[chosen].T, s=size, c=colour, label=label, linewidths=0, alpha=0.8)
        axis.set(title=panel.title, xlabel=names[0], ylabel=names[1])
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, fontsize=7, frameon=False)
    return _saved(figure, path)


def score_bars(path: Path, rows: Mapping[str, Figure], *, quantity: str, chosen: Sequence[str] = ()) -> Path:
    """One horizontal bar a row with its standard error; rows in ``chosen`` stand out."""
    if not rows:
        raise InputDataError("there is no row to draw; give one figure at least.")
    figure, (axis,) = _canvas(1, width=7.2, height=0.32 * len(rows) + 1.2)
    names, figures = list(rows), list(rows.values())
    places = np.arange(len(rows))[::-1]
    colours = [POSITIVE if name in chosen else SERIES[0] for name in names]
    values = np.array([one.value for one in figures])
    errors = np.array([one.standard_error for one in figures])
    axis.barh(places, values, xerr=errors, color=colours, height=0.65, error_kw={"lw": 1, "capsize": 2})
    axis.set_yticks(places, names, fontsize=8)
    low, high = (values - errors).min(), (values + errors).max()
    margin = max(0.15 * (high - low), 0.005)
    axis.set_xlim(low - 2 * margin, high + 3 * margin)
    for place, one in zip(places, figures, strict=True):
        axis.text(
            one.value + one.standard_error + margin / 4, place, f"{one.value:.3f}", va="center", fontsize=7
        )
    axis.set_xlabel(f"{quantity}, bars: one standard error, n = {figures[0].num_users:,}", fontsize=8)
    axis.grid(axis="x", alpha=0.3)
    return _saved(figure, path)


def scaling_curves(path: Path, curves: Sequence[Curve], *, amount: str, quantity: str) -> Path:
    """Lines with standard errors over an amount (its unit in ``amount``).

    Raises:
        InputDataError: no curve, or one whose amounts and figures differ in number.
    """
    if not curves or any(len(one.amounts) != len(one.figures) for one in curves):
        raise InputDataError(
            f"curves {[(one.name, len(one.amounts), len(one.figures)) for one in curves]} cannot be drawn; "
            "give one at least, with a figure for each amount."
        )
    figure, (axis,) = _canvas(1, width=5.6, height=3.6)
    for curve, colour in zip(curves, SERIES * len(curves), strict=False):
        values = [one.value for one in curve.figures]
        errors = [one.standard_error for one in curve.figures]
        axis.errorbar(
            curve.amounts, values, yerr=errors, color=colour, marker="o", ms=4, capsize=2, label=curve.name
        )
    num_users = curves[0].figures[0].num_users
    axis.set(xlabel=amount, ylabel=quantity, title=f"bars: one standard error, n = {num_users:,}")
    axis.title.set_fontsize(8)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    return _saved(figure, path)


def attention_shift(path: Path, shares: Mapping[str, Mapping[str, float]], *, title: str) -> Path:
    """Grouped bars: the share of attention (percent) that each source gets, one colour a model.

    Args:
        shares: by model (before, after), by source; 0 to 1.
    """
    if not shares:
        raise InputDataError("there is no model to draw; give the shares of one at least.")
    sources = list(dict.fromkeys(name for one in shares.values() for name in one))
    figure, (axis,) = _canvas(1, width=6.4, height=3.6)
    width = 0.8 / len(shares)
    for place, (model, share) in enumerate(shares.items()):
        heights = [100 * share.get(name, 0.0) for name in sources]
        at = np.arange(len(sources)) - 0.4 + width * (place + 0.5)
        bars = axis.bar(at, heights, width=width, color=SERIES[place % len(SERIES)], label=model)
        axis.bar_label(bars, fmt="%.1f", fontsize=6)
    axis.set_xticks(np.arange(len(sources)), sources, fontsize=8, rotation=20, ha="right")
    axis.set(ylabel="share of attention at <USER_EMB>, %", title=title)
    axis.title.set_fontsize(9)
    axis.legend(fontsize=8)
    return _saved(figure, path)


def _canvas(num: int, *, width: float, height: float) -> tuple[Any, list[Any]]:
    figures = require("matplotlib.figure", purpose="Drawing an evaluation")
    figure = figures.Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    axes = figure.subplots(1, num, squeeze=False)[0]
    for axis in axes:
        axis.tick_params(labelsize=7)
        axis.title.set_fontsize(9)
        axis.xaxis.label.set_fontsize(8)
        axis.yaxis.label.set_fontsize(8)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, list(axes)


def _saved(figure: Any, path: Path) -> Path:
    """The picture stands in ``path`` with few colours: a third of the bytes, and nothing a reader misses."""
    agg = require("matplotlib.backends.backend_agg", purpose="Drawing an evaluation")
    image = require("PIL.Image", purpose="Drawing an evaluation")
    agg.FigureCanvasAgg(figure)
    whole = BytesIO()
    figure.savefig(whole, format="png")
    path.parent.mkdir(parents=True, exist_ok=True)
    whole.seek(0)
    image.open(whole).convert("RGB").quantize(NUM_COLOURS).save(path, optimize=True)
    return path


def _pca(vectors: npt.NDArray[np.floating]) -> tuple[npt.NDArray[np.floating], tuple[str, str]]:
    decomposition = require("sklearn.decomposition", purpose="Drawing embeddings")
    model = decomposition.PCA(2, random_state=MAP_SEED).fit(vectors)
    first, second = (
        f"component {n} ({share:.0%} of variance)"
        for n, share in enumerate(model.explained_variance_ratio_, 1)
    )
    return model.transform(vectors), (first, second)


def _tsne(vectors: npt.NDArray[np.floating]) -> tuple[npt.NDArray[np.floating], tuple[str, str]]:
    manifold = require("sklearn.manifold", purpose="Drawing embeddings")
    perplexity = min(30.0, (len(vectors) - 1) / 3)
    model = manifold.TSNE(2, perplexity=perplexity, init="pca", random_state=MAP_SEED, metric="cosine")
    return model.fit_transform(np.asarray(vectors, np.float64)), ("t-SNE 1 (no unit)", "t-SNE 2 (no unit)")
