"""The plots of the report, as SVG that takes its colours and its font from the page around it.

The only place that imports matplotlib. A plot is drawn in stand-in colours, which then become the page's CSS variables.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from training.evaluation.metrics import Interval
from training.evaluation.report import OURS, Group, Protocol

_INK, _QUIET, _GRID, _OURS, _OTHER = "#010101", "#020202", "#030303", "#040404", "#050505"
_VARIABLES = {_INK: "--ink", _QUIET: "--quiet", _GRID: "--grid", _OURS: "--ours", _OTHER: "--other"}
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "kithkin",
    "font.size": 9.0,
    "text.color": _INK,
    "axes.labelcolor": _QUIET,
    "axes.edgecolor": _GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.7,
    "xtick.color": _GRID,
    "ytick.color": _GRID,
    "xtick.labelcolor": _QUIET,
    "ytick.labelcolor": _INK,
    "ytick.major.size": 0,
}
_WIDTH = 7.6
_ROW = 0.27


def scorers_plot(protocol: Protocol) -> str:
    """The headline metric of every scorer with its interval, the best on top."""
    metric = protocol.headline
    names = sorted(protocol.scores, key=lambda name: protocol.scores[name][metric].mean)
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(_ROW * len(names) + 0.65)
        for row, name in enumerate(names):
            _interval(axes, protocol.scores[name][metric], row, _color(name), across=True)
        axes.set_yticks(range(len(names)), names)
        _mark_ours(axes, names)
        axes.set_ylim(-0.6, len(names) - 0.4)
        axes.set_xlim(left=0)
        axes.set_xlabel(metric)
        axes.grid(axis="x")
        return _svg(figure)


def ordered_groups_plot(protocol: Protocol, groups: Sequence[Group], label: str) -> str:
    """Ours and the best baseline over groups that have an order, with the number of queries in each."""
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(2.9)
        places = np.arange(len(groups))
        for shift, name in _compared(protocol):
            each = [group.scores[name] for group in groups]
            axes.plot(places + shift, [value.mean for value in each], color=_color(name), linewidth=1.4, label=name)
            for place, value in zip(places + shift, each, strict=True):
                _interval(axes, value, place, _color(name), across=False)
        axes.set_xticks(places, [f"{group.name}\n{group.queries:,}" for group in groups])
        axes.set_xlabel(f"{label}, and queries")
        axes.set_ylabel(protocol.headline)
        axes.tick_params(axis="y", labelcolor=_QUIET)
        axes.grid(axis="y")
        _legend(axes)
        return _svg(figure)


def named_groups_plot(protocol: Protocol, groups: Sequence[Group]) -> str:
    """Ours and the best baseline for groups that have a name each, the first on top."""
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(_ROW * 1.25 * len(groups) + 0.95)
        rows = np.arange(len(groups))[::-1]
        for shift, name in _compared(protocol):
            for row, group in zip(rows, groups, strict=True):
                _interval(axes, group.scores[name], row - 1.5 * shift, _color(name), across=True)
            axes.plot([], [], "o", markersize=5, color=_color(name), label=name)
        axes.set_yticks(rows, [f"{group.name}  ({group.queries:,})" for group in groups])
        axes.set_ylim(-0.6, len(groups) - 0.4)
        axes.set_xlabel(protocol.headline)
        axes.grid(axis="x")
        _legend(axes)
        return _svg(figure)


def curve_plot(steps: Sequence[float], values: Sequence[float], label: str) -> str:
    """A figure of the training by step: every value faint, and the mean of those around it."""
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(2.3)
        known = np.isfinite(values)
        x, y = np.asarray(steps)[known], np.asarray(values)[known]
        width = max(len(y) // 20, 1)
        if width > 1:
            axes.plot(x, y, color=_OURS, linewidth=0.8, alpha=0.3)
            # Each mean is of the values there are, so that the ends are not drawn towards zero.
            kernel = np.ones(width)
            smooth = np.convolve(y, kernel, "same") / np.convolve(np.ones(len(y)), kernel, "same")
            axes.plot(x, smooth, color=_OURS, linewidth=1.6)
        else:
            axes.plot(x, y, "o-", color=_OURS, linewidth=1.4, markersize=3)
        axes.set_xlabel("step")
        axes.set_ylabel(label)
        axes.tick_params(axis="y", labelcolor=_QUIET)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="y")
        return _svg(figure)


def _figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    return figure, figure.add_subplot()


def _compared(protocol: Protocol) -> list[tuple[float, str]]:
    names = [name for name in (protocol.best_baseline, OURS) if name in protocol.scores]
    return list(zip((-0.1, 0.1) if len(names) == 2 else (0.0,), names, strict=True))


def _color(name: str) -> str:
    return _OURS if name == OURS else _OTHER


def _interval(axes: Axes, value: Interval, place: float, color: str, *, across: bool) -> None:
    """A dot with its interval as a bar: across (value along x) or upright."""
    if np.isnan(value.mean):
        return
    if not np.isnan(value.low):
        ends, at = (value.low, value.high), (place, place)
        axes.plot(*((ends, at) if across else (at, ends)), color=color, linewidth=2.2, alpha=0.55)
    axes.plot(*((value.mean, place) if across else (place, value.mean)), "o", color=color, markersize=5)


def _mark_ours(axes: Axes, names: Sequence[str]) -> None:
    for label, name in zip(axes.get_yticklabels(), names, strict=True):
        if name == OURS:
            label.set_color(_OURS)
            label.set_fontweight("bold")


def _legend(axes: Axes) -> None:
    axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0)


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    # Several plots stand in one page: no ids that nothing refers to, no size but that of the page.
    text = re.sub(r'<g id="[^"]*">', "<g>", text)
    text = re.sub(r'(<svg\b[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg\b[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r"font-family: [^;\"]*(?:'[^']*'[^;\"]*)*", "font-family: inherit", text)
    text = re.sub(r"font: ([^;\"]*?)(\d+(?:\.\d+)?px) [^;\"]*", r"font: \1\2 var(--font)", text)
    for stand_in, variable in _VARIABLES.items():
        text = text.replace(stand_in, f"var({variable})")
    return text.strip()


def figures_of(lines: Sequence[dict[str, Any]]) -> list[str]:
    """The figures of a training log that say how well it goes: the loss first, then what was validated."""
    names = dict.fromkeys(name for line in lines for name in line)
    rest = [
        name
        for name in names
        if name not in ("space", "step", "loss", "learning_rate", "seconds") and not name.endswith("_per_second")
    ]
    return (["loss"] if "loss" in names else []) + rest
