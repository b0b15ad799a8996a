"""Drawing: from arrays to SVG whose colours are the page's CSS variables, so that light and dark are one drawing.

No text of the data is drawn: matplotlib would read mathematics in it, and a label can't be cut or wrapped.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from aspire_guard.selection.arrays import Numbers
from aspire_guard.selection.metrics import ReliabilityBin

# Matplotlib takes colours only, so it draws in these, and the page's variables take their places.
_INK, _FAINT, _SURFACE = "#010a01", "#010a02", "#010a03"
_MAIN, _WRONG, _THIRD, _FOURTH = "#010a04", "#010a05", "#010a06", "#010a07"
_VARIABLES = {
    _INK: "var(--ink)",
    _FAINT: "var(--faint)",
    _SURFACE: "var(--surface)",
    _MAIN: "var(--main)",
    _WRONG: "var(--wrong)",
    _THIRD: "var(--third)",
    _FOURTH: "var(--fourth)",
}
# Dashes too: the lines differ in print and to the colour-blind.
_STYLES: tuple[dict[str, Any], ...] = (
    {"color": _MAIN, "linestyle": "-", "linewidth": 2.0, "zorder": 4},
    {"color": _THIRD, "linestyle": "--", "linewidth": 1.5, "zorder": 3},
    {"color": _FOURTH, "linestyle": ":", "linewidth": 1.8, "zorder": 3},
)
_LOOK: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 11,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _FAINT,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": _FAINT,
    "grid.alpha": 0.35,
    "grid.linewidth": 0.6,
    "xtick.color": _FAINT,
    "ytick.color": _FAINT,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "figure.facecolor": "none",
    "legend.frameon": False,
    "legend.fontsize": 10,
}
_WIDTH, _HEIGHT = (
    5.6,
    3.7,
)  # inches of 72 units: about as wide as a phone, so that its text is not shrunk much
_BARS = 40


class Line(NamedTuple):
    """A named line through points `(k,)`."""

    label: str
    x: Numbers
    y: Numbers


class Mark(NamedTuple):
    """A guaranteed cut: its coverage, the risk there, and the risk promised."""

    coverage: float
    risk: float
    promised: float


def risk_coverage(
    risk: Line, low: Numbers, high: Numbers, marks: Sequence[Mark], test: Line | None
) -> str:
    """Selective risk over coverage with its band `(k,)`, the guaranteed cuts, and the same of the test answers."""
    with _chart("risk") as (figure, svg):
        axes = figure.add_subplot()
        axes.fill_between(
            risk.x, low, high, color=_MAIN, alpha=0.16, linewidth=0, label="95 % band of each cut"
        )
        _draw(axes, (risk,))
        if test is not None:
            axes.plot(test.x, test.y, label=test.label, color=_WRONG, linestyle="--", linewidth=1.5)
        for mark in marks:
            axes.plot(
                [mark.coverage] * 2, [mark.risk, mark.promised], color=_INK, linewidth=1.2, zorder=5
            )
            axes.plot(mark.coverage, mark.risk, "o", color=_INK, markersize=5, zorder=6)
            axes.plot(
                mark.coverage,
                mark.promised,
                "_",
                color=_INK,
                markersize=10,
                markeredgewidth=1.6,
                zorder=6,
            )
            place: dict[str, Any] = {
                "xytext": (0, 5),
                "textcoords": "offset points",
                "ha": "center",
                "va": "bottom",
                "fontsize": 10,
            }
            axes.annotate(
                f"≤ {100 * mark.promised:.4g} %", (mark.coverage, mark.promised), zorder=7, **place
            )
        steady = risk.y[risk.x >= 0.05]
        highest = max([float(steady.max(initial=0.05)), *(mark.promised for mark in marks)])
        axes.set_ylim(0, min(1.3 * highest, 1.02))
        _shares(axes, "share of questions answered (coverage)", "wrong among the answered (risk)")
        axes.legend(loc="upper left")
    return svg[0]


def accuracy_coverage(lines: Sequence[Line]) -> str:
    """Selective accuracy over coverage of the selection score and the baselines."""
    with _chart("accuracy") as (figure, svg):
        axes = figure.add_subplot()
        _draw(axes, lines)
        steady = np.concatenate([line.y[line.x >= 0.05] for line in lines])
        axes.set_ylim(max(float(steady.min(initial=0.9)) - 0.1, 0), 1.02)
        _shares(
            axes, "share of questions answered (coverage)", "right among the answered (accuracy)"
        )
        axes.legend(loc="lower left")
    return svg[0]


def reliability(diagrams: Sequence[tuple[str, Sequence[ReliabilityBin], Numbers]]) -> str:
    """Accuracy over mean confidence of each bin, and below it how many answers have which confidence `(n,)`."""
    with _chart("reliability", 1.2) as (figure, svg):
        grid = figure.add_gridspec(2, 1, height_ratios=(3, 1))
        axes, counts = figure.add_subplot(grid[0]), figure.add_subplot(grid[1])
        axes.plot([0, 1], [0, 1], color=_FAINT, linewidth=1, zorder=2)
        looks = (
            ((_THIRD, "s", "--"), (_MAIN, "o", "-")) if len(diagrams) > 1 else ((_MAIN, "o", "-"),)
        )
        for (label, bins, confidence), (color, marker, dashes) in zip(diagrams, looks, strict=True):
            points = [row.confidence for row in bins], [row.accuracy for row in bins]
            axes.plot(
                *points,
                color=color,
                marker=marker,
                linestyle=dashes,
                linewidth=1,
                markersize=5,
                label=label,
            )
            counts.hist(
                confidence,
                bins=np.linspace(0, 1, 21).tolist(),
                histtype="step",
                color=color,
                linestyle=dashes,
            )
        _shares(axes, "", "right answers")
        axes.set_ylim(0, 1.02)
        axes.tick_params(labelbottom=False)
        axes.legend(loc="upper left")
        _shares(counts, "confidence", "answers")
        _whole(counts)
    return svg[0]


def histogram(right: Numbers, wrong: Numbers, cuts: Sequence[float]) -> str:
    """How many right and wrong answers have which selection score, with the thresholds on it."""
    with _chart("scores") as (figure, svg):
        axes = figure.add_subplot()
        everything = np.concatenate([right, wrong])
        low, high = np.quantile(everything, 0.005), everything.max()
        if not low < high:
            low, high = low - 0.5, high + 0.5
        edges = np.linspace(low, high, _BARS + 1).tolist()
        for scores, color, label, dashes in (
            (right, _MAIN, "right", "-"),
            (wrong, _WRONG, "wrong", "--"),
        ):
            style: dict[str, Any] = {"bins": edges, "color": color, "linewidth": 1.5}
            axes.hist(
                np.clip(scores, low, high),
                histtype="stepfilled",
                alpha=0.18,
                **style | {"linewidth": 0},
            )
            axes.hist(
                np.clip(scores, low, high), histtype="step", linestyle=dashes, label=label, **style
            )
        for cut in cuts:
            if low < cut < high:
                axes.axvline(cut, color=_INK, linewidth=1, linestyle=":")
        axes.set_xlabel("selection score (nats)")
        axes.set_ylabel("answers")
        axes.margins(x=0.01)
        _whole(axes)
        axes.legend(loc="upper left")
    return svg[0]


def cost(lines: Sequence[Line]) -> str:
    """The mean cost of a question over coverage, the least of each line marked."""
    with _chart("cost") as (figure, svg):
        axes = figure.add_subplot()
        _draw(axes, lines)
        for line, style in zip(lines, _STYLES, strict=False):
            least = int(np.argmin(line.y))
            axes.plot(
                line.x[least],
                line.y[least],
                "o",
                color=style["color"],
                markersize=6,
                zorder=5,
                clip_on=False,
            )
        _shares(axes, "share of questions answered (coverage)", "mean cost of a question")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set_ylim(0, 1.15 * max(float(line.y.max()) for line in lines) or 1)
        axes.legend(loc="upper left")
    return svg[0]


def _draw(axes: Axes, lines: Sequence[Line]) -> None:
    for line, style in zip(lines, _STYLES, strict=False):
        axes.plot(line.x, line.y, label=line.label, **style)


def _shares(axes: Axes, across: str, up: str) -> None:
    axes.set_xlim(0, 1.01)
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))


def _whole(axes: Axes) -> None:
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.yaxis.set_major_formatter("{x:,.0f}")


@contextmanager
def _chart(name: str, taller: float = 1.0) -> Iterator[tuple[Figure, list[str]]]:
    """A figure to draw on; its SVG is in the list afterwards."""
    svg: list[str] = []
    with rc_context(_LOOK | {"svg.hashsalt": name}):
        figure = Figure(figsize=(_WIDTH, taller * _HEIGHT), layout="constrained")
        FigureCanvasSVG(figure)
        yield figure, svg
        stream = io.StringIO()
        nothing: dict[str, Any] = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(stream, format="svg", metadata=nothing)
    svg.append(_inline(name, stream.getvalue()))


def _inline(name: str, document: str) -> str:
    """The element of an SVG document: ids of its own, the page's colours, and the size left to the page."""
    element = document[document.index("<svg") :]
    element = re.sub(r'(\bid="|url\(#|href="#)', rf"\1{name}-", element)
    element = re.sub(
        r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', r'<svg \1 aria-hidden="true">', element, count=1
    )
    element = element.replace("xlink:href", "href")
    for color, variable in _VARIABLES.items():
        element = element.replace(color, variable)
    return element
