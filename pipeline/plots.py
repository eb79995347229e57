"""Small plots as markdown with the picture inside, for asset metadata and reports. matplotlib is imported when one is drawn.

Series differ in more than their colour: by hatches, markers, dashes. The picture's alternative text has the series and the range of their
values.
"""

import base64
import io
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.shown import Markdown

INK, GRID = "#1f2937", "#e5e7eb"
COLOURS = ("#3157c8", "#d97706", "#0f9d76", "#b4235a", "#6b5bd2", "#64748b")
HATCHES = ("", "////", "....", "xxxx", "----", "\\\\\\\\", "++++")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", ":", "-.")
MOST_LABELS, LINE = 24, 90
"""Labels that fit under an axis, and characters."""
_CANDIDATES = [(0.0, 0.0)] + [
    (reach * np.cos(angle), reach * np.sin(angle))
    for reach in (9, 16, 24, 34, 46)
    for angle in np.pi * np.array([0.5, 1.5, 0.25, 0.75, 1.25, 1.75, 0.0, 1.0])
]
"""Where a name may stand, in points from its place: on it, else above, below, aslant, beside, ever farther."""


def bar_chart(labels: Sequence[str], values: Sequence[float], title: str, ylabel: str = "rows") -> Markdown:
    """One bar a label."""
    return grouped_bars(labels, {"": values}, title, ylabel)


def grouped_bars(labels: Sequence[str], series: Mapping[str, Sequence[float]], title: str, ylabel: str) -> Markdown:
    """Bars side by side: one group a label, one colour and hatch a series."""

    def draw(axes: Any) -> None:
        width = 0.8 / max(len(series), 1)
        places = np.arange(len(labels))
        for index, (name, values) in enumerate(series.items()):
            axes.bar(
                places + (index - (len(series) - 1) / 2) * width,
                values,
                width * 0.92,
                label=_whole(name),
                color=COLOURS[index % len(COLOURS)],
                hatch=HATCHES[index % len(HATCHES)],
                edgecolor="white",
                linewidth=0,
            )
        every = ceil(len(labels) / MOST_LABELS) or 1
        shown = [_label(label) for label in labels[::every]]
        long = len(shown) * (max(map(len, shown), default=0) + 2) > LINE
        axes.set_xticks(
            places[::every],
            shown,
            rotation=30 if long else 0,
            ha="right" if long else "center",
        )
        axes.set_ylabel(ylabel)

    return _markdown(draw, title, f"{ylabel}: {_ranges(series)}", legend=len(series) > 1)


def histogram(
    values: npt.ArrayLike | Mapping[str, npt.ArrayLike], title: str, xlabel: str, bins: int = 20, ylabel: str = "rows"
) -> Markdown:
    """Distribution of numbers; of several series, one on top of the other. ylabel: what is counted."""
    given = (values or {"": []}) if isinstance(values, Mapping) else {"": values}
    series = {name: np.asarray(part, dtype=float) for name, part in given.items()}

    def draw(axes: Any) -> None:
        colours = [COLOURS[n % len(COLOURS)] for n in range(len(series))]
        names = [_whole(name) for name in series]
        _, _, drawn = axes.hist(list(series.values()), bins=bins, stacked=True, color=colours, label=names, rwidth=0.94)
        for n, bars in enumerate(drawn if len(series) > 1 else [drawn]):
            for bar in bars:
                bar.set(hatch=HATCHES[n % len(HATCHES)], edgecolor="white", linewidth=0)
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)

    counted = ", ".join(f"{name} {len(part)}".strip() for name, part in series.items())
    return _markdown(draw, title, f"{xlabel} {_ranges(series)}; {ylabel}: {counted}", legend=len(series) > 1)


def line_chart(
    x: Sequence[float], series: Mapping[str, Sequence[float]], title: str, xlabel: str, ylabel: str
) -> Markdown:
    """One line a series, with a marker and dashes of its own; NaN leaves a gap that is bridged."""

    def draw(axes: Any) -> None:
        for index, (name, values) in enumerate(series.items()):
            points = np.asarray(values, dtype=float)
            seen = np.isfinite(points)
            axes.plot(
                np.asarray(x, dtype=float)[seen],
                points[seen],
                DASHES[index % len(DASHES)],
                marker=MARKERS[index % len(MARKERS)],
                markersize=3.5,
                label=_whole(name),
                color=COLOURS[index % len(COLOURS)],
            )
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)

    return _markdown(draw, title, f"{ylabel} by {xlabel}: {_ranges(series)}", legend=len(series) > 1)


def bubbles(
    places: npt.ArrayLike, sizes: npt.ArrayLike, labels: Sequence[str], title: str, named: int = 12, unit: str = ""
) -> Markdown:
    """A circle at each place (shape (n, 2)), its area by size (of unit); the largest are named, each where its name meets no other's."""
    at, area = np.asarray(places, dtype=float), np.asarray(sizes, dtype=float)
    largest = np.argsort(-area, kind="stable")[:named]

    def draw(axes: Any) -> None:
        axes.scatter(at[:, 0], at[:, 1], s=400 * area / max(area.max(), 1), alpha=0.45, color=COLOURS[0], linewidths=0)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.margins(0.12)
        axes.set_xlabel(f"A circle's area is its size; the largest: {area.max():,.0f} {unit}".rstrip(), fontsize=8)
        _name(axes, [(at[n], labels[n]) for n in largest])

    sized = "; ".join(f"{labels[n]} {area[n]:,.0f}" for n in largest)
    return _markdown(draw, title, f"{len(area)} circles, the largest: {sized}")


