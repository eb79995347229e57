"""How far a benchmark's figures can be trusted: intervals, two models on the same units, length, calibration, what was trained on.

Intervals are 95 % percentile intervals of the bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13). Drawn
anew are the units of a benchmark within each subset, so that the weights of subsets hold in every draw. A set of n units drawn with
replacement says how often each is in it, and that is multinomial: so draws are matrices of counts, a part of them at a time.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.benchmarks.loading import Form
from pipeline.draws import seeds

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

DRAWS = 2000
CELLS = 1 << 22
"""Numbers that a matrix of draws holds at a time: 32 MiB."""


def generator_of(seed: int, *names: str) -> np.random.Generator:
    """A generator of its own for what is named: another benchmark or subset moves nobody else's draws."""
    return np.random.default_rng(seeds(["\0".join(names)], f"bootstrap {seed}")[0])


def interval(draws: Floats) -> tuple[float | None, float | None]:
    """95 % percentile interval of draws, those that are no number left out; None where none is."""
    finite = draws[np.isfinite(draws)]
    if not len(finite):
        return None, None
    low, high = np.quantile(finite, [0.025, 0.975])
    return float(low), float(high)


# ---------------------------------------------------------------------------------------------------------------------- weighted means


def drawn_means(values: Floats, generator: np.random.Generator, draws: int = DRAWS) -> Floats:
    """Means of bootstrap samples of some values: shape (draws,).

    How often each distinct value comes is multinomial with the shares observed; for values 0 and 1 that is the binomial distribution.
    """
    distinct, counts = np.unique(values, return_counts=True)
    n, part, means = len(values), max(1, CELLS // len(distinct)), []
    for start in range(0, draws, part):
        drawn = generator.multinomial(n, counts / n, size=min(part, draws - start))
        means.append(drawn @ distinct / n)
    return np.concatenate(means)


def by_subset(outcomes: pa.Table) -> dict[str, Floats]:
    """Values of the units of each subset, in the order in which subsets come. outcomes: of one benchmark and measure."""
    encoded = pc.dictionary_encode(outcomes["subset"].combine_chunks())
    code, values = np.asarray(encoded.indices), np.asarray(outcomes["value"], dtype=np.float64)
    return {name: values[code == n] for n, name in enumerate(encoded.dictionary.to_pylist())}


def drawn_subsets(values: Mapping[str, Floats], seed: int, *names: str) -> dict[str, Floats]:
    """Bootstrap means of each subset. names: of what the values are, so that its draws are its own."""
    return {subset: drawn_means(v, generator_of(seed, *names, subset)) for subset, v in values.items()}


def counts_of(values: Mapping[str, Floats]) -> dict[str, int]:
    """Units of each subset."""
    return {subset: len(v) for subset, v in values.items()}


@dataclass(frozen=True)
class Difference:
    """Of one model's overall figure less another's: its interval, and a two-sided p-value, which is None where units aren't the same.

    units: that count on both sides (paired), or the fewer of the two sides.
    """

    units: int
    paired: bool
    before: float
    after: float
    difference: float
    low: float
    high: float
    p_value: float | None


def difference(before: pa.Table, after: pa.Table, form: Form, seed: int) -> Difference:
    """Paired bootstrap of two models over the units that both have. Raises ValueError where they have none in common.

    before, after: schema OUTCOMES, of one benchmark and measure. Sections and overall are weighted means, so the difference of two
    figures is the figure of the units' differences, which are drawn anew within each subset. The p-value is twice the smaller share of draws
    on one side of zero, with one added to draws and to their number (Davison and Hinkley, Bootstrap Methods and their Application, 1997,
    chapter 4): never 0, and at most 1.
    """
    keys = ["subset", "unit"]
    both = before.select([*keys, "value"]).join(
        after.select([*keys, "value"]), keys, join_type="inner", right_suffix="_after"
    )
    if not len(both):
        raise ValueError("no unit was scored on both sides: there is nothing to compare")
    both = both.sort_by([(key, "ascending") for key in keys])
    first = by_subset(both)
    second = by_subset(both.drop_columns(["value"]).rename_columns({"value_after": "value"}))
    counts = counts_of(first)
    figures = [overall(form, {s: v.mean() for s, v in side.items()}, counts) for side in (first, second)]
    changes = {subset: second[subset] - first[subset] for subset in first}
    draws = overall(form, drawn_subsets(changes, seed, "difference"), counts)
    low, high = np.quantile(draws, [0.025, 0.975])
    return Difference(
        len(both), True, float(figures[0]), float(figures[1]), float(figures[1] - figures[0]), float(low), float(high), p_value(draws)
    )  # fmt: skip


def apart(before: pa.Table, after: pa.Table, form: Form, seed: int) -> Difference:
    """Difference of two figures that were measured on other units each, drawn independently of each other. Arguments as of `difference`."""
    sides = [by_subset(side) for side in (before, after)]
    figures = [overall(form, {s: v.mean() for s, v in side.items()}, counts_of(side)) for side in sides]
    draws = [
        overall(form, drawn_subsets(v, seed, side), counts_of(v))
        for v, side in zip(sides, ("before", "after"), strict=True)
    ]
    low, high = np.quantile(draws[1] - draws[0], [0.025, 0.975])
    return Difference(
        min(len(before), len(after)), False, float(figures[0]), float(figures[1]), float(figures[1] - figures[0]), float(low), float(high), None
    )  # fmt: skip


def p_value(draws: Floats) -> float:
    """Two-sided p-value of zero from bootstrap draws of a figure; see `difference`."""
    fewer = min(int((draws <= 0).sum()), int((draws >= 0).sum()))
    return min(1.0, 2 * (1 + fewer) / (1 + len(draws)))


def overall(form: Form, accuracies: Mapping[str, Any], counts: Mapping[str, int]) -> Any:
    """The one figure from subsets' accuracies: numbers, or arrays of draws."""
    return form.overall(form.sections(accuracies, counts), counts)


class Estimate(NamedTuple):
    """A figure with the ends of its 95 % interval; None where they are not finite."""

    value: float
    low: float | None
    high: float | None


def overall_with_interval(outcomes: pa.Table, form: Form, seed: int) -> Estimate:
    """The one figure with its interval. outcomes: of one benchmark and measure, with a unit at least."""
    values = by_subset(outcomes)
    counts = counts_of(values)
    low, high = interval(overall(form, drawn_subsets(values, seed, "overall"), counts))
    return Estimate(float(overall(form, {s: v.mean() for s, v in values.items()}, counts)), low, high)


# ------------------------------------------------------------------------------------------------------------------------- length bias


def drawn_units(strata: Ints, generator: np.random.Generator, width: int, draws: int = DRAWS) -> Iterator[Floats]:
    """How often each unit is drawn, within its stratum: parts of a matrix (draws, units), so that `width` numbers a draw fit in CELLS."""
    part = max(1, CELLS // max(width, len(strata), 1))
    members = [np.flatnonzero(strata == n) for n in np.unique(strata)]
    for start in range(0, draws, part):
        size = min(part, draws - start)
        drawn = np.zeros((size, len(strata)))
        for index in members:
            drawn[:, index] = generator.multinomial(len(index), np.full(len(index), 1 / len(index)), size=size)
        yield drawn


def ratio(over: Floats, under: Floats) -> Floats:
    """One divided by the other; NaN where what it is divided by is not above zero."""
    good = np.isfinite(under) & (under > 0)
    return np.where(good, over / np.where(good, under, 1), np.nan)


def number(value: float) -> float | None:
    """The value, or None where it is not finite."""
    return float(value) if math.isfinite(value) else None
