"""What a response's annotators say together: outlier ratings removed, labels, tasks that people can agree on.

HelpSteer2, section 2.1 and poster: of up to five annotations keep the three that agree most; the label is their mean, rounded; a task whose
kept helpfulness ratings differ by more than 2 is dropped. Closeness, ties and whether the three are chosen per attribute are not
published; these rules are ours, and reproduce the published kappas (see `agreement`).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations, combinations_with_replacement
from math import comb
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.forms.rows import LABELS
from pipeline.forms.streams import in_whole_prompts
from pipeline.vocabulary import ATTRIBUTES

Levels = npt.NDArray[np.int8]
"""Ratings 0 to 4, or MISSING."""
Table = TypeVar("Table", pa.Table, pd.DataFrame)
OutlierRule = Literal["per_attribute", "annotator"]

MISSING = -1
LEVELS = 5
MOST_SUBSETS = 5000
"""Subsets of a response's ratings that are tried one by one; of more ratings, those of one level are taken together."""


@dataclass(frozen=True)
class Ratings:
    """The ratings of a table as one array, 5 bytes a rating and no text.

    A response is named by its prompt and its own id together: ids repeat from prompt to prompt (A and B, 1 and 2, a model's name).

    levels: (responses, places, attributes), MISSING where there is no rating; a response's ratings stand in the table's order.
    prompt: (responses,), the number of each response's prompt. response, place: (rows,), where each row of the table went. Responses and
    prompts are numbered in the order in which they first come.
    """

    levels: Levels
    prompt: npt.NDArray[np.int64]
    response: npt.NDArray[np.int64]
    place: npt.NDArray[np.int64]

    @classmethod
    def of(cls, annotations: pa.Table) -> "Ratings":
        """Of a table with prompt_id, response_id and the five attributes.

        Raises ValueError for a rating that is no whole number from 0 to 4, and for a row without ids.
        """
        prompts = _codes(annotations["prompt_id"], "prompt_id")
        response, place, responses, places = _layout(_both(prompts, _codes(annotations["response_id"], "response_id")))
        levels = np.full((responses, places, len(ATTRIBUTES)), MISSING, dtype=np.int8)
        for n, attribute in enumerate(ATTRIBUTES):
            levels[response, place, n] = _levels(annotations[attribute], attribute)
        prompt = np.zeros(responses, dtype=np.int64)
        prompt[response] = prompts
        return cls(levels, prompt, response, place)


def most_agreeing(annotations: Table, keep: int = 3, rule: OutlierRule = "per_attribute") -> Table:
    """Keep, of each response's ratings, the `keep` that agree most.

    annotations: a table in the schema ANNOTATIONS (columns prompt_id, response_id and the five attributes are used), Arrow or pandas; the
    same kind comes back, in the same order, with the ratings that are not kept set to null, and annotations with none left removed.

    Those kept have the least sum of squared differences between pairs; ties go to the first in the table's order. `keep` ratings or
    fewer are all kept: of two ratings both, of six as of five the three. rule `per_attribute`: each attribute for itself; a missing rating
    is no candidate. rule `annotator`: the same annotators for all attributes, by the sum over the five; only annotators who rated all
    five are candidates where there are more than `keep` of those, and nobody is removed where there are not.
    Raises ValueError as `Ratings.of` does.
    """
    table = (
        annotations if isinstance(annotations, pa.Table) else pa.Table.from_pandas(annotations, preserve_index=False)
    )
    ratings = Ratings.of(table)
    mask = kept(ratings.levels, keep, rule)[ratings.response, ratings.place]
    for n, attribute in enumerate(ATTRIBUTES):
        column = pc.if_else(pa.array(mask[:, n]), table[attribute], pa.scalar(None, table[attribute].type))
        table = table.set_column(table.column_names.index(attribute), attribute, column)
    table = table.filter(pa.array(mask.any(axis=1)))
    result: Table = table if isinstance(annotations, pa.Table) else table.to_pandas(ignore_metadata=True)
    return result


def other(rule: OutlierRule) -> OutlierRule:
    """The rule that is not this one."""
    return "annotator" if rule == "per_attribute" else "per_attribute"


def kept(levels: Levels, keep: int, rule: OutlierRule) -> npt.NDArray[np.bool_]:
    """Which ratings `most_agreeing` keeps. levels: (responses, places, attributes) -> the same shape."""
    if keep < 2:
        raise ValueError(f"keep: must be at least 2, because a single rating agrees with none; it is {keep}")
    rated: npt.NDArray[np.bool_] = levels != MISSING
    if rule == "per_attribute":
        return np.stack([_closest(levels[:, :, [n]], rated[:, :, n], keep) for n in range(levels.shape[2])], axis=2)
    whole: npt.NDArray[np.bool_] = np.asarray(rated.all(axis=2))
    few = whole.sum(axis=1) <= keep
    chosen = _closest(levels, whole, keep)
    mask: npt.NDArray[np.bool_] = np.where(few[:, None], True, chosen)[:, :, None] & rated
    return mask


