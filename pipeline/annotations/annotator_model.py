"""A consensus that models annotators: how each one's ratings lean, scatter and fail, and what that leaves of a response's quality.

Beside the rule of HelpSteer2 (`consensus`), which stays the default: see `measurements/consensus_study.py` for which is nearer the truth.

An annotator a with bias b, scatter s and lapse rate e rates a response of quality q with the level whose interval holds q + b + N(0, s^2),
cut at 0.5, 1.5, 2.5 and 3.5; with probability e, with any level at all. That is an ordinal probit model with rater effects (Johnson
1996, On Bayesian analysis of multirater ordinal data) with a lapse on top. Quality and annotators are inferred together by mean-field
variational EM on grids: every update is exact, so that the bound on the evidence never falls.
"""

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.annotations.consensus import LEVELS, MISSING, Ratings
from pipeline.vocabulary import ATTRIBUTES, Attribute

Floats = npt.NDArray[np.float64]

QUALITY = np.linspace(-1, 5, 61)
BIASES = np.linspace(-1.6, 1.6, 17)
SCATTERS = np.geomspace(0.35, 2.4, 8)
LAPSES = np.array([0.01, 0.1, 0.5])
LIKELY_LAPSES = np.array([0.6, 0.3, 0.1])
BIAS_SD, SCATTER_MEDIAN, SCATTER_LOG_SD = 0.5, 0.8, 0.5
PRIOR_ANNOTATORS = 10.0
"""Weight of what is supposed of annotators before their ratings are seen, in annotators."""
PRIOR_RESPONSES = 0.01
"""Weight of an even prior of quality, in shares of the responses."""

POSTERIOR = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("response_id", pa.string()),
        ("mean", pa.float64()),
        ("sd", pa.float64()),
        ("n", pa.int64()),
    ]
)
ANNOTATORS = pa.schema(
    [
        ("annotator_id", pa.string()),
        ("bias", pa.float64()),
        ("scatter", pa.float64()),
        ("lapse", pa.float64()),
        ("n", pa.int64()),
        ("pooled", pa.bool_()),  # too few ratings for parameters of its own
    ]
)


@dataclass(frozen=True)
class Fitted:
    """What the model found.

    posterior: schema POSTERIOR, quality of each response on the scale of the ratings; annotators: schema ANNOTATORS, posterior means;
    bound: on the evidence, after each round.
    """

    posterior: pa.Table
    annotators: pa.Table
    bound: list[float]


def annotator_model(
    annotations: pa.Table, attribute: Attribute, fewest: int = 5, rounds: int = 60, tolerance: float = 1e-3
) -> Fitted:
    """Quality of every response in one attribute, and what each annotator is like.

    annotations: a table with annotator_id beside the columns of `Ratings.of`; a missing rating has no say, a response without any has null
    mean and sd. Annotators with fewer than `fewest` ratings share one set of parameters: where every rating has an annotator of its own,
    as in published ratings, that leaves one common scatter. Stops when no mean moves by more than `tolerance` levels, or after `rounds`.
    Rows come in the order in which responses, and annotators by name, first stand in the table.
    """
    ratings = Ratings.of(annotations)
    first = pa.array(np.flatnonzero(ratings.place == 0))
    level = ratings.levels[ratings.response, ratings.place, ATTRIBUTES.index(attribute)].astype(np.int64)
    names, who = np.unique(annotations["annotator_id"].to_numpy(), return_inverse=True)
    rated = level != MISSING
    response, level, who = ratings.response[rated], level[rated], who[rated]
    n_ratings = np.bincount(who, minlength=len(names))
    own = n_ratings >= fewest
    number = np.where(own, np.cumsum(own) - 1, own.sum())  # the last one is what the others share
    responses, annotators = len(ratings.levels), int(own.sum()) + 1
    quality, people, bound = _fit(response, number[who] * LEVELS + level, responses, annotators, rounds, tolerance)
    n = np.bincount(response, minlength=responses)
    mean = quality @ QUALITY
    sd = np.sqrt(np.maximum(quality @ QUALITY**2 - mean**2, 0))
    ids = {name: annotations[name].take(first) for name in ("prompt_id", "response_id")}
    posterior = pa.table(
        ids | {"mean": pa.array(mean, mask=n == 0), "sd": pa.array(sd, mask=n == 0), "n": n}, schema=POSTERIOR
    )
    means = (people @ _candidates())[number]
    columns = {name: pa.array(values) for name, values in zip(("bias", "scatter", "lapse"), means.T, strict=True)}
    who_table = {"annotator_id": pa.array(names, pa.string()), **columns, "n": n_ratings, "pooled": ~own}
    return Fitted(posterior, pa.table(who_table, schema=ANNOTATORS), bound)


