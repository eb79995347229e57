"""How far a benchmark's figures can be trusted: intervals, two models on the same units, length, calibration, what was trained on.

Intervals are 95 % percentile intervals of the bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13). Drawn
anew are clusters of units, of which a benchmark's items say which are not independent of each other (Davison and Hinkley, Bootstrap Methods
and their Application, 1997, section 3.8), within each subset, or within those that share clusters, so that the weights of subsets hold in
every draw. A set of n clusters drawn with replacement says how often each is in it, and that is multinomial: so draws are matrices of counts,
a part of them at a time.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.benchmarks.clusters import joined
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


@dataclass(frozen=True)
class Units:
    """Units of one benchmark and measure. values: by subset; clusters: the number of each unit's cluster, which may reach over subsets."""

    values: Mapping[str, Floats]
    clusters: Mapping[str, Ints]

    @classmethod
    def of(cls, outcomes: pa.Table) -> "Units":
        """From outcomes of one benchmark and measure; subsets in the order in which they come. A unit without a cluster is one by itself."""
        encoded = pc.dictionary_encode(outcomes["subset"].combine_chunks())
        code, values = np.asarray(encoded.indices), np.asarray(outcomes["value"], dtype=np.float64)
        cluster, names = cluster_numbers(outcomes["cluster"]), encoded.dictionary.to_pylist()
        return cls(*({name: of[code == n] for n, name in enumerate(names)} for of in (values, cluster)))

    @property
    def counts(self) -> dict[str, int]:
        """Units of each subset."""
        return {subset: len(v) for subset, v in self.values.items()}

    @property
    def means(self) -> dict[str, float]:
        """Mean value of each subset."""
        return {subset: float(v.mean()) for subset, v in self.values.items()}

    def independent(self, subsets: Iterable[str]) -> int:
        """How many clusters the units of some subsets are of."""
        return len(np.unique(np.concatenate([self.clusters[subset] for subset in subsets])))


def cluster_numbers(names: pa.ChunkedArray) -> Ints:
    """Numbers of clusters from 0, none left out, of their names; whoever has no name is one by itself."""
    named = pc.dictionary_encode(names.combine_chunks())
    number = np.array(pc.fill_null(named.indices, -1), dtype=np.int64)
    alone = number < 0
    number[alone] = len(named.dictionary) + np.arange(alone.sum())
    return number


def drawn_means(values: Floats, generator: np.random.Generator, draws: int = DRAWS) -> Floats:
    """Means of bootstrap samples of some independent values: shape (draws,)."""
    return _drawn_sums(values[:, None], generator, draws)[:, 0] / len(values)


def _drawn_sums(sums: Floats, generator: np.random.Generator, draws: int) -> Floats:
    """Column sums of bootstrap samples of some rows: shape (draws, columns).

    How often each distinct row comes is multinomial with the shares observed; for values 0 and 1 that is the binomial distribution.
    """
    distinct, counts = np.unique(sums, axis=0, return_counts=True)
    n, part, found = len(sums), max(1, CELLS // len(distinct)), []
    for start in range(0, draws, part):
        drawn = generator.multinomial(n, counts / n, size=min(part, draws - start))
        found.append(drawn @ distinct)
    return np.concatenate(found)


def drawn_subsets(units: Units, seed: int, *names: str) -> dict[str, Floats]:
    """Bootstrap means of each subset, of shape (DRAWS,). names: of what the values are, so that its draws are its own.

    Clusters are drawn, each with all of its units, so subsets that share a cluster are drawn together: a subset has then as many units as
    come, and its mean is over those; NaN where none came. Subsets that share no cluster are drawn apart, each with as many clusters as it has.
    """
    found = dict[str, Floats]()
    for subsets in _sharing(units.clusters):
        of = [units.clusters[subset] for subset in subsets]
        number = np.unique(np.concatenate(of), return_inverse=True)[1]
        sums = np.zeros((int(number.max()) + 1, 2 * len(subsets)))
        places, size = np.split(number, np.cumsum([len(part) for part in of])[:-1]), len(sums)
        for column, (subset, place) in enumerate(zip(subsets, places, strict=True)):
            sums[:, column] = np.bincount(place, weights=units.values[subset], minlength=size)
            sums[:, len(subsets) + column] = np.bincount(place, minlength=size)
        drawn = _drawn_sums(sums, generator_of(seed, *names, *subsets), DRAWS)
        over, under = drawn[:, : len(subsets)], drawn[:, len(subsets) :]
        found |= dict(zip(subsets, ratio(over, under).T, strict=True))
    return {subset: found[subset] for subset in units.values}


def _sharing(clusters: Mapping[str, Ints]) -> list[list[str]]:
    """Subsets in parts that share clusters, directly or over others; in the order in which they come."""
    names, members = list(clusters), np.repeat(np.arange(len(clusters)), [len(c) for c in clusters.values()])
    part = joined(members, np.concatenate([*clusters.values(), np.array([], dtype=np.int64)]), len(names))
    return [[names[place] for place in np.flatnonzero(part == n)] for n in dict.fromkeys(part.tolist())]


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
        after.select([*keys, "value", "cluster"]), keys, join_type="inner", right_suffix="_after"
    )
    if not len(both):
        raise ValueError("no unit was scored on both sides: there is nothing to compare")
    both = both.sort_by([(key, "ascending") for key in keys])
    first = Units.of(both)
    second = Units.of(both.drop_columns(["value"]).rename_columns({"value_after": "value"}))
    figures = [overall(form, side.means, first.counts) for side in (first, second)]
    changes = Units({subset: second.values[subset] - v for subset, v in first.values.items()}, first.clusters)
    draws = overall(form, drawn_subsets(changes, seed, "difference"), first.counts)
    low, high = _ends(draws)
    return Difference(
        len(both), True, float(figures[0]), float(figures[1]), float(figures[1] - figures[0]), low, high, p_value(draws)
    )  # fmt: skip


def apart(before: pa.Table, after: pa.Table, form: Form, seed: int) -> Difference:
    """Difference of two figures that were measured on other units each, drawn independently of each other. Arguments as of `difference`."""
    sides = [Units.of(side) for side in (before, after)]
    figures = [overall(form, side.means, side.counts) for side in sides]
    draws = [
        overall(form, drawn_subsets(side, seed, name), side.counts)
        for side, name in zip(sides, ("before", "after"), strict=True)
    ]
    low, high = _ends(draws[1] - draws[0])
    return Difference(
        min(len(before), len(after)), False, float(figures[0]), float(figures[1]), float(figures[1] - figures[0]), low, high, None
    )  # fmt: skip


def _ends(draws: Floats) -> tuple[float, float]:
    """95 % percentile interval of draws of a difference; NaN where no draw is a number."""
    low, high = interval(draws)
    return (math.nan, math.nan) if low is None or high is None else (low, high)


def p_value(draws: Floats) -> float:
    """Two-sided p-value of zero from bootstrap draws of a figure, those that are no number left out; see `difference`."""
    draws = draws[np.isfinite(draws)]
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
    units = Units.of(outcomes)
    low, high = interval(overall(form, drawn_subsets(units, seed, "overall"), units.counts))
    return Estimate(float(overall(form, units.means, units.counts)), low, high)


# ------------------------------------------------------------------------------------------------------------------------- length bias


def drawn_units(strata: Ints, generator: np.random.Generator, width: int, draws: int = DRAWS) -> Iterator[Floats]:
    """How often each cluster is drawn, within its stratum: parts of a matrix (draws, clusters), so that `width` numbers a draw fit in CELLS."""
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