def _closest(levels: Levels, candidate: npt.NDArray[np.bool_], keep: int) -> npt.NDArray[np.bool_]:
    """Which candidates to keep. levels: (responses, places, attributes); candidate: (responses, places) -> (responses, places)."""
    chosen = candidate.copy()
    counts = np.count_nonzero(candidate, axis=1)
    for count in np.unique(counts[counts > keep]):
        rows = np.flatnonzero(counts == count)
        places = np.nonzero(candidate[rows])[1].reshape(len(rows), count)
        values = np.take_along_axis(levels[rows], places[:, :, None], axis=1)
        if comb(count, keep) > MOST_SUBSETS:
            if levels.shape[2] > 1:
                raise ValueError(
                    f"{len(rows)} responses have {count} ratings, too many to find the {keep} annotators who agree most in all attributes; "
                    "take the rule per_attribute, or fewer ratings of a response"
                )
            chosen[rows] = False
            chosen[rows[:, None], places] = closest_by_level(values[:, :, 0], keep)
            continue
        columns = np.ascontiguousarray(values.transpose(2, 1, 0), dtype=np.int32)  # attributes, candidates, responses
        apart = {(i, j): ((columns[:, i] - columns[:, j]) ** 2).sum(axis=0) for i, j in combinations(range(count), 2)}
        least, best = np.full(len(rows), np.iinfo(np.int32).max), np.zeros(len(rows), dtype=np.int64)
        subsets = list(combinations(range(count), keep))
        for number, subset in enumerate(subsets):  # in the order of places, so that a tie goes to the first
            cost = np.add.reduce([apart[pair] for pair in combinations(subset, 2)])
            better = cost < least
            np.copyto(least, cost, where=better)
            np.copyto(best, number, where=better)
        chosen[rows] = False
        chosen[rows[:, None], np.take_along_axis(places, np.array(subsets)[best], axis=1)] = True
    return chosen


def closest_by_level(values: Levels, keep: int) -> npt.NDArray[np.bool_]:
    """Which of many ratings to keep, a response a row: the `keep` with the least sum of squared differences, of several the first.

    values: (responses, places), all rated. Ratings of one level are as good as each other, and of these the first are taken; so what is to
    be chosen is how many of each level: C(keep + 4, 4) ways, however many ratings there are. Of ways that cost the same, the first by places.
    """
    rank = np.zeros(values.shape, dtype=np.int64)
    there = np.zeros((len(values), LEVELS), dtype=np.int64)
    for level in range(LEVELS):
        has = values == level
        rank[has] = (has.cumsum(axis=1) - 1)[has]
        there[:, level] = has.sum(axis=1)
    ways = np.array([np.bincount(way, minlength=LEVELS) for way in combinations_with_replacement(range(LEVELS), keep)])
    apart = np.subtract.outer(np.arange(LEVELS), np.arange(LEVELS)) ** 2
    costs = np.einsum("wi,wj,ij->w", ways, ways, apart)
    best, least = np.zeros(values.shape, dtype=bool), np.full(len(values), np.iinfo(np.int64).max)
    for way, cost in zip(ways, costs, strict=True):
        rows = np.flatnonzero((there >= way).all(axis=1) & (cost <= least))
        taken = rank[rows] < way[values[rows]]
        first = (taken != best[rows]).argmax(axis=1)[:, None]
        better = (cost < least[rows]) | np.take_along_axis(taken & ~best[rows], first, axis=1)[:, 0]
        best[rows[better]], least[rows[better]] = taken[better], cost
    return best


def _codes(column: pa.ChunkedArray, name: str) -> npt.NDArray[np.int64]:
    """Number of each row's value, in the order in which values first come. Raises ValueError where one is missing."""
    if column.null_count:
        raise ValueError(f"{column.null_count} annotations have no {name}")
    if not len(column):
        return np.zeros(0, dtype=np.int64)
    values = column.combine_chunks()
    new = np.ones(len(values), dtype=bool)  # runs of a value first: there are fewer of them to be told apart
    new[1:] = pc.not_equal(values.slice(1), values.slice(0, len(values) - 1)).to_numpy(zero_copy_only=False)
    begins = np.flatnonzero(new)
    runs = values.take(pa.array(begins)).dictionary_encode().indices.to_numpy().astype(np.int64)
    return np.repeat(runs, np.diff(begins, append=len(values)))