def model_labels(annotations: pa.Table) -> pa.Table:
    """Labels by the model: prompt_id, response_id, and for each attribute label, `<attribute>_mean` and `<attribute>_sd` of the posterior.

    The label is the posterior mean rounded by floor(x + 0.5), 0 to 4; null where nobody rated.
    """
    columns: dict[str, pa.Array | pa.ChunkedArray] = {}
    for attribute in ATTRIBUTES:
        posterior = annotator_model(annotations, attribute).posterior
        columns |= {name: posterior[name] for name in ("prompt_id", "response_id")}
        label = pc.min_element_wise(
            pc.max_element_wise(pc.floor(pc.add(posterior["mean"], 0.5)), 0, skip_nulls=False), 4, skip_nulls=False
        )
        columns[attribute] = label.cast(pa.int8())
        columns |= {f"{attribute}_{figure}": posterior[figure] for figure in ("mean", "sd")}
    return pa.table(columns)


class Posteriors(NamedTuple):
    """Of quality (responses, grid) and of annotators (annotators, candidates), and the bound after each round."""

    quality: Floats
    annotators: Floats
    bound: list[float]


def _fit(
    response: npt.NDArray[np.int64],
    said: npt.NDArray[np.int64],
    responses: int,
    annotators: int,
    rounds: int,
    tolerance: float,
) -> Posteriors:
    """Fit the model, round by round.

    response: of each rating; said: its annotator's number times 5 plus its level.
    """
    from scipy.sparse import csr_matrix
    from scipy.special import logsumexp, xlogy

    log_likelihood = np.log(_likelihood()).reshape(LEVELS * len(QUALITY), -1)
    # row: an annotator and level; column: a response. Both sums over ratings are products with it
    which = csr_matrix((np.ones(len(said)), (said, response)), shape=(annotators * LEVELS, responses))
    even = np.full(len(QUALITY), PRIOR_RESPONSES * max(responses, 1) / len(QUALITY))
    supposed = PRIOR_ANNOTATORS * _prior()
    prior, candidates = np.full(len(QUALITY), 1 / len(QUALITY)), _prior()
    people = np.tile(candidates, (annotators, 1))
    bound: list[float] = []
    means: Floats = np.full(responses, np.nan)
    quality: Floats = np.tile(prior, (responses, 1))
    for _ in range(rounds):
        expected = (people @ log_likelihood.T).reshape(annotators * LEVELS, len(QUALITY))
        log_quality = which.T @ expected + np.log(prior)
        evidence = logsumexp(log_quality, axis=1)
        quality = np.exp(log_quality - evidence[:, None])
        gain = (people * np.log(candidates) - xlogy(people, people)).sum()
        # the weights of the two priors as those of Dirichlet distributions
        bound.append(float(evidence.sum() + gain + even @ np.log(prior) + supposed @ np.log(candidates)))
        counts = (which @ quality).reshape(annotators, LEVELS * len(QUALITY))
        log_people = counts @ log_likelihood + np.log(candidates)
        people = np.exp(log_people - logsumexp(log_people, axis=1)[:, None])
        prior = even + quality.sum(axis=0)
        prior /= prior.sum()
        candidates = supposed + people.sum(axis=0)
        candidates /= candidates.sum()
        before, means = means, quality @ QUALITY
        if np.abs(means - before).max(initial=0) <= tolerance:
            break
    return Posteriors(quality, people, bound)


@cache
def _candidates() -> Floats:
    """Bias, scatter and lapse of each candidate: (candidates, 3)."""
    return np.stack(np.meshgrid(BIASES, SCATTERS, LAPSES, indexing="ij"), axis=-1).reshape(-1, 3)


@cache
def _prior() -> Floats:
    """What is supposed of an annotator: a probability for each candidate."""
    bias = np.exp(-0.5 * (BIASES / BIAS_SD) ** 2)
    scatter = np.exp(-0.5 * (np.log(SCATTERS / SCATTER_MEDIAN) / SCATTER_LOG_SD) ** 2)
    weights = (bias[:, None, None] * scatter[:, None] * LIKELY_LAPSES).ravel()
    normal: Floats = weights / weights.sum()
    return normal


@cache
def _likelihood() -> Floats:
    """Probability of each level given quality and candidate: (levels, grid, candidates)."""
    from scipy.special import ndtr

    bias, scatter, lapse = _candidates().T
    cuts = np.array([-np.inf, *(np.arange(LEVELS - 1) + 0.5), np.inf])
    below = ndtr((cuts[:, None, None] - QUALITY[:, None] - bias) / scatter)
    table: Floats = (1 - lapse) * np.diff(below, axis=0) + lapse / LEVELS
    return table
