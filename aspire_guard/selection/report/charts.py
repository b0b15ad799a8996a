"""The charts of the report: from arrays to SVG elements.

Their colours are CSS variables of the page, so one drawing serves light and dark mode. They contain no text from
the data, because matplotlib would interpret it as mathematics, and a label in a chart can't be shortened or wrapped.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from aspire_guard.selection.arrays import Numbers
from aspire_guard.selection.metrics import ReliabilityBin

# Matplotlib accepts only colours. It draws in these, and the page's variables replace them in the SVG.
_INK = "#010a01"
_FAINT = "#010a02"
_SURFACE = "#010a03"
_MAIN = "#010a04"
_WRONG = "#010a05"
_THIRD = "#010a06"
_FOURTH = "#010a07"
_VARIABLES = {
    _INK: "var(--ink)",
    _FAINT: "var(--faint)",
    _SURFACE: "var(--surface)",
    _MAIN: "var(--main)",
    _WRONG: "var(--wrong)",
    _THIRD: "var(--third)",
    _FOURTH: "var(--fourth)",
}
# The lines also differ in their dashes, for print and for colour-blind readers.
_LINE_STYLES: tuple[dict[str, Any], ...] = (
    {"color": _MAIN, "linestyle": "-", "linewidth": 2.0, "zorder": 4},
    {"color": _THIRD, "linestyle": "--", "linewidth": 1.5, "zorder": 3},
    {"color": _FOURTH, "linestyle": ":", "linewidth": 1.8, "zorder": 3},
)
_BEFORE_STYLE: dict[str, Any] = {"color": _THIRD, "marker": "s", "linestyle": "--"}
_AFTER_STYLE: dict[str, Any] = {"color": _MAIN, "marker": "o", "linestyle": "-"}
_LABEL_PLACE: dict[str, Any] = {
    "xytext": (0, 5),
    "textcoords": "offset points",
    "ha": "center",
    "va": "bottom",
    "fontsize": 10,
}
_RC_PARAMETERS: dict[Any, Any] = {
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
# Inches of 72 units: about as wide as a phone, so that the text is hardly shrunk there.
_WIDTH = 5.6
_HEIGHT = 3.7
_COVERAGE_LABEL = "share of questions answered (coverage)"
_HISTOGRAM_BARS = 40
_CONFIDENCE_BARS = 20
# Below this coverage a curve rests on few answers and jumps, so the scale ignores it.
_STEADY_COVERAGE = 0.05


class Line(NamedTuple):
    """A named line through points `(k,)`."""

    label: str
    x: Numbers
    y: Numbers


class GuaranteedPoint(NamedTuple):
    """A threshold with a guarantee: its coverage, its risk, and the promised risk."""

    coverage: float
    risk: float
    promised: float


class ReliabilityDiagram(NamedTuple):
    """Bins of accuracy and mean confidence, and the confidences `(n,)` that they summarise."""

    label: str
    bins: Sequence[ReliabilityBin]
    confidences: Numbers


def draw_risk_coverage(
    risk: Line,
    low: Numbers,
    high: Numbers,
    guaranteed: Sequence[GuaranteedPoint],
    test: Line | None,
) -> str:
    """Draw selective risk over coverage.

    Args:
        risk: the curve of the calibration answers, `(k,)`.
        low: the lower end of its confidence band, `(k,)`.
        high: the upper end of its confidence band, `(k,)`.
        guaranteed: the thresholds with a guarantee.
        test: the curve of the test answers, or None if there are no test answers.
    """
    with rc_context(_RC_PARAMETERS):
        figure = _make_figure()
        axes = figure.add_subplot()
        band_label = "95 % band of each threshold"
        axes.fill_between(risk.x, low, high, color=_MAIN, alpha=0.16, linewidth=0, label=band_label)
        _draw_lines(axes, [risk])
        if test is not None:
            axes.plot(test.x, test.y, label=test.label, color=_WRONG, linestyle="--", linewidth=1.5)
        for point in guaranteed:
            _draw_guaranteed_point(axes, point)
        steady_risk = risk.y[risk.x >= _STEADY_COVERAGE]
        highest_risk = float(steady_risk.max(initial=0.05))
        highest_promise = max((point.promised for point in guaranteed), default=0.0)
        axes.set_ylim(0, min(1.3 * max(highest_risk, highest_promise), 1.02))
        _format_share_axes(axes, _COVERAGE_LABEL, "wrong among the answered (risk)")
        axes.legend(loc="upper left")
        return _render(figure, "risk")


def draw_accuracy_coverage(lines: Sequence[Line]) -> str:
    """Draw selective accuracy over coverage, a line for each score."""
    with rc_context(_RC_PARAMETERS):
        figure = _make_figure()
        axes = figure.add_subplot()
        _draw_lines(axes, lines)
        steady_accuracy = np.concatenate([line.y[line.x >= _STEADY_COVERAGE] for line in lines])
        axes.set_ylim(max(float(steady_accuracy.min(initial=0.9)) - 0.1, 0), 1.02)
        _format_share_axes(axes, _COVERAGE_LABEL, "right among the answered (accuracy)")
        axes.legend(loc="lower left")
        return _render(figure, "accuracy")


def draw_reliability(diagrams: Sequence[ReliabilityDiagram]) -> str:
    """Draw the accuracy over the mean confidence of each bin, above a histogram of the confidences."""
    styles = [_BEFORE_STYLE, _AFTER_STYLE] if len(diagrams) > 1 else [_AFTER_STYLE]
    with rc_context(_RC_PARAMETERS):
        figure = _make_figure(height=1.2 * _HEIGHT)
        grid = figure.add_gridspec(2, 1, height_ratios=(3, 1))
        accuracy_axes = figure.add_subplot(grid[0])
        count_axes = figure.add_subplot(grid[1])
        accuracy_axes.plot([0, 1], [0, 1], color=_FAINT, linewidth=1, zorder=2)
        bar_edges = np.linspace(0, 1, _CONFIDENCE_BARS + 1).tolist()
        for diagram, style in zip(diagrams, styles, strict=True):
            confidences = [each.confidence for each in diagram.bins]
            accuracies = [each.accuracy for each in diagram.bins]
            accuracy_axes.plot(
                confidences, accuracies, linewidth=1, markersize=5, label=diagram.label, **style
            )
            count_axes.hist(
                diagram.confidences,
                bins=bar_edges,
                histtype="step",
                color=style["color"],
                linestyle=style["linestyle"],
            )
        _format_share_axes(accuracy_axes, "", "right answers")
        accuracy_axes.set_ylim(0, 1.02)
        accuracy_axes.tick_params(labelbottom=False)
        accuracy_axes.legend(loc="upper left")
        _format_share_axes(count_axes, "confidence", "answers")
        _format_count_axis(count_axes)
        return _render(figure, "reliability")


def draw_score_histogram(right: Numbers, wrong: Numbers, thresholds: Sequence[float]) -> str:
    """Draw histograms of the selection scores of right `(r,)` and wrong `(w,)` answers, with the thresholds."""
    scores = np.concatenate([right, wrong])
    low, high = np.quantile(scores, 0.005), scores.max()
    if not low < high:
        low, high = low - 0.5, high + 0.5
    with rc_context(_RC_PARAMETERS):
        figure = _make_figure()
        axes = figure.add_subplot()
        bar_edges = np.linspace(low, high, _HISTOGRAM_BARS + 1).tolist()
        for values, label, color, dashes in (
            (right, "right", _MAIN, "-"),
            (wrong, "wrong", _WRONG, "--"),
        ):
            clipped = np.clip(values, low, high)
            style: dict[str, Any] = {"bins": bar_edges, "color": color}
            axes.hist(clipped, histtype="stepfilled", alpha=0.18, linewidth=0, **style)
            axes.hist(
                clipped, histtype="step", linestyle=dashes, linewidth=1.5, label=label, **style
            )
        for threshold in thresholds:
            if low < threshold < high:
                axes.axvline(threshold, color=_INK, linewidth=1, linestyle=":")
        axes.set_xlabel("selection score (nats)")
        axes.set_ylabel("answers")
        axes.margins(x=0.01)
        _format_count_axis(axes)
        axes.legend(loc="upper left")
        return _render(figure, "scores")


def draw_cost(lines: Sequence[Line]) -> str:
    """Draw the mean cost of a question over coverage, with the minimum of each line marked."""
    with rc_context(_RC_PARAMETERS):
        figure = _make_figure()
        axes = figure.add_subplot()
        _draw_lines(axes, lines)
        for line, style in zip(lines, _LINE_STYLES, strict=False):
            cheapest = int(np.argmin(line.y))
            axes.plot(
                line.x[cheapest],
                line.y[cheapest],
                "o",
                color=style["color"],
                markersize=6,
                zorder=5,
                clip_on=False,
            )
        _format_share_axes(axes, _COVERAGE_LABEL, "mean cost of a question")
        axes.yaxis.set_major_formatter("{x:g}")
        highest_cost = max(float(line.y.max()) for line in lines)
        axes.set_ylim(0, 1.15 * highest_cost or 1)
        axes.legend(loc="upper left")
        return _render(figure, "cost")


def _draw_lines(axes: Axes, lines: Sequence[Line]) -> None:
    for line, style in zip(lines, _LINE_STYLES, strict=False):
        axes.plot(line.x, line.y, label=line.label, **style)


def _draw_guaranteed_point(axes: Axes, point: GuaranteedPoint) -> None:
    """Draw a dot at the risk, and a line up to the promised risk, which a label names."""
    x, risk, promised = point
    axes.plot([x, x], [risk, promised], color=_INK, linewidth=1.2, zorder=5)
    axes.plot(x, risk, "o", color=_INK, markersize=5, zorder=6)
    axes.plot(x, promised, "_", color=_INK, markersize=10, markeredgewidth=1.6, zorder=6)
    axes.annotate(f"≤ {100 * promised:.4g} %", (x, promised), zorder=7, **_LABEL_PLACE)


def _format_share_axes(axes: Axes, x_label: str, y_label: str) -> None:
    """Label both axes, and show both in percent."""
    axes.set_xlim(0, 1.01)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))


def _format_count_axis(axes: Axes) -> None:
    """Give the y axis whole numbers."""
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.yaxis.set_major_formatter("{x:,.0f}")


def _make_figure(height: float = _HEIGHT) -> Figure:
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    FigureCanvasSVG(figure)
    return figure


def _render(figure: Figure, name: str) -> str:
    """Return a figure as an SVG element, whose ids start with the chart's name."""
    stream = io.StringIO()
    no_metadata: dict[str, Any] = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    # The salt makes the ids of equal figures equal.
    with rc_context({"svg.hashsalt": name}):
        figure.savefig(stream, format="svg", metadata=no_metadata)
    document = stream.getvalue()
    element = document[document.index("<svg") :]
    element = re.sub(r'(\bid="|url\(#|href="#)', rf"\1{name}-", element)
    # The page decides on the size, so the element keeps only its proportions.
    opening_tag = r'<svg [^>]*?(viewBox="[^"]*")[^>]*>'
    element = re.sub(opening_tag, r'<svg \1 aria-hidden="true">', element, count=1)
    element = element.replace("xlink:href", "href")
    for color, variable in _VARIABLES.items():
        element = element.replace(color, variable)
    return element
