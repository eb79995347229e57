"""How well annotators agree, with its doubt, and beside every figure what it would be by chance alone.

Weighted kappa is the figure that HelpSteer2 publishes. It rises by itself when the ratings that agree most are selected, so each figure
after a selection stands beside its null: the same selection of ratings of which it is broken who gave them to what.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.annotations.consensus import (
    LEVELS,
    MISSING,
    Levels,
    OutlierRule,
    Ratings,
    agreed,
    votes,
    without_outliers,
)
from pipeline.annotations.schema import AGREEMENT, ANNOTATOR_AGREEMENT
from pipeline.vocabulary import ATTRIBUTES

Floats = npt.NDArray[np.float64]
Metric = Literal["interval", "ordinal"]
STAGES = ("all", "outliers removed", "tasks removed")
FIGURES = ("kappa", "alpha_interval", "alpha_ordinal")
CHUNK = 2048
"""Prompts that are drawn anew at a time."""

PUBLISHED_KAPPAS = {
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


# -------------------------------------------------------------------------------------------------------------------------- figures


def pair_counts(ratings: Sequence[Sequence[float]] | npt.ArrayLike, levels: int = LEVELS) -> npt.NDArray[np.int64]:
    """Counts of rating pairs within responses, each pair in both orders: a symmetric matrix (levels, levels).

    ratings: a list of ratings a response, or rows padded with NaN. Raises ValueError for a rating outside 0 to levels - 1.
    """
    counts = _votes(ratings, levels)
    pairs: npt.NDArray[np.int64] = counts.T @ counts - np.diag(counts.sum(axis=0))
    return pairs


def weighted_kappa_from_counts(matrix: npt.ArrayLike) -> float:
    """Quadratic-weighted Cohen's kappa of a square matrix of counts (Cohen 1968). NaN where chance disagreement is zero."""
    observed = np.asarray(matrix, dtype=np.float64)
    if observed.ndim != 2 or observed.shape[0] != observed.shape[1]:
        raise ValueError(f"a square matrix of counts is needed, not one of shape {observed.shape}")
    return float(_kappa(observed))


def weighted_kappa(ratings: Sequence[Sequence[float]] | npt.ArrayLike, levels: int = LEVELS) -> float:
    """Quadratic-weighted Cohen's kappa, pooled over every pair of ratings within a response, in both orders. See `pair_counts`.

    There is no fixed pair of raters: about a thousand people share few responses. HelpSteer2 doesn't say how it forms pairs; this
    way reproduces its published values from its published ratings.
    """
    return weighted_kappa_from_counts(pair_counts(ratings, levels))


def krippendorff_alpha(
    ratings: Sequence[Sequence[float]] | npt.ArrayLike, metric: Metric = "interval", levels: int = LEVELS
) -> float:
    """Krippendorff's alpha (Krippendorff 2011, Computing Krippendorff's alpha-reliability), interval or ordinal.

    Unlike kappa over all pairs, a response counts by its number of ratings, not of pairs. ratings as in `pair_counts`; a response with
    one rating has no say. NaN where all ratings are of one level.
    """
    return float(
        {"interval": _interval, "ordinal": _ordinal}[metric](_coincidences(_votes(ratings, levels)).sum(axis=0))
    )


def _kappa(pairs: Floats) -> Floats:
    """Weighted kappa of matrices of pair counts: (..., levels, levels) -> (...)."""
    apart = np.subtract.outer(np.arange(pairs.shape[-1]), np.arange(pairs.shape[-1])) ** 2
    rows, columns, total = pairs.sum(axis=-1), pairs.sum(axis=-2), pairs.sum(axis=(-1, -2))
    chance = np.einsum("...i,...j,ij->...", rows, columns, apart) / np.maximum(total, 1e-300)
    return _one_less((apart * pairs).sum(axis=(-1, -2)), chance)


def _interval(coincidences: Floats) -> Floats:
    apart = np.subtract.outer(np.arange(coincidences.shape[-1]), np.arange(coincidences.shape[-1])) ** 2.0
    return _alpha(coincidences, apart)


def _ordinal(coincidences: Floats) -> Floats:
    """The distance of two levels is the number of ratings between their middles, squared."""
    n = coincidences.sum(axis=-1)
    middle = n.cumsum(axis=-1) - n / 2
    return _alpha(coincidences, (middle[..., :, None] - middle[..., None, :]) ** 2)


def _alpha(coincidences: Floats, apart: Floats) -> Floats:
    n = coincidences.sum(axis=-1)
    total = n.sum(axis=-1)
    expected = (apart * n[..., :, None] * n[..., None, :]).sum(axis=(-1, -2)) / np.maximum(total - 1, 1e-300)
    return _one_less((apart * coincidences).sum(axis=(-1, -2)), expected)


def _one_less(observed: Floats, expected: Floats) -> Floats:
    return np.where(expected > 0, 1 - observed / np.where(expected > 0, expected, 1), np.nan)


def _coincidences(counts: npt.NDArray[np.int64]) -> Floats:
    """Pairs of each response over its ratings less one: (responses, levels) -> (responses, levels, levels)."""
    weighted: Floats = _pairs(counts) / np.maximum(counts.sum(axis=1) - 1, 1)[:, None, None]
    return weighted


