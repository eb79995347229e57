"""Small plots as markdown with the picture inside, for asset metadata and reports. matplotlib is imported when one is drawn."""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.shown import Markdown

INK, GRID = "#1f2937", "#e5e7eb"
COLOURS = ("#3157c8", "#d97706", "#0f9d76", "#b4235a", "#6b5bd2", "#64748b")


def bar_chart(labels: Sequence[str], values: Sequence[float], title: str, ylabel: str = "count") -> Markdown:
    """One bar a label."""
    return grouped_bars(labels, {"": values}, title, ylabel)


def grouped_bars(labels: Sequence[str], series: Mapping[str, Sequence[float]], title: str, ylabel: str) -> Markdown:
    """Bars side by side: one group a label, one colour a series."""

    def draw(axes: Any) -> None:
        width = 0.8 / max(len(series), 1)
        places = np.arange(len(labels))
        for index, (name, values) in enumerate(series.items()):
            axes.bar(
                places + (index - (len(series) - 1) / 2) * width,
                values,
                width * 0.92,
                label=name,
                color=COLOURS[index % 6],
            )
        axes.set_xticks(
            places,
            [_label(label) for label in labels],
            rotation=30 if max(map(len, labels), default=0) > 9 else 0,
            ha="right" if max(map(len, labels), default=0) > 9 else "center",
        )
        axes.set_ylabel(ylabel)

    return _markdown(draw, title, legend=len(series) > 1)


def histogram(values: npt.ArrayLike | Mapping[str, npt.ArrayLike], title: str, xlabel: str, bins: int = 20) -> Markdown:
    """Distribution of numbers; of several series, one on top of the other."""
    series = (values or {"": []}) if isinstance(values, Mapping) else {"": values}

    def draw(axes: Any) -> None:
        stacked = [np.asarray(part, dtype=float) for part in series.values()]
        colours = [COLOURS[n % 6] for n in range(len(stacked))]
        axes.hist(stacked, bins=bins, stacked=True, color=colours, label=list(series), rwidth=0.94)
        axes.set_xlabel(xlabel)
        axes.set_ylabel("count")

    return _markdown(draw, title, legend=len(series) > 1)


def line_chart(
    x: Sequence[float], series: Mapping[str, Sequence[float]], title: str, xlabel: str, ylabel: str
) -> Markdown:
    """One line a series; NaN leaves a gap that is bridged."""

    def draw(axes: Any) -> None:
        for index, (name, values) in enumerate(series.items()):
            points = np.asarray(values, dtype=float)
            seen = np.isfinite(points)
            axes.plot(
                np.asarray(x, dtype=float)[seen],
                points[seen],
                marker="o",
                markersize=3.5,
                label=name,
                color=COLOURS[index % 6],
            )
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)

    return _markdown(draw, title, legend=len(series) > 1)


def bubbles(
    places: npt.ArrayLike, sizes: npt.ArrayLike, labels: Sequence[str], title: str, named: int = 12
) -> Markdown:
    """A circle at each place (shape (n, 2)), its area by size; the largest are named."""

    def draw(axes: Any) -> None:
        at, area = np.asarray(places, dtype=float), np.asarray(sizes, dtype=float)
        axes.scatter(at[:, 0], at[:, 1], s=400 * area / max(area.max(), 1), alpha=0.45, color=COLOURS[0], linewidths=0)
        for n in np.argsort(-area, kind="stable")[:named]:
            axes.annotate(_label(labels[n]), at[n], fontsize=6, color=INK, ha="center", va="center")
        axes.set_xticks([])
        axes.set_yticks([])

    return _markdown(draw, title)


def interval_chart(
    labels: Sequence[str],
    values: Sequence[float],
    intervals: Sequence[tuple[float, float]],
    marks: Mapping[str, Sequence[float]],
    title: str,
    xlabel: str,
) -> Markdown:
    """A point with its interval a label, the first one on top; marks: what each is compared with, as a tick of its own colour."""

    def draw(axes: Any) -> None:
        places = np.arange(len(labels))
        axes.hlines(places, *zip(*intervals, strict=True), color=COLOURS[0], linewidth=6, alpha=0.35)
        axes.plot(values, places, "o", color=COLOURS[0], markersize=5)
        for index, (name, at) in enumerate(marks.items(), start=1):
            axes.plot(at, places, "|", color=COLOURS[index % 6], markersize=14, markeredgewidth=2, label=name)
        axes.set_yticks(places, [_label(label) for label in labels])
        axes.set_ylim(len(labels) - 0.4, -0.6)
        axes.set_xlabel(xlabel)

    return _markdown(draw, title, legend=bool(marks))


def _label(text: str) -> str:
    # matplotlib reads $...$ as mathematics: text of strangers is shown as it is
    return text[:28].replace("$", r"\$")


def _markdown(draw: Callable[[Any], None], title: str, legend: bool = False) -> Markdown:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.2), dpi=110, layout="constrained")
    axes = figure.subplots()
    axes.set_axisbelow(True)
    axes.grid(axis="y", color=GRID)
    axes.spines[["top", "right"]].set_visible(False)
    draw(axes)
    axes.set_title(title, fontsize=10, color=INK, loc="left")
    axes.tick_params(labelsize=8)
    if legend:
        figure.legend(loc="outside lower center", ncols=5, fontsize=8, frameon=False)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": None})
    return Markdown(f"![{title}](data:image/png;base64,{base64.b64encode(picture.getvalue()).decode()})")
