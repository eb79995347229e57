"""What forms of benchmark share: goodness of responses to outcomes of units, and means of accuracies.

Goodness is one flat array: the responses of all items, in order. A score that isn't finite is NaN from here on: every comparison with it
is lost.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.benchmarks.schema import OUTCOMES

Floats = npt.NDArray[np.float64]


def finite(items: pa.Table, goodness: npt.ArrayLike) -> Floats:
    """Goodness with NaN for what isn't finite. Raises ValueError where there is not one score a response."""
    values = np.asarray(goodness, dtype=np.float64)
    expected = pc.sum(pc.list_value_length(items["responses"])).as_py() or 0
    if values.shape != (expected,):
        raise ValueError(f"goodness has shape {values.shape}, but the items have {expected} responses")
    return np.where(np.isfinite(values), values, np.nan)


def starts(items: pa.Table) -> npt.NDArray[np.int64]:
    """Place of each item's first response in the flat array."""
    lengths = np.asarray(pc.list_value_length(items["responses"]), dtype=np.int64)
    return np.cumsum(lengths) - lengths


def of_items(ufunc: np.ufunc, values: npt.NDArray[Any], items: pa.Table) -> npt.NDArray[Any]:
    """One number an item from one a response, by a ufunc that takes many to one: np.add, np.maximum, np.minimum."""
    found: npt.NDArray[Any] = ufunc.reduceat(values, starts(items)) if len(items) else values[:0]
    return found


class Extremes(NamedTuple):
    """Of each item the worst and the best good response's goodness, and that of the best other one; NaN where any isn't finite."""

    worst: Floats
    best: Floats
    other: Floats


def extremes(items: pa.Table, values: Floats) -> Extremes:
    """Goodness of each item's responses at the ends. values: of each response."""
    good = np.asarray(pc.list_flatten(items["good"]))
    worst = of_items(np.minimum, np.where(good, values, np.inf), items)
    best = of_items(np.maximum, np.where(good, values, -np.inf), items)
    return Extremes(worst, best, of_items(np.maximum, np.where(good, -np.inf, values), items))


def strict_wins(items: pa.Table, goodness: npt.ArrayLike) -> pa.Table:
    """Whether each item's worst good response scores strictly higher than its best other one (1) or not (0), in the schema OUTCOMES."""
    ends = extremes(items, finite(items, goodness))
    return outcomes(items, items["item_id"], ends.worst > ends.other, ends.worst - ends.other)


def outcomes(
    items: pa.Table, unit: Any, value: npt.ArrayLike, margin: npt.ArrayLike, measure: str = "accuracy"
) -> pa.Table:
    """Rows of OUTCOMES. items: whose benchmark, subset and cluster the units have; unit: the units' names."""
    columns = {
        "benchmark": items["benchmark"],
        "subset": items["subset"],
        "unit": unit,
        "measure": pa.array([measure] * len(items), pa.string()),
        "value": np.asarray(value, dtype=np.float64),
        "margin": np.asarray(margin, dtype=np.float64),
        "cluster": items["cluster"],
    }
    return pa.table(columns, schema=OUTCOMES)


def weighted(
    accuracies: Mapping[str, Any], weights: Mapping[str, float], group: Callable[[str], str]
) -> dict[str, Any]:
    """Weighted mean of each group of accuracies: numbers, or arrays of one shape (bootstrap draws). Groups are in order of appearance."""
    members: dict[str, list[str]] = {}
    for name in accuracies:
        members.setdefault(group(name), []).append(name)
    return {
        name: sum(weights[m] * accuracies[m] for m in found) / sum(weights[m] for m in found)
        for name, found in members.items()
    }


def without(whole: str, parts: Sequence[str], there: Collection[str]) -> str:
    """What a benchmark of some parts lacks, as words: "RM-Bench without Code and Math"; "" where it has them all. there: parts that it has."""
    missing = [part for part in parts if part not in there]
    return f"{whole} without {listed(missing)}" if missing else ""


def listed(names: Sequence[str]) -> str:
    """Names in a sentence: a, b and c."""
    return " and ".join([part for part in (", ".join(names[:-1]), *names[-1:]) if part])


def plain_mean(sections: Mapping[str, Any]) -> Any:
    """Plain mean of sections. Raises ValueError without any."""
    if not sections:
        raise ValueError("no sections to take the mean of")
    return sum(sections.values()) / len(sections)