def _pairs(counts: npt.NDArray[np.int64]) -> Floats:
    """Ordered pairs of ratings of each response: of v_a votes for a and v_b for b come v_a v_b; for a with a, v_a (v_a - 1)."""
    pairs = (counts[:, :, None] * counts[:, None, :]).astype(np.float64)
    diagonal = np.arange(counts.shape[1])
    pairs[:, diagonal, diagonal] -= counts
    return pairs


def _votes(ratings: Sequence[Sequence[float]] | npt.ArrayLike, levels: int) -> npt.NDArray[np.int64]:
    """How many ratings of each level every response has: (responses, levels). Raises ValueError for what is no rating."""
    if isinstance(ratings, np.ndarray):
        rows = ratings.astype(np.float64)
    else:
        lists = [np.asarray(row, dtype=np.float64) for row in ratings]  # type: ignore[union-attr]
        rows = np.full((len(lists), max(map(len, lists), default=0)), np.nan)
        for n, row in enumerate(lists):
            rows[n, : len(row)] = row
    rated = np.isfinite(rows)
    values = np.where(rated, rows, 0)
    if (values != np.floor(values)).any() or values.min(initial=0) < 0 or values.max(initial=0) >= levels:
        raise ValueError(f"ratings must be whole numbers from 0 to {levels - 1}")
    places = np.nonzero(rated)[0] * levels + values[rated].astype(np.int64)
    return np.bincount(places, minlength=len(rows) * levels).reshape(len(rows), levels)


# ---------------------------------------------------------------------------------------------------------------------------- doubt


def bootstrap(counts: npt.NDArray[np.int64], prompt: npt.NDArray[np.int64], seed: int, draws: int) -> dict[str, Floats]:
    """Each of FIGURES in `draws` samples of the prompts, with replacement: arrays (draws, attributes).

    counts: votes (responses, attributes, levels); prompt: number of each response's prompt. Prompts are drawn, not ratings, as the
    responses of one prompt and the ratings of one response are not independent. A prompt's weight in a draw is Poisson(1), which
    needs no pass over all prompts (Chamandy et al. 2012, Estimating uncertainty for massive data streams, section 3).
    """
    generator = np.random.default_rng(seed)
    attributes = counts.shape[1]
    pairs, coincidences = (np.zeros((draws, attributes * LEVELS**2)) for _ in range(2))
    order = np.argsort(prompt, kind="stable")
    begins = np.flatnonzero(np.diff(prompt[order], prepend=-1))
    for first in range(0, len(begins), CHUNK):
        mine = begins[first : first + CHUNK]
        rows = order[mine[0] : begins[first + CHUNK] if first + CHUNK < len(begins) else len(order)]
        part = counts[rows].reshape(-1, LEVELS)
        weights = generator.poisson(1.0, size=(draws, len(mine))).astype(np.float64)
        for total, matrices in ((pairs, _pairs(part)), (coincidences, _coincidences(part))):
            total += weights @ np.add.reduceat(matrices.reshape(len(rows), -1), mine - mine[0], axis=0)
    shape = (draws, attributes, LEVELS, LEVELS)
    pairs, coincidences = pairs.reshape(shape), coincidences.reshape(shape)
    return {"kappa": _kappa(pairs), "alpha_interval": _interval(coincidences), "alpha_ordinal": _ordinal(coincidences)}


def permuted(levels: Levels, generator: np.random.Generator) -> Levels:
    """Each attribute's ratings permuted over all annotations: who rated what is broken; the histogram, and who rated at all, are kept."""
    shuffled = levels.copy()
    for attribute in range(levels.shape[-1]):
        part = shuffled[..., attribute]
        rated = part != MISSING
        part[rated] = generator.permutation(part[rated])
    return shuffled


# --------------------------------------------------------------------------------------------------------------------------- tables


