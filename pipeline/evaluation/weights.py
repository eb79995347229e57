"""Attribute weights: how the five predicted ratings make one score, the goodness."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.benchmarks.loading import Form
from pipeline.evaluation.doubt import bootstrap
from pipeline.evaluation.schema import WEIGHT_ACCURACY, WEIGHTS
from pipeline.vocabulary import ATTRIBUTES, OUTPUTS

Floats = npt.NDArray[np.float64]

PUBLISHED_70B = (0.65, 0.8, 0.45, 0.55, -0.4)
PUBLISHED_340B = (0.3, 0.74, 0.46, 0.47, -0.33)
"""HelpSteer2's weights (section 3; Nemotron-4-340B-Reward's model card), in the order of ATTRIBUTES. They were found by a search on
RewardBench itself, so a score with them on RewardBench is tuned on its test set."""
HELD_OUT = "preferences of development prompts"
"""What weights are fitted on: prompts that the model wasn't trained on, and no benchmark's."""
FEWEST_PAIRS, FEWEST_PROMPTS = 5, 3
FOLDS = 5
STRENGTHS = tuple(10.0**k for k in range(3, -4, -1))
"""L2 penalties that are tried, the strongest first: they multiply half the sum of squared weights (of differences in units of their spread),
beside the log loss summed over both orders of every pair."""
STEPS = np.arange(-20, 21) / 20
"""Values of a weight that a search on a benchmark tries: steps of .05, as fine as the published weights of the 70B model."""


@dataclass(frozen=True)
class Fitted:
    """Weights whose absolute values sum to 1, and the penalty that cross-validation chose."""

    weights: Floats
    penalty: float


def by_output(table: pa.Table) -> dict[str, float]:
    """Weights by the output that they are of. table: schema WEIGHTS."""
    return dict(zip(table["attribute"].to_pylist(), table["weight"].to_pylist(), strict=True))


def fit_attribute_weights(differences: Floats, chosen: npt.NDArray[np.bool_], prompts: npt.ArrayLike) -> Fitted:
    """Weights by logistic regression of preferences on differences in predicted ratings.

    differences: (pairs, outputs), prediction of the first response minus that of the second; chosen: whether people preferred the first;
    prompts: name or number of each pair's prompt. No intercept: the order of a pair must not count. The L2 penalty, on differences in units
    of their spread, is the one with the least log loss in cross-validation over prompts; of equals the strongest. Raises ValueError with
    fewer than FEWEST_PAIRS pairs, or pairs of fewer than FEWEST_PROMPTS prompts.
    """
    return _fit(differences, chosen, _enough(prompts))


def _enough(prompts: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Number of each pair's prompt, from 0. Raises ValueError where they are too few to fit weights."""
    names, groups = np.unique(np.asarray(prompts), return_inverse=True)
    if len(groups) < FEWEST_PAIRS or len(names) < FEWEST_PROMPTS:
        raise ValueError(
            f"{len(groups)} preference pairs of {len(names)} prompts are too few to fit attribute weights (at least {FEWEST_PAIRS}, of "
            f"{FEWEST_PROMPTS} prompts): raise the recipe's development_share, or collect more prompts"
        )
    return groups


def _fit(differences: Floats, chosen: npt.NDArray[np.bool_], groups: npt.NDArray[np.int64]) -> Fitted:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler

    # both orders of every pair: the mean difference is 0, so the scale is the spread around 0
    rows, wins = np.concatenate([differences, -differences]), np.concatenate([chosen, ~chosen])
    folds = _folds(np.concatenate([groups, groups]))
    fit = LogisticRegression(fit_intercept=False, solver="newton-cholesky")  # few columns: a handful of steps
    model = Pipeline([("scale", StandardScaler(with_mean=False)), ("fit", fit)])
    grid = {"fit__C": [1 / strength for strength in STRENGTHS]}
    search = GridSearchCV(model, grid, cv=folds, scoring="neg_log_loss").fit(rows, wins)
    weights = search.best_estimator_["fit"].coef_[0] / search.best_estimator_["scale"].scale_
    return Fitted(scaled(weights), 1 / search.best_params_["fit__C"])