def interval_chart(
    labels: Sequence[str],
    values: Sequence[float],
    intervals: Sequence[tuple[float, float]],
    marks: Mapping[str, Sequence[float]],
    title: str,
    xlabel: str,
) -> Markdown:
    """A point with its interval a label, the first one on top; marks: what each is compared with, by a colour and sign of its own."""

    def draw(axes: Any) -> None:
        places = np.arange(len(labels))
        axes.grid(axis="y", visible=False)
        axes.grid(axis="x", color=GRID)
        axes.hlines(places, *zip(*intervals, strict=True), color=COLOURS[0], linewidth=6, alpha=0.35)
        axes.plot(values, places, "o", color=COLOURS[0], markersize=5, label="value, with its interval")
        for index, (name, at) in enumerate(marks.items(), start=1):
            sign = ("|", "x", "^", "d")[(index - 1) % 4]
            look = {"markersize": 14 if sign == "|" else 6, "markeredgewidth": 2 if sign in "|x" else 0}
            axes.plot(at, places, sign, color=COLOURS[index % len(COLOURS)], label=_whole(name), **look)
        axes.set_yticks(places, [_label(label) for label in labels])
        axes.set_ylim(len(labels) - 0.4, -0.6)
        axes.set_xlabel(xlabel)

    points = zip(labels, values, intervals, strict=True)
    says = "; ".join(f"{name} {value:.3g} ({low:.3g} to {high:.3g})" for name, value, (low, high) in points)
    return _markdown(draw, title, f"{xlabel}: {says}; {_ranges(marks)}", legend=bool(marks))


def _ranges(series: Mapping[str, npt.ArrayLike]) -> str:
    """Each series with the range of its values."""
    said = []
    for name, values in series.items():
        points = np.asarray(values, dtype=float)
        points = points[np.isfinite(points)]
        said.append(f"{name} {points.min():.3g} to {points.max():.3g}" if len(points) else f"{name} no values")
    return "; ".join(said).strip()


def _label(text: str) -> str:
    return _whole(text if len(text) <= 28 else text[:27] + "…")


def _whole(text: str) -> str:
    # matplotlib reads $...$ as mathematics, and leaves a name that begins with _ out of a legend: text is shown as it is
    text = textwrap.fill(text, 70).replace("$", r"\$")
    return f"\u200b{text}" if text.startswith("_") else text


def _name(axes: Any, names: Iterable[tuple[npt.NDArray[np.float64], str]]) -> None:
    """Write names at their places, the earlier one first: the nearest spot that no name has taken; none where all are taken."""
    from matplotlib.text import Text

    renderer = axes.figure.canvas.get_renderer()
    axes.figure.draw_without_rendering()  # now the axes stand where they will
    axes.figure.set_layout_engine("none")
    taken: list[Any] = []
    for place, text in names:
        for offset in _CANDIDATES:
            written = axes.annotate(
                _label(text),
                place,
                offset,
                textcoords="offset points",
                fontsize=7,
                color=INK,
                ha="center",
                va="center",
                arrowprops={"arrowstyle": "-", "color": INK, "lw": 0.4, "shrinkA": 0, "shrinkB": 0}
                if max(map(abs, offset)) > 9
                else None,
            )
            written.update_positions(renderer)
            box = Text.get_window_extent(written, renderer).padded(1)  # of the words, without the line to their place
            inside = axes.bbox.contains(box.x0, box.y0) and axes.bbox.contains(box.x1, box.y1)
            if inside and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
            written.remove()


def _add_legend(figure: Any) -> None:
    """A legend below, in as many columns as fit into the figure's width; the figure grows by its rows."""
    names = len(figure.axes[0].get_legend_handles_labels()[1])
    for columns in range(min(names, 5), 0, -1):
        legend = figure.legend(loc="outside lower center", ncols=columns, fontsize=8, frameon=False)
        extent = legend.get_window_extent(figure.canvas.get_renderer())
        if extent.width <= figure.bbox.width or columns == 1:
            figure.set_figheight(figure.get_figheight() + max(extent.height / figure.dpi - 0.3, 0))
            return
        legend.remove()


def _markdown(draw: Callable[[Any], None], title: str, says: str, legend: bool = False) -> Markdown:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.2), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set_axisbelow(True)
    axes.grid(axis="y", color=GRID)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(textwrap.fill(title, LINE).replace("$", r"\$"), fontsize=10, color=INK, loc="left")
    axes.tick_params(labelsize=8)
    draw(axes)
    if legend:
        _add_legend(figure)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": None})
    # strangers' text is neither markdown nor HTML here
    words = re.sub(r"[^\w\s.,;:%()/+-]", " ", f"{title}. {says}")
    encoded = base64.b64encode(picture.getvalue()).decode()
    return Markdown(f"![{' '.join(words.split())}](data:image/png;base64,{encoded})")