def agreement(
    ratings: Levels,
    prompt: npt.NDArray[np.int64],
    keep: int,
    rule: OutlierRule,
    max_spread: int,
    seed: int,
    rated_by: str,
    *,
    permutations: int = 20,
    draws: int = 1000,
    responses: int | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> pa.Table:
    """Kappa and alpha per attribute of all ratings, of those kept, and of those on agreed tasks, in the schema AGREEMENT.

    ratings: (responses, places, attributes); prompt: number of each response's prompt.
    *_low, *_high: 95 % bootstrap intervals over prompts. *_null: the mean over permutations of the ratings that went through the same
    selection (`permuted`): what is above it is people's agreement. responses: how many a prompt has, see `agreed`.
    """
    selection = (keep, rule, max_spread, responses)
    nulls: dict[str, list[dict[str, Floats]]] = {stage: [] for stage in STAGES}
    for number in range(permutations):
        say(f"Computing the chance level: permutation {number + 1} of {permutations}")
        shuffled = permuted(ratings, np.random.default_rng([seed, number]))
        for stage, levels, _ in _stages(shuffled, prompt, *selection):
            nulls[stage].append(_figures(_counts(levels)))
    rows = []
    for stage, levels, prompts in _stages(ratings, prompt, *selection):
        say(f"Computing the intervals of the stage {stage}")
        counts = _counts(levels)
        figures, drawn = _figures(counts), bootstrap(counts, prompts, seed, draws)
        for n, attribute in enumerate(ATTRIBUTES):
            row = {
                "attribute": attribute,
                "stage": stage,
                "published": PUBLISHED_KAPPAS[stage][attribute],
                "rated_by": rated_by,
            }
            for name in FIGURES:
                low, high = _finite(np.quantile, drawn[name][:, n], [0.025, 0.975])
                null = _finite(np.mean, np.array([figures_[name][n] for figures_ in nulls[stage]]))
                row |= {name: figures[name][n], f"{name}_low": low, f"{name}_high": high, f"{name}_null": null}
            n_ratings = counts[:, n].sum(axis=1)
            rows.append(row | {"ratings": int(n_ratings.sum()), "responses": int((n_ratings > 0).sum())})
    return pa.Table.from_pylist(rows, schema=AGREEMENT)


def _counts(levels: Levels) -> npt.NDArray[np.int64]:
    """Votes: (responses, places, attributes) -> (responses, attributes, levels)."""
    return votes(levels.swapaxes(1, 2))


def _figures(counts: npt.NDArray[np.int64]) -> dict[str, Floats]:
    """Each of FIGURES from votes (responses, attributes, levels), an attribute each, without a matrix a response."""
    weight = 1 / np.maximum(counts.sum(axis=2) - 1, 1)
    diagonal = np.eye(LEVELS)
    pairs = np.einsum("rai,raj->aij", counts, counts) - diagonal * counts.sum(axis=0)[:, None]
    coincidences = np.einsum("ra,rai,raj->aij", weight, counts, counts, optimize=True)
    coincidences -= diagonal * np.einsum("ra,rai->ai", weight, counts)[:, None]
    return {"kappa": _kappa(pairs), "alpha_interval": _interval(coincidences), "alpha_ordinal": _ordinal(coincidences)}


def _finite(figure: Callable[..., Any], values: Floats, *arguments: Any) -> Any:
    """A figure of the finite ones of some values; NaN where there are none."""
    values = values[np.isfinite(values)]
    return figure(values if len(values) else np.array([np.nan]), *arguments)


def _stages(
    levels: Levels, prompt: npt.NDArray[np.int64], keep: int, rule: OutlierRule, max_spread: int, responses: int | None
) -> Iterator[tuple[str, Levels, npt.NDArray[np.int64]]]:
    """Ratings, and the prompts of their responses, before and after each selection."""
    yield STAGES[0], levels, prompt
    chosen = without_outliers(levels, keep, rule)
    yield STAGES[1], chosen, prompt
    good = agreed(chosen, prompt, max_spread, responses)
    yield STAGES[2], chosen[good], prompt[good]


def annotator_agreement(annotations: pa.Table, rated_by: str, fewest: int = 2) -> pa.Table:
    """How each annotator agrees with the others who rated the same responses, in the schema ANNOTATOR_AGREEMENT.

    annotations: a table with annotator_id beside the columns of `Ratings.of`. kappa: quadratic-weighted, over the pairs of the annotator's
    rating with each other one of the response; not symmetric, so that a bias lowers it. bias: mean of the annotator's rating minus the
    mean of the others'. rmse: root mean square of the same difference. Only annotators with `fewest` responses or more that others
    rated too; where every rating has an annotator of its own there are none.
    """
    ratings = Ratings.of(annotations)
    annotators, who = np.unique(annotations["annotator_id"].to_numpy(), return_inverse=True)
    tables = []
    for n, attribute in enumerate(ATTRIBUTES):
        own = ratings.levels[ratings.response, ratings.place, n].astype(np.int64)
        counts = votes(ratings.levels[:, :, n])[ratings.response]
        rated = own != MISSING
        counts[rated, own[rated]] -= 1
        others = counts.sum(axis=1)
        use = rated & (others > 0)
        matrices = np.zeros((len(annotators), LEVELS, LEVELS))
        np.add.at(matrices, (who[use], own[use]), counts[use])
        responses = np.bincount(who[use], minlength=len(annotators))
        difference = own[use] - counts[use] @ np.arange(LEVELS) / others[use]
        total, square = (
            np.bincount(who[use], weights=difference**power, minlength=len(annotators)) for power in (1, 2)
        )
        enough = responses >= fewest
        tables.append(
            pa.table(
                {
                    "annotator_id": pa.array(annotators[enough], pa.string()),
                    "attribute": pa.array([attribute] * int(enough.sum()), pa.string()),
                    "responses": responses[enough],
                    "kappa": pa.array(_kappa(matrices[enough]), from_pandas=True),
                    "bias": total[enough] / responses[enough],
                    "rmse": np.sqrt(square[enough] / responses[enough]),
                    "rated_by": pa.array([rated_by] * int(enough.sum()), pa.string()),
                },
                schema=ANNOTATOR_AGREEMENT,
            )
        )
    return pa.concat_tables(tables)
