"""What a model reaches on benchmarks: accuracy by subset, section and benchmark with its doubt, beside what length and chance reach."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.benchmarks.loading import Form
from pipeline.benchmarks.schema import OUTCOMES
from pipeline.evaluation.doubt import bootstrap
from pipeline.evaluation.doubt.bootstrap import Floats
from pipeline.evaluation.doubt.chance import chance
from pipeline.evaluation.doubt.length import length_bias
from pipeline.evaluation.schema import CONTAMINATION, SUMMARY

ACCURACY = "accuracy"
"""The measure that every benchmark has."""


def figures(items: pa.Table, scores: pa.Table, forms: Mapping[str, Form], seed: int) -> dict[str, pa.Table]:
    """Every table that follows from scores alone, by the name that it is published under."""
    return {
        "summary.parquet": summarise(items, scores, forms, seed),
        "outcomes.parquet": outcomes_of(items, scores, forms),
        "length_bias.parquet": length_bias(items, scores, seed),
    }


def outcomes_of(items: pa.Table, scores: pa.Table, forms: Mapping[str, Form]) -> pa.Table:
    """Values of the units of every benchmark, in the schema OUTCOMES. Arguments as of `summarise`."""
    parts = [
        forms[name].outcomes(given, _column(given, mine, "goodness"))
        for name, given, mine in _benchmarks(items, scores)
    ]
    return pa.concat_tables(parts) if parts else OUTCOMES.empty_table()


def summarise(items: pa.Table, scores: pa.Table, forms: Mapping[str, Form], seed: int) -> pa.Table:
    """Every measure of every subset, section and benchmark with a 95 % bootstrap interval over clusters, in the schema SUMMARY.

    items: schema ITEMS; scores: schema SCORES, a row a response, in the items' order; forms: of each benchmark. Beside each figure stands
    the same one of a scorer that prefers the longest response, and what one that draws at random is to be expected to get. A figure of one
    cluster has the interval from 0 to 1. Raises ValueError where scores are not of these items.
    """
    rows: list[dict[str, Any]] = []
    for benchmark, given, mine in _benchmarks(items, scores):
        form = forms[benchmark]
        found, longest = (form.outcomes(given, _column(given, mine, name)) for name in ("goodness", "characters"))
        random = chance(given, form, seed)
        for measure in pc.unique(found["measure"]).to_pylist():
            units, by_length = (bootstrap.Units.of(t.filter(pc.equal(t["measure"], measure))) for t in (found, longest))
            counts = units.counts
            of_subsets: dict[str, dict[str, Any]] = {
                "accuracy": units.means,
                "drawn": bootstrap.drawn_subsets(units, seed, benchmark, measure),
                "longest_accuracy": by_length.means,
                "random_accuracy": random[measure],
            }
            total = "part" if form.lacks(counts) else "overall"
            of_sections = {name: form.sections(part, counts) for name, part in of_subsets.items()}
            totals = {name: {benchmark: form.overall(part, counts)} for name, part in of_sections.items()}
            for level, parts in (("subset", of_subsets), ("section", of_sections), (total, totals)):
                for name in parts["accuracy"]:
                    behind = _subsets(form, counts, level, name)
                    row = {"benchmark": benchmark, "level": level, "name": name, "measure": measure}
                    row |= {"units": sum(counts[subset] for subset in behind), "independent": units.independent(behind)}
                    low, high = bootstrap.interval(parts["drawn"][name])
                    if row["independent"] == 1:  # of one, no draw differs: nothing is known of others
                        low, high = min(0.0, float(parts["accuracy"][name])), max(1.0, float(parts["accuracy"][name]))
                    row |= {figure: float(part[name]) for figure, part in parts.items() if figure != "drawn"}
                    rows.append(row | {"low": low, "high": high})
    return pa.Table.from_pylist(rows, schema=SUMMARY)


def contamination(items: pa.Table, scores: pa.Table, forms: Mapping[str, Form], found: pa.Table, seed: int) -> pa.Table:
    """Accuracy of each benchmark with and without the contaminated items, in the schema CONTAMINATION. found: schema CONTAMINATED."""
    rows = []
    for benchmark, given, mine in _benchmarks(items, scores):
        hit = found.filter(pc.equal(found["benchmark"], benchmark))
        form = forms[benchmark]
        whole = form.outcomes(given, _column(given, mine, "goodness"))
        clean = [~_named(table, hit) for table in (given, mine)]
        value, low, high = None, None, None
        if clean[0].any():
            rest, scored = (table.filter(pa.array(mask)) for table, mask in zip((given, mine), clean, strict=True))
            value, low, high = bootstrap.overall_with_interval(
                _accuracy(form.outcomes(rest, _column(rest, scored, "goodness"))), form, seed
            )
        rows.append(
            {
                "benchmark": benchmark,
                "items": len(given),
                "contaminated": len(hit),
                "accuracy": bootstrap.overall_with_interval(_accuracy(whole), form, seed).value,
                "without": value,
                "without_low": low,
                "without_high": high,
            }
        )
    return pa.Table.from_pylist(rows, schema=CONTAMINATION)


def _accuracy(outcomes: pa.Table) -> pa.Table:
    return outcomes.filter(pc.equal(outcomes["measure"], ACCURACY))


def _benchmarks(items: pa.Table, scores: pa.Table) -> list[tuple[str, pa.Table, pa.Table]]:
    """Name, items and scores of every benchmark."""
    names = pc.unique(items["benchmark"]).to_pylist()
    return [(name, *(t.filter(pc.equal(t["benchmark"], name)) for t in (items, scores))) for name in names]


def _column(items: pa.Table, scores: pa.Table, name: str) -> Floats:
    """A column of scores as one flat array: the responses of all items, in order. Raises ValueError where they aren't of these items."""
    sizes = np.asarray(pc.list_value_length(items["responses"]), dtype=np.int64)
    same = len(scores) == sizes.sum() and all(
        np.array_equal(np.repeat(np.asarray(items[key], dtype=object), sizes), np.asarray(scores[key], dtype=object))
        for key in ("subset", "item_id")
    )
    places = np.arange(sizes.sum()) - np.repeat(sizes.cumsum() - sizes, sizes)
    if not same or not np.array_equal(np.asarray(scores["response"]), places):
        raise ValueError(
            f"the scores don't belong to these items of {items['benchmark'][0]}: there are {len(scores)} scores for "
            f"{int(sizes.sum())} responses, or their order differs"
        )
    return np.asarray(scores[name], dtype=np.float64)


def _named(table: pa.Table, found: pa.Table) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which rows are of an item that is found, by subset and id."""
    keys = [pc.binary_join_element_wise(t["subset"], t["item_id"], "\0") for t in (table, found)]
    return np.asarray(pc.is_in(keys[0], value_set=keys[1].combine_chunks()), dtype=bool)


def _subsets(form: Form, counts: Mapping[str, int], level: str, name: str) -> list[str]:
    """Subsets whose units are behind a figure."""
    if level == "section":
        return [subset for subset in counts if form.section_of(subset) == name]
    return [name] if level == "subset" else list(counts)
