"""How far a benchmark's figures can be trusted: intervals, two models on the same units, length, calibration, what was trained on.

Intervals are 95 % percentile intervals of the bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13). Drawn
anew are the units of a benchmark within each subset, so that the weights of subsets hold in every draw. A set of n units drawn with
replacement says how often each is in it, and that is multinomial: so draws are matrices of counts, a part of them at a time.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.draws import seeds
from pipeline.evaluation.benchmarks import Form
from pipeline.evaluation.schema import CALIBRATION, CALIBRATION_BINS, CONTAMINATED, ITEMS, LENGTH_BIAS
from pipeline.reward_model.decontamination import overlaps, prompt_texts
from pipeline.settings import ATTRIBUTES, Decontamination

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

DRAWS = 2000
CELLS = 1 << 22
"""Numbers that a matrix of draws holds at a time: 32 MiB."""
MOST_ENUMERATED = 6
"""Responses of an item whose orders are all looked at for what chance gets: 720 orders."""
CHANCE_DRAWS = 400
"""Random scorers that stand for chance where orders are too many, or where more counts than the order."""
BINS = 10
ROUNDING = 1e-9
"""Share of their mean square below which predictions are taken not to vary."""


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


def overall_with_interval(outcomes: pa.Table, form: Form, seed: int) -> tuple[float, float | None, float | None]:
    """The one figure with its interval. outcomes: of one benchmark and measure, with a unit at least."""
    values = by_subset(outcomes)
    counts = counts_of(values)
    low, high = interval(overall(form, drawn_subsets(values, seed, "overall"), counts))
    return float(overall(form, {s: v.mean() for s, v in values.items()}, counts)), low, high


# ------------------------------------------------------------------------------------------------------------------------------ chance


def chance(items: pa.Table, form: Form, seed: int) -> dict[str, dict[str, float]]:
    """Expected value of each measure and subset for a scorer that gives every response a random number. items: of one benchmark.

    Where a unit is an item of at most MOST_ENUMERATED responses, its value depends on their order alone, and all orders are equally
    likely: the mean over them is exact. Elsewhere (RewardBench 2's Ties, where margins count too) it is the mean over CHANCE_DRAWS
    scorers that draw evenly from 0 to 1.
    """
    found: dict[str, dict[str, float]] = {}
    for subset in pc.unique(items["subset"]).to_pylist():
        mine = items.filter(pc.equal(items["subset"], subset))
        sizes = np.asarray(pc.list_value_length(mine["responses"]), dtype=np.int64)
        measured = form.outcomes(mine, np.zeros(int(sizes.sum())))
        alone = all(units == len(mine) for _, units in _means(measured).values())
        alone = alone and pc.all(pc.is_in(measured["unit"], value_set=mine["item_id"].combine_chunks())).as_py()
        if alone and int(sizes.max()) <= MOST_ENUMERATED:
            means = _over_orders(mine, form)
        else:
            means = _over_draws(mine, form, int(sizes.sum()), generator_of(seed, "chance", subset))
        for measure, value in means.items():
            found.setdefault(measure, {})[subset] = value
    return found


def _over_orders(items: pa.Table, form: Form) -> dict[str, float]:
    """Means over all orders of responses. Items of a kind, with the same ones right, have the same mean."""
    totals: defaultdict[str, float] = defaultdict(float)
    for good, count in Counter(map(tuple, items["good"].to_pylist())).items():
        orders = list(permutations(range(len(good))))
        row = {"benchmark": items["benchmark"][0], "subset": items["subset"][0], "messages": items["messages"][0]}
        rows = [{**row, "item_id": str(n), "responses": [""] * len(good), "good": good} for n in range(len(orders))]
        outcomes = form.outcomes(pa.Table.from_pylist(rows, schema=ITEMS), np.array(orders, dtype=np.float64).ravel())
        for measure, (mean, _) in _means(outcomes).items():
            totals[measure] += mean * count / len(items)
    return dict(totals)


def _over_draws(items: pa.Table, form: Form, responses: int, generator: np.random.Generator) -> dict[str, float]:
    totals: defaultdict[str, float] = defaultdict(float)
    for _ in range(CHANCE_DRAWS):
        for measure, (mean, _) in _means(form.outcomes(items, generator.random(responses))).items():
            totals[measure] += mean / CHANCE_DRAWS
    return dict(totals)


def _means(outcomes: pa.Table) -> dict[str, tuple[float, int]]:
    """Mean value, and number of units, of each measure."""
    grouped = outcomes.group_by("measure", use_threads=False).aggregate([("value", "mean"), ("value", "count")])
    return {row["measure"]: (row["value_mean"], row["value_count"]) for row in grouped.to_pylist()}


# ------------------------------------------------------------------------------------------------------------------------- length bias


@dataclass(frozen=True)
class Comparisons:
    """Every right response of an item beside every other one of it; arrays of shape (comparisons,), but for the last one.

    item: its number. margin: goodness of the right one less the other's. longer: characters that the right one has more. weight: an item's
    comparisons weigh 1 together. strata: number of the subset of each item.
    """

    item: Ints
    margin: Floats
    longer: Floats
    weight: Floats
    strata: Ints

    @classmethod
    def of(cls, scores: pa.Table) -> "Comparisons":
        """From scores of one benchmark (schema SCORES)."""
        subsets = np.asarray(pc.dictionary_encode(scores["subset"].combine_chunks()).indices, dtype=np.int64)
        names = pc.dictionary_encode(
            pc.binary_join_element_wise(scores["subset"], scores["item_id"], "\0").combine_chunks()
        )
        item, good = np.asarray(names.indices, dtype=np.int64), np.asarray(scores["good"], dtype=bool)
        goodness, characters = (np.asarray(scores[name], dtype=np.float64) for name in ("goodness", "characters"))
        rights, others = np.flatnonzero(good), np.flatnonzero(~good)
        others = others[np.argsort(item[others], kind="stable")]
        many = np.bincount(item[others], minlength=len(names.dictionary))
        repeat, begin = many[item[rights]], (many.cumsum() - many)[item[rights]]
        right = np.repeat(rights, repeat)
        other = others[np.repeat(begin - repeat.cumsum() + repeat, repeat) + np.arange(repeat.sum())]
        strata = np.zeros(len(many), dtype=np.int64)
        strata[item] = subsets
        with np.errstate(invalid="ignore"):  # of two that are infinite
            margin = goodness[right] - goodness[other]
        weight = 1 / np.bincount(item[right], minlength=len(many))[item[right]]
        return cls(item[right], margin, characters[right] - characters[other], weight, strata)


def length_bias(scores: pa.Table, seed: int) -> pa.Table:
    """How much a model goes by length, a row a benchmark and figure, in the schema LENGTH_BIAS. scores: schema SCORES.

    `longer`, `shorter`, `equal`: accuracy (strictly greater) of comparisons where the right response is that beside the other one, null
    where there are none. `pearson`, `spearman`: correlation of a comparison's margin with its difference in length; a margin that isn't
    finite has no say. A scorer of length alone has 1, 0, 0 and the correlations 1. Items are drawn anew within each subset.
    """
    rows: list[dict[str, Any]] = []
    for benchmark in pc.unique(scores["benchmark"]).to_pylist():
        given = Comparisons.of(scores.filter(pc.equal(scores["benchmark"], benchmark)))
        finite = np.isfinite(given.margin)
        sizes = {name: int(part.sum()) for name, part in _lengths(given).items()} | {
            "pearson": int(finite.sum()),
            "spearman": int(finite.sum()),
        }
        whole = _length_figures(given, np.ones((1, len(given.strata))))
        parts = [
            _length_figures(given, drawn)
            for drawn in drawn_units(given.strata, generator_of(seed, benchmark, "length"), len(given.item))
        ]
        for name, value in whole.items():
            low, high = interval(np.concatenate([part[name] for part in parts]))
            rows.append(
                {
                    "benchmark": benchmark,
                    "figure": name,
                    "comparisons": sizes[name],
                    "value": _number(value[0]),
                    "low": low,
                    "high": high,
                }
            )
    return pa.Table.from_pylist(rows, schema=LENGTH_BIAS)


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


def _lengths(given: Comparisons) -> dict[str, npt.NDArray[np.bool_]]:
    return {"longer": given.longer > 0, "shorter": given.longer < 0, "equal": given.longer == 0}


def _length_figures(given: Comparisons, drawn: Floats) -> dict[str, Floats]:
    """Each figure of `length_bias` in each draw. drawn: (draws, items), how often an item is in it."""
    finite = np.isfinite(given.margin)
    won = finite & (given.margin > 0)

    def totals(values: npt.ArrayLike) -> Floats:
        return drawn @ np.bincount(given.item, weights=np.asarray(values) * given.weight, minlength=len(given.strata))

    found = {name: _ratio(totals(won * part), totals(part)) for name, part in _lengths(given).items()}
    margin, longer = given.margin[finite], given.longer[finite]
    weights = drawn[:, given.item[finite]] * given.weight[finite]
    found["pearson"] = weighted_pearson(margin[None], longer[None], weights)
    found["spearman"] = weighted_pearson(weighted_ranks(margin, weights), weighted_ranks(longer, weights), weights)
    return found


def weighted_pearson(x: Floats, y: Floats, weights: Floats) -> Floats:
    """Pearson's correlation of each row: (rows, n), or (1, n) for x and y, and (rows, n) for weights; NaN where one doesn't vary."""
    total = weights.sum(axis=1, keepdims=True)
    total[total == 0] = np.nan
    x = x - (weights * x).sum(axis=1, keepdims=True) / total
    y = y - (weights * y).sum(axis=1, keepdims=True) / total
    spread = np.sqrt((weights * x**2).sum(axis=1) * (weights * y**2).sum(axis=1))
    return _ratio((weights * x * y).sum(axis=1), spread)


def weighted_ranks(values: Floats, weights: Floats) -> Floats:
    """Mid-ranks of n values in each row of weights (rows, n): what is below, and half of what is equal.

    With whole weights these are the ranks of a sample that has each value so often, less a half: their correlation is Spearman's, ties
    at their mean rank.
    """
    if not len(values):
        return weights
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    equal = np.add.reduceat(weights[:, order], starts, axis=1)
    place = np.empty(len(values), dtype=np.int64)
    place[order] = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(values))))
    ranks: Floats = (equal.cumsum(axis=1) - equal / 2)[:, place]
    return ranks


def _ratio(over: Floats, under: Floats) -> Floats:
    good = np.isfinite(under) & (under > 0)
    return np.where(good, over / np.where(good, under, 1), np.nan)


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


# ------------------------------------------------------------------------------------------------------------------------- calibration


def calibration(predictions: pa.Table, train_means: Mapping[str, float], seed: int) -> tuple[pa.Table, pa.Table]:
    """How predicted ratings stand to the given ones: schemas CALIBRATION, a row an attribute, and CALIBRATION_BINS.

    predictions: schema PREDICTIONS; an attribute that isn't predicted has no row. train_means: mean rating of each attribute
    in the training data, NaN where nothing is rated.
    slope, intercept: of the least-squares line of ratings on predictions; 1 and 0 are calibrated, a slope below 1 is a model that says too
    much. expected_error: mean absolute difference of a bin's ratings and predictions, bins of equal counts by prediction, weighted by
    their size (Guo et al. 2017, On Calibration of Modern Neural Networks, for a mean instead of a probability). It isn't 0 for a calibrated
    model either, as bins have few responses. mse_of_mean: of predicting the training mean. Prompts are drawn anew.
    """
    rows: list[dict[str, Any]] = []
    binned: list[dict[str, Any]] = []
    for attribute in ATTRIBUTES:
        predicted, label = (
            np.asarray(predictions[name], dtype=np.float64) for name in (attribute, f"{attribute}_label")
        )
        known = np.isfinite(predicted) & np.isfinite(label)
        if not known.any():
            continue
        p, y = predicted[known], label[known]
        encoded = pc.dictionary_encode(predictions["prompt_id"].combine_chunks())
        prompt = np.unique(np.asarray(encoded.indices)[known], return_inverse=True)[1]
        powers = np.stack([np.ones(len(p)), p, y, p * p, p * y, (p - y) ** 2])
        sums = np.stack([np.bincount(prompt, weights=power) for power in powers], axis=1)
        strata = np.zeros(len(sums), dtype=np.int64)
        drawn = np.concatenate(
            [w @ sums for w in drawn_units(strata, generator_of(seed, attribute, "calibration"), len(sums))]
        )
        (slope, intercept, mse), (slopes, intercepts, errors) = (
            _line(totals) for totals in (sums.sum(axis=0)[None], drawn)
        )
        bins = _bins(p, y)
        row = {
            "attribute": attribute,
            "responses": len(p),
            "expected_error": sum(b["responses"] * abs(b["rated"] - b["predicted"]) for b in bins) / len(p),
            "mse_of_mean": _number(((train_means[attribute] - y) ** 2).mean()),
        }
        for name, value, draws in (
            ("slope", slope, slopes),
            ("intercept", intercept, intercepts),
            ("mse", mse, errors),
        ):
            row |= dict(zip((name, f"{name}_low", f"{name}_high"), (_number(value[0]), *interval(draws)), strict=True))
        rows.append(row)
        binned += [{"attribute": attribute, "bin": n, **b} for n, b in enumerate(bins, start=1)]
    return pa.Table.from_pylist(rows, schema=CALIBRATION), pa.Table.from_pylist(binned, schema=CALIBRATION_BINS)


def _line(sums: Floats) -> tuple[Floats, Floats, Floats]:
    """Slope, intercept and mean squared error from rows of sums of 1, p, y, pp, py and squared error."""
    n, p, y, pp, py, error = sums.T
    varied = n * pp - p * p
    slope = _ratio(n * py - p * y, np.where(varied > ROUNDING * n * pp, varied, 0))
    return slope, (y - slope * p) / n, error / n


def _bins(predicted: Floats, label: Floats) -> list[dict[str, Any]]:
    """Bins of equal counts by prediction, as near as equal predictions allow: their edges, size and means."""
    edges = np.unique(np.quantile(predicted, np.linspace(0, 1, BINS + 1)))
    place = np.clip(np.searchsorted(edges, predicted, side="right") - 1, 0, max(len(edges) - 2, 0))
    found = []
    for n in np.unique(place):
        mine = place == n
        found.append(
            {
                "low": float(predicted[mine].min()),
                "high": float(predicted[mine].max()),
                "responses": int(mine.sum()),
                "predicted": float(predicted[mine].mean()),
                "rated": float(label[mine].mean()),
            }
        )
    return found


# ----------------------------------------------------------------------------------------------------------------------- contamination


def contaminated(items: pa.Table, training: Sequence[pa.ChunkedArray], rule: Decontamination) -> pa.Table:
    """Items whose prompt is too close to one that was trained on, in the schema CONTAMINATED: by how much, as decontamination counts it.

    training: conversations that were trained on, as columns of messages. rule: n-grams and threshold.
    """
    texts = prompt_texts(items["messages"])
    trained = pc.unique(pa.concat_arrays([prompt_texts(column) for column in training]))
    once = pc.unique(texts)
    found = overlaps(trained, {str(n): once.slice(n, 1) for n in range(len(once))}, rule)
    most = found.group_by("benchmark", use_threads=False).aggregate([("overlap", "max")])
    prompts = once.take(pc.cast(most["benchmark"], pa.int64()).combine_chunks())
    place = pc.index_in(texts, value_set=prompts)
    hit = items.select(["benchmark", "subset", "item_id"]).filter(pc.is_valid(place))
    return hit.append_column("overlap", most["overlap_max"].take(place.drop_null())).cast(CONTAMINATED)
