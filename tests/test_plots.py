"""Plots: legends that are whole, names that can be read, series that differ without colour, words for who sees no picture."""

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text

from pipeline import plots

ATTRIBUTES = ["helpfulness", "correctness", "coherence", "complexity", "verbosity"]
STAGES = ["all", "outliers removed", "tasks removed", "outliers removed, by chance", "tasks removed, by chance"]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that are drawn from here on."""
    figures: list[Any] = []
    save = Figure.savefig

    def kept(figure: Any, *arguments: Any, **more: Any) -> None:
        save(figure, *arguments, **more)
        figures.append(figure)

    monkeypatch.setattr(Figure, "savefig", kept)
    return figures


@pytest.mark.parametrize("names", [STAGES, ATTRIBUTES, [name * 3 for name in STAGES], ["_hidden", "$x^{", "a"]])
def test_a_legend_has_every_name_within_the_picture(drawn: list[Any], names: list[str]) -> None:
    plots.grouped_bars(ATTRIBUTES, {name: [0.1, 0.2, 0.3, 0.4, 0.5] for name in names}, "Kappa", "kappa")
    (figure,) = drawn
    (legend,) = figure.legends
    assert len(legend.get_texts()) == len(names)
    for text in legend.get_texts():
        box = text.get_window_extent()
        assert 0 <= box.x0 < box.x1 <= figure.bbox.width
        assert 0 <= box.y0 < box.y1 <= figure.bbox.height
    assert figure.axes[0].get_position().height * figure.get_figheight() > 1.8, "the axes keep their height (inches)"


def test_names_on_a_map_keep_apart(drawn: list[Any]) -> None:
    places = np.random.default_rng(1).normal(0, 1, (30, 2)) * np.linspace(0.02, 1, 30)[:, None]
    plots.bubbles(places, np.arange(30, 0, -1), [f"topic number {n}" for n in range(30)], "Topics", unit="prompts")
    (figure,) = drawn
    (axes,) = figure.axes
    names = [child for child in axes.get_children() if isinstance(child, Annotation)]
    assert len(names) >= 8
    boxes = [Text.get_window_extent(name) for name in names]
    assert not [pair for pair in combinations(boxes, 2) if pair[0].overlaps(pair[1])]
    assert all(axes.bbox.contains(box.x0, box.y0) and axes.bbox.contains(box.x1, box.y1) for box in boxes)
    assert axes.get_xlabel() == "A circle's area is its size; the largest: 30 prompts"


def test_series_differ_in_more_than_their_colour(drawn: list[Any]) -> None:
    series = {name: [1.0, 2.0] for name in ATTRIBUTES}
    plots.grouped_bars(["a", "b"], series, "Bars", "rows")
    plots.histogram(series, "Distribution", "tokens")
    plots.line_chart([0, 1], series, "Lines", "step", "loss")
    bars, distribution, lines = (figure.axes[0] for figure in drawn)
    for axes in (bars, distribution):
        assert len({container.patches[0].get_hatch() for container in axes.containers}) == 5
    assert len({(line.get_marker(), line.get_linestyle()) for line in lines.get_lines()}) == 5


def test_every_axis_says_what_it_counts(drawn: list[Any]) -> None:
    plots.histogram([1, 2, 2], "Turns", "user turns")
    plots.histogram([1, 2, 2], "Turns", "user turns", ylabel="prompts")
    assert [figure.axes[0].get_ylabel() for figure in drawn] == ["rows", "prompts"]


def test_the_words_for_a_picture_have_its_series_and_their_ranges_and_no_markup() -> None:
    def words(markdown: str) -> str:
        return markdown[2 : markdown.index("](data:image/png;base64,")]

    assert words(plots.grouped_bars(["0", "1"], {"a": [0.25, 0.5], "b": [1, np.nan]}, "Labels", "responses")) == (
        "Labels. responses: a 0.25 to 0.5; b 1 to 1"
    )
    assert words(plots.line_chart([0, 1], {"training": [2, 1]}, "Loss", "step", "loss")) == (
        "Loss. loss by step: training 1 to 2"
    )
    hostile = words(plots.bubbles([[0, 0]], [3], ["<img src=x>](javascript:a) `b` **c**"], "Topics"))
    assert not set(hostile) & set("<>[]`*!\\")


def test_a_plot_of_nothing_is_a_picture() -> None:
    for plot in (
        plots.grouped_bars([], {}, "None", "rows"),
        plots.histogram({}, "None", "tokens"),
        plots.line_chart([], {}, "None", "step", "loss"),
    ):
        assert plot.startswith("![None.")
