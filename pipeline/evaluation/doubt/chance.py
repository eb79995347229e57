"""What scores drawn at random reach on a benchmark."""

from collections import Counter, defaultdict
from itertools import permutations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.benchmarks.loading import Form
from pipeline.benchmarks.schema import ITEMS
from pipeline.evaluation.doubt.bootstrap import generator_of

MOST_ENUMERATED = 6
"""Responses of an item whose orders are all looked at for what chance gets: 720 orders."""

CHANCE_DRAWS = 400
"""Random scorers that stand for chance where orders are too many, or where more counts than the order."""


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