def scaled(weights: Floats) -> Floats:
    """The weights with absolute values that sum to 1; all zeros stay."""
    total = np.abs(weights).sum()
    return weights / total if total > 0 else weights


def _folds(groups: npt.NDArray[np.int64]) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Places of training and test rows of each fold; the rows of a group are in one fold."""
    from sklearn.model_selection import GroupKFold

    splitter = GroupKFold(min(FOLDS, len(np.unique(groups))), shuffle=True, random_state=0)
    return list(splitter.split(groups, groups=groups))


# ------------------------------------------------------------------------------------------------------------------------------ tables


def weights_of(preferences: pa.Table, rated_by: str, outputs: Sequence[str] | None = None) -> pa.Table:
    """Weights from a model's outputs for development preferences (schema PREFERENCE_PREDICTIONS), in the schema WEIGHTS.

    A model of one output has nothing to weigh: its weight is 1. outputs: the model's; without them, those that the preferences have values of.
    Raises ValueError where there are several outputs and too few preferences.
    """
    outputs, differences = _differences(preferences, outputs)
    fitted = Fitted(np.ones(1), 0.0)
    if len(outputs) > 1:
        chosen = np.ones(len(differences), dtype=bool)
        fitted = fit_attribute_weights(differences, chosen, preferences["prompt_id"])
    return _table(
        outputs, fitted.weights, HELD_OUT, len(preferences), rated_by, fitted.penalty if len(outputs) > 1 else None
    )


def accuracies_of(preferences: pa.Table, seed: int) -> pa.Table:
    """How often weights order development preferences as people did, in the schema WEIGHT_ACCURACY.

    Those of `fitted` are cross-validated: each fifth of the prompts is ordered by weights fitted on the others, penalty and all. Published
    weights are there for a model of the five attributes. A tie loses; a prompt counts once, with the share of its pairs that is won.
    Empty without preferences. Raises ValueError as `fit_attribute_weights` does.
    """
    if not len(preferences):
        return WEIGHT_ACCURACY.empty_table()
    outputs, differences = _differences(preferences)
    groups = np.unique(np.asarray(preferences["prompt_id"]), return_inverse=True)[1]
    rows = []
    for name, goodness in _contenders(outputs, differences, groups):
        won = np.bincount(groups, goodness > 0) / np.bincount(groups)
        low, high = bootstrap.interval(bootstrap.drawn_means(won, bootstrap.generator_of(seed, "weights", name)))
        rows.append({"weights": name, "prompts": len(won), "accuracy": float(won.mean()), "low": low, "high": high})
    return pa.Table.from_pylist([row | {"pairs": len(differences)} for row in rows], schema=WEIGHT_ACCURACY)


def _contenders(outputs: list[str], differences: Floats, groups: npt.NDArray[np.int64]) -> Iterator[tuple[str, Floats]]:
    """Name of each set of weights, and by how much they prefer the chosen response of each pair."""
    if len(outputs) == 1:
        yield outputs[0], differences[:, 0]
        return
    _enough(groups)
    goodness = np.empty(len(differences))
    for train, test in _folds(groups):
        fitted = _fit(differences[train], np.ones(len(train), dtype=bool), groups[train])
        goodness[test] = differences[test] @ fitted.weights
    yield "fitted", goodness
    if tuple(outputs) == ATTRIBUTES:
        yield "published_70b", differences @ np.array(PUBLISHED_70B)
        yield "published_340b", differences @ np.array(PUBLISHED_340B)
    if "helpfulness" in outputs:
        yield "helpfulness", differences[:, outputs.index("helpfulness")]


def searched(items: pa.Table, scores: pa.Table, form: Form) -> pa.Table:
    """Weights that do best on a benchmark itself, in the schema WEIGHTS with the benchmark in `tuned_on`: no figure to report as a result.

    HelpSteer2's weights were found so (section 3; its steps and ranges are not published): a figure with such weights on that benchmark is
    too high, as they have seen the answers. It is here to see by how much. One weight after the other takes the value of STEPS with the
    highest overall figure, the first of equals, until none changes any more; begun from helpfulness alone (else the first output), and from
    the published weights where there are all five attributes. items: schema ITEMS, of one benchmark; scores: schema SCORES, of these items.
    """
    (benchmark,) = pc.unique(items["benchmark"]).to_pylist()
    outputs = [name for name in OUTPUTS if scores[name].null_count < len(scores)]
    predicted = np.stack([np.asarray(scores[name], dtype=np.float64) for name in outputs], axis=1)
    starts = [np.eye(len(outputs))[outputs.index("helpfulness") if "helpfulness" in outputs else 0]]
    if tuple(outputs) == ATTRIBUTES:
        starts += [np.array(PUBLISHED_70B), np.array(PUBLISHED_340B)]
    ends = [_climb(items, predicted, start, form) for start in starts] if len(outputs) > 1 else [(0.0, starts[0])]
    best = max(ends, key=lambda end: end[0])[1]
    return _table(outputs, scaled(best), benchmark, len(items), None, None)


def _climb(items: pa.Table, predicted: Floats, start: Floats, form: Form) -> tuple[float, Floats]:
    """The figure and weights where no change of one weight to a value of STEPS is better."""
    weights, figure, last = start.copy(), _figure(items, predicted @ start, form), -1.0
    while figure > last:
        last = figure
        for n in range(len(weights)):
            others = predicted @ np.where(np.arange(len(weights)) == n, 0.0, weights)
            tried = [_figure(items, others + step * predicted[:, n], form) for step in STEPS]
            if max(tried) > figure:
                figure, weights[n] = max(tried), STEPS[int(np.argmax(tried))]
    return figure, weights


def _figure(items: pa.Table, goodness: Floats, form: Form) -> float:
    outcomes = form.outcomes(items, goodness)
    units = bootstrap.Units.of(outcomes.filter(pc.equal(outcomes["measure"], "accuracy")))
    return float(bootstrap.overall(form, units.means, units.counts))


def _differences(preferences: pa.Table, outputs: Sequence[str] | None = None) -> tuple[list[str], Floats]:
    """Names of the model's outputs, and each one's prediction for the chosen response minus that for the rejected one: (pairs, outputs)."""
    outputs = list(outputs or (n for n in OUTPUTS if preferences[f"chosen_{n}"].null_count < len(preferences)))
    if not outputs:
        _enough([])  # raises: nothing tells the outputs
    sides = [
        np.stack([np.asarray(preferences[f"{side}_{name}"], dtype=np.float64) for name in outputs], axis=1)
        for side in ("chosen", "rejected")
    ]
    return outputs, sides[0] - sides[1]


def _table(
    outputs: list[str], weights: Floats, tuned_on: str, pairs: int, rated_by: str | None, penalty: float | None
) -> pa.Table:
    published: list[Mapping[str, float]] = [
        dict[str, float](zip(ATTRIBUTES, values, strict=True)) for values in (PUBLISHED_70B, PUBLISHED_340B)
    ]
    n = len(outputs)
    columns: dict[str, Any] = {
        "attribute": outputs,
        "weight": weights,
        "published_70b": [published[0].get(name) for name in outputs],
        "published_340b": [published[1].get(name) for name in outputs],
        "tuned_on": [tuned_on] * n,
        "penalty": [penalty] * n,
        "pairs": [pairs] * n,
        "rated_by": [rated_by] * n,
    }
    return pa.table(columns, schema=WEIGHTS)
