"""What a response's annotators say together: outlier ratings removed, labels, tasks that people can agree on.

HelpSteer2, section 2.1 and poster: of up to five annotations keep the three that agree most; the label is their mean, rounded; a task whose
kept helpfulness ratings differ by more than 2 is dropped. Closeness, ties and whether the three are chosen per attribute are not
published; these rules are ours, and reproduce the published kappas (see `agreement`).
"""

from itertools import combinations
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.annotations.schema import LABELS
from pipeline.settings import ATTRIBUTES

Ratings = npt.NDArray[np.float64]
Table = TypeVar("Table", pa.Table, pd.DataFrame)
Rule = Literal["per_attribute", "annotator"]


def most_agreeing(annotations: Table, keep: int = 3, rule: Rule = "per_attribute") -> Table:
    """Keep, of each response's ratings, the `keep` that agree most.

    annotations: a table in the schema ANNOTATIONS (columns response_id and the five attributes are used), Arrow or pandas; the same kind
    comes back, in the same order, with the ratings that are not kept set to null, and annotations with none left removed.

    Those kept have the least sum of squared differences between pairs; ties go to the first in the table's order. `keep` ratings or
    fewer are all kept. rule `per_attribute`: each attribute for itself; a missing rating is no candidate. rule `annotator`: the same
    annotators for all attributes, by the sum over the five; only annotators who rated all five are candidates where there are more than
    `keep` of those, and nobody is removed where there are not.
    """
    if keep < 2:
        raise ValueError(f"keep: at least 2 ratings can agree, not {keep}")
    table = (
        annotations if isinstance(annotations, pa.Table) else pa.Table.from_pandas(annotations, preserve_index=False)
    )
    response, place, (responses, places) = _layout(table["response_id"])
    cube: Ratings = np.full((responses, places, len(ATTRIBUTES)), np.nan)
    for n, attribute in enumerate(ATTRIBUTES):
        cube[response, place, n] = _floats(table[attribute])
    kept: npt.NDArray[np.bool_]
    if rule == "per_attribute":
        kept = np.stack([_keep(cube[:, :, [n]], keep) for n in range(len(ATTRIBUTES))], axis=2)
    else:
        whole: npt.NDArray[np.bool_] = np.asarray(np.isfinite(cube).all(axis=2))
        chosen = _keep(np.where(whole[:, :, None], cube, np.nan), keep)
        few = whole.sum(axis=1) <= keep
        kept = np.where(few[:, None], True, chosen)[:, :, None] & np.isfinite(cube)
    mask = kept[response, place]
    for n, attribute in enumerate(ATTRIBUTES):
        column = pc.if_else(pa.array(mask[:, n]), table[attribute], pa.scalar(None, table[attribute].type))
        table = table.set_column(table.column_names.index(attribute), attribute, column)
    table = table.filter(pa.array(mask.any(axis=1)))
    result: Table = table if isinstance(annotations, pa.Table) else table.to_pandas(ignore_metadata=True)
    return result


def _layout(ids: Any) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], tuple[int, int]]:
    """Row -> (number of its response, place within the response), and (responses, most ratings of one)."""
    codes = np.asarray(pc.dictionary_encode(ids).combine_chunks().indices if len(ids) else [], dtype=np.int64)
    order = np.argsort(codes, kind="stable")
    counts = np.bincount(codes)
    place = np.empty(len(codes), dtype=np.int64)
    place[order] = np.arange(len(codes)) - np.repeat(counts.cumsum() - counts, counts)
    return codes, place, (len(counts), int(counts.max(initial=0)))


def _floats(column: pa.ChunkedArray) -> Ratings:
    values: Ratings = np.asarray(pc.fill_null(pc.cast(column, pa.float64()), float("nan")), dtype=np.float64)
    return values


def _keep(ratings: Ratings, keep: int) -> npt.NDArray[np.bool_]:
    """Which candidates of each response to keep. ratings: (responses, places, attributes), NaN for no candidate -> (responses, places)."""
    candidate: npt.NDArray[np.bool_] = np.asarray(np.isfinite(ratings).all(axis=2))
    kept = candidate.copy()
    counts = candidate.sum(axis=1)
    for count in np.unique(counts[counts > keep]):
        rows = np.flatnonzero(counts == count)
        places = np.nonzero(candidate[rows])[1].reshape(len(rows), count)
        values = np.take_along_axis(ratings[rows], places[:, :, None], axis=1)
        subsets = np.array(list(combinations(range(count), keep)))
        # sum over pairs of (x_i - x_j)^2 = keep * sum x^2 - (sum x)^2, summed over the attributes
        costs = np.stack(
            [(keep * (values[:, s] ** 2).sum(axis=1) - values[:, s].sum(axis=1) ** 2).sum(axis=1) for s in subsets],
            axis=1,
        )
        best = np.take_along_axis(places, subsets[costs.argmin(axis=1)], axis=1)
        kept[rows] = False
        kept[rows[:, None], best] = True
    return kept


def consensus_labels(kept: pa.Table) -> pa.Table:
    """Labels of each response from its kept ratings, in the schema LABELS, sorted by prompt and response.

    label: the mean rounded by floor(x + 0.5); sd: of the population; n: ratings; votes: how many said 0 to 4. An attribute without
    ratings has nulls and no votes.
    """
    response, _, (responses, _) = _layout(kept["response_id"])
    first = np.unique(response, return_index=True)[1]
    columns = {name: kept[name].take(pa.array(first)) for name in ("prompt_id", "response_id")}
    for attribute in ATTRIBUTES:
        ratings = _floats(kept[attribute])
        rated = np.isfinite(ratings)
        votes = np.bincount(response[rated] * 5 + ratings[rated].astype(np.int64), minlength=5 * responses).reshape(
            responses, 5
        )
        n = votes.sum(axis=1)
        levels = np.arange(5)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = votes @ levels / n
            sd = np.sqrt(np.maximum(votes @ levels**2 / n - mean**2, 0))
        missing = n == 0
        columns[attribute] = pa.array(np.floor(np.nan_to_num(mean) + 0.5), mask=missing).cast(pa.int8())
        columns[f"{attribute}_mean"] = pa.array(mean.astype(np.float32), mask=missing)
        columns[f"{attribute}_sd"] = pa.array(sd.astype(np.float32), mask=missing)
        columns[f"{attribute}_n"] = pa.array(n, pa.int8())
        columns[f"{attribute}_votes"] = pa.FixedSizeListArray.from_arrays(pa.array(votes.ravel(), pa.int8()), 5)
    return pa.table({name: columns[name] for name in LABELS.names}, schema=LABELS).sort_by(
        [("prompt_id", "ascending"), ("response_id", "ascending")]
    )


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
    """The kept annotations of tasks that people agree on: both responses have kept helpfulness ratings that differ by at most `max_spread`.

    A prompt stays with both of its responses or not at all.
    """
    by_response = spreads(kept)
    good = pc.fill_null(pc.less_equal(by_response["spread"], max_spread), False)
    by_prompt = (
        by_response.append_column("good", good.cast(pa.int8())).group_by("prompt_id").aggregate([("good", "sum")])
    )
    agreed = by_prompt["prompt_id"].filter(pc.equal(by_prompt["good_sum"], 2))
    return kept.filter(
        pc.is_in(kept["prompt_id"], agreed.combine_chunks() if isinstance(agreed, pa.ChunkedArray) else agreed)
    )
