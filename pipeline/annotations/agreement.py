"""How well annotators agree: quadratic-weighted Cohen's kappa over all pairs within a response, and what it would be by chance alone."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.annotations.consensus import Rule, _floats, _layout, agreed_tasks, most_agreeing
from pipeline.annotations.schema import AGREEMENT
from pipeline.settings import ATTRIBUTES

LEVELS = 5
PUBLISHED = {
    "all": {"helpfulness": 0.465, "correctness": 0.472, "coherence": 0.169, "complexity": 0.293, "verbosity": 0.342},
    "outliers removed": {
        "helpfulness": 0.706,
        "correctness": 0.715,
        "coherence": 0.387,
        "complexity": 0.416,
        "verbosity": 0.536,
    },
    "tasks removed": {
        "helpfulness": 0.791,
        "correctness": 0.793,
        "coherence": 0.428,
        "complexity": 0.427,
        "verbosity": 0.548,
    },
}
"""HelpSteer2 (arXiv 2406.08673), Table 1: initial, after collection improvements, after post-processing. Its first column is of an earlier
collection, before the guidelines were improved, so it is beside `all`, not the same quantity."""


def pair_counts(ratings: Sequence[Sequence[float]] | npt.ArrayLike, levels: int = LEVELS) -> npt.NDArray[np.int64]:
    """Counts of rating pairs within responses, each pair in both orders: a symmetric matrix (levels, levels).

    ratings: a list of ratings a response, or rows padded with NaN. Raises ValueError for a rating outside 0 to levels - 1.
    """
    rows = _padded(ratings)
    rated = np.isfinite(rows)
    values = np.where(rated, rows, 0)
    if (values != np.floor(values)).any() or values.min(initial=0) < 0 or values.max(initial=0) >= levels:
        raise ValueError(f"ratings are whole numbers from 0 to {levels - 1}")
    votes = np.zeros((len(rows), levels), dtype=np.int64)
    np.add.at(votes, (np.nonzero(rated)[0], values[rated].astype(np.int64)), 1)
    # of v_a votes for a and v_b for b come v_a * v_b ordered pairs; for a with a, v_a * (v_a - 1)
    counts: npt.NDArray[np.int64] = votes.T @ votes - np.diag(votes.sum(axis=0))
    return counts


def weighted_kappa_from_counts(matrix: npt.ArrayLike) -> float:
    """Quadratic-weighted Cohen's kappa of a square matrix of counts (Cohen 1968). NaN where chance disagreement is zero."""
    observed = np.asarray(matrix, dtype=np.float64)
    if observed.ndim != 2 or observed.shape[0] != observed.shape[1]:
        raise ValueError(f"a square matrix of counts is needed, not one of shape {observed.shape}")
    levels = np.arange(len(observed))
    weights = (levels[:, None] - levels) ** 2
    expected = np.outer(observed.sum(axis=1), observed.sum(axis=0)) / max(observed.sum(), 1)
    chance = (weights * expected).sum()
    return float(1 - (weights * observed).sum() / chance) if chance > 0 else float("nan")


def weighted_kappa(ratings: Sequence[Sequence[float]] | npt.ArrayLike, levels: int = LEVELS) -> float:
    """Quadratic-weighted Cohen's kappa, pooled over every pair of ratings within a response, in both orders. See `pair_counts`.

    There is no fixed pair of raters: about a thousand people share few responses. HelpSteer2 doesn't say how it forms pairs; this
    way reproduces its published values from its published ratings.
    """
    return weighted_kappa_from_counts(pair_counts(ratings, levels))


def rating_rows(annotations: pa.Table, attribute: str) -> npt.NDArray[np.float64]:
    """Ratings of an attribute as NaN-padded rows, one a response: shape (responses, most ratings of one)."""
    response, place, shape = _layout(annotations["response_id"])
    rows = np.full(shape, np.nan)
    rows[response, place] = _floats(annotations[attribute])
    return rows


def permuted(annotations: pa.Table, seed: int) -> pa.Table:
    """The annotations with each attribute's ratings permuted over all of them: who rated what is broken, the rating histogram is kept."""
    generator = np.random.default_rng(seed)
    for attribute in ATTRIBUTES:
        rated = np.flatnonzero(np.asarray(pc.is_valid(annotations[attribute])))
        source = np.arange(len(annotations))
        source[rated] = generator.permutation(rated)
        column = annotations[attribute].take(pa.array(source))
        annotations = annotations.set_column(annotations.column_names.index(attribute), attribute, column)
    return annotations


def agreement(
    annotations: pa.Table, keep: int, rule: Rule, max_spread: int, seed: int, permutations: int = 20
) -> pa.Table:
    """Kappa per attribute of all ratings, of those kept, and of those on agreed tasks, each beside its null; schema AGREEMENT.

    kappa_null: the mean over permutations of the ratings that went through the same selection. Choosing the ratings that agree most
    raises kappa by itself, and so does dropping tasks: what is above the null is people's agreement.
    """
    simulated = bool(pc.any(annotations["simulated"]).as_py())
    stages = _stages(annotations, keep, rule, max_spread)
    nulls = [_stages(permuted(annotations, seed + n), keep, rule, max_spread) for n in range(permutations)]
    rows = []
    for stage, table in stages.items():
        for attribute in ATTRIBUTES:
            by_chance = [weighted_kappa(rating_rows(null[stage], attribute)) for null in nulls]
            rows.append(
                {
                    "attribute": attribute,
                    "stage": stage,
                    "kappa": weighted_kappa(rating_rows(table, attribute)),
                    "kappa_null": float(np.mean(by_chance)),
                    "responses": len(pc.unique(table["response_id"])),
                    "published": PUBLISHED[stage][attribute],
                    "simulated": simulated,
                }
            )
    return pa.Table.from_pylist(rows, schema=AGREEMENT)


def _stages(annotations: pa.Table, keep: int, rule: Rule, max_spread: int) -> dict[str, pa.Table]:
    kept = most_agreeing(annotations, keep, rule)
    return {"all": annotations, "outliers removed": kept, "tasks removed": agreed_tasks(kept, max_spread)}


def _padded(ratings: Sequence[Sequence[float]] | npt.ArrayLike) -> npt.NDArray[np.float64]:
    if isinstance(ratings, np.ndarray):
        return ratings.astype(np.float64)
    lists = [np.asarray(row, dtype=np.float64) for row in ratings]  # type: ignore[union-attr]
    rows = np.full((len(lists), max(map(len, lists), default=0)), np.nan)
    for n, row in enumerate(lists):
        rows[n, : len(row)] = row
    return rows