class Layout(NamedTuple):
    """Of each row the number of its response and its place within that; how many responses there are, and the most ratings of one."""

    response: npt.NDArray[np.int64]
    place: npt.NDArray[np.int64]
    responses: int
    places: int


def _both(prompts: npt.NDArray[np.int64], responses: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Number of each row's response, in the order in which they first come, from the numbers of its prompt and of its id."""
    if not len(responses):
        return responses
    prompt_of = np.zeros(responses.max() + 1, dtype=np.int64)
    prompt_of[responses] = prompts
    if (prompt_of[responses] == prompts).all():
        return responses
    return pd.factorize(prompts * len(prompt_of) + responses)[0].astype(np.int64)


def _layout(codes: npt.NDArray[np.int64]) -> Layout:
    """Where each row goes, by the number of its response."""
    counts = np.bincount(codes)
    place = np.empty(len(codes), dtype=np.int64)
    within = np.arange(len(codes)) - np.repeat(counts.cumsum() - counts, counts)
    if (np.diff(codes) < 0).any():
        place[np.argsort(codes, kind="stable")] = within
    else:
        place = within
    return Layout(codes, place, len(counts), int(counts.max(initial=0)))


def _levels(column: Any, attribute: str) -> Levels:
    """Ratings as int8, MISSING for null. Raises ValueError for what is no whole number from 0 to 4."""
    try:
        levels: Levels = np.asarray(pc.fill_null(pc.cast(column, pa.int8()), MISSING), dtype=np.int8)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{attribute}: ratings must be whole numbers from 0 to {LEVELS - 1}: {error}") from None
    given = pc.min_max(column).as_py()
    if given["min"] is not None and (given["min"] < 0 or given["max"] >= LEVELS):
        wrong = given["min"] if given["min"] < 0 else given["max"]
        raise ValueError(f"{attribute}: ratings must be whole numbers from 0 to {LEVELS - 1}; one is {wrong}")
    return levels


def votes(levels: Levels) -> npt.NDArray[np.int64]:
    """How many ratings of each level: (..., places) -> (..., 5)."""
    rows = int(np.prod(levels.shape[:-1]))
    counts = np.zeros((LEVELS, rows), dtype=np.int16)
    for place in np.ascontiguousarray(levels.reshape(rows, levels.shape[-1]).T):
        for level in range(LEVELS):
            counts[level] += place == level
    return counts.T.astype(np.int64).reshape(*levels.shape[:-1], LEVELS)


def consensus_labels(kept: pa.Table) -> pa.Table:
    """Labels of each response from its kept ratings, in the schema LABELS, sorted by prompt and response.

    label: the mean rounded by floor(x + 0.5), as two ratings may average to a half; sd: of the population; n: ratings; votes: how many
    said 0 to 4. An attribute without ratings has nulls and no votes.
    """
    ratings = Ratings.of(kept)
    first = pa.array(np.flatnonzero(ratings.place == 0))
    ids = {name: kept[name].take(first) for name in ("prompt_id", "response_id")}
    order = [("prompt_id", "ascending"), ("response_id", "ascending")]
    columns = ids | label_columns(ratings.levels)
    return pa.table({name: columns[name] for name in LABELS.names}, schema=LABELS).sort_by(order)


def label_columns(levels: Levels) -> dict[str, pa.Array]:
    """The columns of LABELS but its ids, from kept ratings (responses, places, attributes)."""
    columns: dict[str, pa.Array] = {}
    powers = np.arange(LEVELS, dtype=np.float64)[:, None] ** np.arange(
        3
    )  # of each level: for the number, the sum, the sum of squares
    for number, attribute in enumerate(ATTRIBUTES):
        counts = votes(levels[:, :, number])
        n, total, squares = (counts.astype(np.float64) @ powers).T
        missing, divisor = n == 0, np.maximum(n, 1)
        mean = total / divisor
        sd = np.sqrt(np.maximum(squares / divisor - mean**2, 0))
        columns[attribute] = pa.array(np.floor(mean + 0.5).astype(np.int8), mask=missing)
        columns[f"{attribute}_mean"] = pa.array(mean.astype(np.float32), mask=missing)
        columns[f"{attribute}_sd"] = pa.array(sd.astype(np.float32), mask=missing)
        columns[f"{attribute}_n"] = pa.array(n.astype(np.int8))
        columns[f"{attribute}_votes"] = pa.FixedSizeListArray.from_arrays(pa.array(counts.ravel(), pa.int8()), LEVELS)
    return columns


def spreads(annotations: pa.Table) -> pa.Table:
    """Helpfulness spread (largest minus smallest) a response: prompt_id, response_id, spread, n. Null where nobody rated it."""
    grouped = annotations.group_by(["prompt_id", "response_id"], use_threads=False).aggregate(
        [("helpfulness", "max"), ("helpfulness", "min"), ("helpfulness", "count")]
    )
    spread = pc.subtract(grouped["helpfulness_max"], grouped["helpfulness_min"])
    return pa.table(
        {
            "prompt_id": grouped["prompt_id"],
            "response_id": grouped["response_id"],
            "spread": spread,
            "n": grouped["helpfulness_count"],
        }
    )


def agreed_tasks(kept: pa.Table, max_spread: int = 2) -> pa.Table:
    """The kept annotations of tasks that people agree on: all responses have kept helpfulness ratings that differ by at most `max_spread`.

    A prompt stays with all of its responses, two or more, or not at all.
    """
    ratings = Ratings.of(kept)
    return kept.filter(pa.array(agreed(ratings.levels, ratings.prompt, max_spread)[ratings.response]))


def labels_of_agreed(labels: pa.Table, kept: pa.Table, max_spread: int = 2) -> pa.Table:
    """The labels of tasks that people agree on. labels: of all responses, schema LABELS; kept: their ratings; see `agreed_tasks`."""
    return labels.filter(pc.is_in(labels["prompt_id"], pc.unique(agreed_tasks(kept, max_spread)["prompt_id"])))


def agreed(
    levels: Levels, prompt: npt.NDArray[np.int64], max_spread: int, responses: int | None = None
) -> npt.NDArray[np.bool_]:
    """Which responses are of tasks that people agree on: all of the prompt's are agreed on, and there are `responses`, or two or more.

    levels: kept ratings (responses, places, attributes); prompt: number of each response's prompt.
    """
    helpfulness = levels[:, :, ATTRIBUTES.index("helpfulness")].astype(np.int16)
    rated = helpfulness != MISSING
    widest = np.where(rated, helpfulness, -9).max(axis=1, initial=-9) - np.where(rated, helpfulness, 9).min(
        axis=1, initial=9
    )
    good = rated.any(axis=1) & (widest <= max_spread)
    if not len(prompt):
        return np.zeros(0, dtype=bool)
    there, fine = np.bincount(prompt), np.bincount(prompt, weights=good)
    whole = fine == (np.maximum(there, 2) if responses is None else responses)
    return np.asarray(whole[prompt], dtype=bool)


# --------------------------------------------------------------------------------------------------------------------------- streams


@dataclass
class Totals:
    """What a consensus over a stream came to."""

    responses: int = 0
    ratings: int = 0
    kept: int = 0
    tasks: int = 0
    dropped: int = 0  # tasks that people don't agree on, or that lack a response or its helpfulness

    def add(self, levels: Levels, chosen: Levels, prompt: npt.NDArray[np.int64], good: npt.NDArray[np.bool_]) -> None:
        """Count a block: ratings before and after the outliers, and which responses stay."""
        self.responses += len(levels)
        self.ratings += int((levels != MISSING).sum())
        self.kept += int((chosen != MISSING).sum())
        self.tasks += int(np.count_nonzero(np.bincount(prompt)))
        self.dropped += int(np.count_nonzero(np.bincount(prompt[~good])))


def labels_of_stream(
    batches: Iterable[pa.RecordBatch | pa.Table],
    totals: Totals,
    keep: int = 3,
    rule: OutlierRule = "per_attribute",
    max_spread: int = 2,
    responses: int | None = None,
) -> Iterator[pa.Table]:
    """Labels of agreed tasks from a stream of annotations in whole prompts, as tables in the schema LABELS, in the stream's order.

    The same as `consensus_labels(agreed_tasks(most_agreeing(...)))` but for the order, in memory that doesn't grow with the stream but
    for 8 bytes a prompt. Raises ValueError as `Ratings.of` and `in_whole_prompts` do.
    """
    for table in in_whole_prompts(batches):
        ratings = Ratings.of(table)
        chosen = without_outliers(ratings.levels, keep, rule)
        good = agreed(chosen, ratings.prompt, max_spread, responses)
        totals.add(ratings.levels, chosen, ratings.prompt, good)
        first = pa.array(np.flatnonzero(ratings.place == 0)[good])
        columns = {name: table[name].take(first) for name in ("prompt_id", "response_id")} | label_columns(chosen[good])
        yield pa.table({name: columns[name] for name in LABELS.names}, schema=LABELS)


def without_outliers(levels: Levels, keep: int, rule: OutlierRule) -> Levels:
    """Ratings (responses, places, attributes) with those that `most_agreeing` doesn't keep MISSING."""
    return np.where(kept(levels, keep, rule), levels, MISSING).astype(np.int8)
