"""How far a model prefers the longer response."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.benchmarks.clusters import joined
from pipeline.evaluation.doubt.bootstrap import (
    Floats,
    Ints,
    cluster_numbers,
    drawn_units,
    generator_of,
    interval,
    number,
    ratio,
)
from pipeline.evaluation.schema import LENGTH_BIAS


@dataclass(frozen=True)
class Comparisons:
    """Every right response of an item beside every other one of it; arrays of shape (comparisons,), but for the last one.

    cluster: number of its item's. margin: goodness of the right one less the other's. longer: characters that the right one has more. weight:
    an item's comparisons weigh 1 together. strata: of each cluster, the number of the subset, or of the subsets that share clusters.
    """

    cluster: Ints
    margin: Floats
    longer: Floats
    weight: Floats
    strata: Ints

    @classmethod
    def of(cls, items: pa.Table, scores: pa.Table) -> "Comparisons":
        """From items of one benchmark (schema ITEMS) and their scores (schema SCORES)."""
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
        first = np.unique(item, return_index=True)[1]  # items are numbered as they come, in scores and in `items`
        cluster = cluster_numbers(items["cluster"])
        strata = joined(cluster, subsets[first], int(cluster.max()) + 1)
        with np.errstate(invalid="ignore"):  # of two that are infinite
            margin = goodness[right] - goodness[other]
        weight = 1 / np.bincount(item[right], minlength=len(many))[item[right]]
        return cls(cluster[item[right]], margin, characters[right] - characters[other], weight, strata)


def length_bias(items: pa.Table, scores: pa.Table, seed: int) -> pa.Table:
    """How much a model goes by length, a row a benchmark and figure, in the schema LENGTH_BIAS.

    items: schema ITEMS; scores: schema SCORES, of these items in their order.

    `longer`, `shorter`, `equal`: accuracy (strictly greater) of comparisons where the right response is that beside the other one, null
    where there are none. `pearson`, `spearman`: correlation of a comparison's margin with its difference in length; a margin that isn't
    finite has no say. A scorer of length alone has 1, 0, 0 and the correlations 1. Clusters of items are drawn anew, as for accuracies.
    """
    rows: list[dict[str, Any]] = []
    for benchmark in pc.unique(scores["benchmark"]).to_pylist():
        given = Comparisons.of(*(t.filter(pc.equal(t["benchmark"], benchmark)) for t in (items, scores)))
        finite = np.isfinite(given.margin)
        sizes = {name: int(part.sum()) for name, part in _lengths(given).items()} | {
            "pearson": int(finite.sum()),
            "spearman": int(finite.sum()),
        }
        whole = _length_figures(given, np.ones((1, len(given.strata))))
        parts = [
            _length_figures(given, drawn)
            for drawn in drawn_units(given.strata, generator_of(seed, benchmark, "length"), len(given.cluster))
        ]
        for name, value in whole.items():
            low, high = interval(np.concatenate([part[name] for part in parts]))
            rows.append(
                {
                    "benchmark": benchmark,
                    "figure": name,
                    "comparisons": sizes[name],
                    "value": number(value[0]),
                    "low": low,
                    "high": high,
                }
            )
    return pa.Table.from_pylist(rows, schema=LENGTH_BIAS)


def _lengths(given: Comparisons) -> dict[str, npt.NDArray[np.bool_]]:
    return {"longer": given.longer > 0, "shorter": given.longer < 0, "equal": given.longer == 0}


def _length_figures(given: Comparisons, drawn: Floats) -> dict[str, Floats]:
    """Each figure of `length_bias` in each draw. drawn: (draws, clusters), how often a cluster is in it."""
    finite = np.isfinite(given.margin)
    won = finite & (given.margin > 0)

    def totals(values: npt.ArrayLike) -> Floats:
        return drawn @ np.bincount(
            given.cluster, weights=np.asarray(values) * given.weight, minlength=len(given.strata)
        )

    found = {name: ratio(totals(won * part), totals(part)) for name, part in _lengths(given).items()}
    margin, longer = given.margin[finite], given.longer[finite]
    weights = drawn[:, given.cluster[finite]] * given.weight[finite]
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
    return ratio((weights * x * y).sum(axis=1), spread)


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
