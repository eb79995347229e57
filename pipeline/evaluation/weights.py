"""Attribute weights: how the five predicted ratings make one score, the goodness."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.evaluation.schema import WEIGHTS
from pipeline.reward_model.schema import OUTPUTS
from pipeline.settings import ATTRIBUTES

PUBLISHED_70B = (0.65, 0.8, 0.45, 0.55, -0.4)
PUBLISHED_340B = (0.3, 0.74, 0.46, 0.47, -0.33)
"""HelpSteer2's weights (section 3; Nemotron-4-340B-Reward's model card), in the order of ATTRIBUTES. They were found by a search on
RewardBench itself, so a score with them on RewardBench is tuned on its test set."""
FEWEST_PAIRS = 5


def fit_attribute_weights(
    differences: npt.NDArray[np.float64], chosen: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """Weights by logistic regression of preferences on differences in predicted ratings.

    differences: (pairs, 5), prediction of the first response minus that of the second; chosen: whether people preferred the first.
    No intercept: the order of a pair must not count. L2 penalty of strength 1 on differences in units of their spread, so that few pairs
    can't make large weights. Scaled so that absolute weights sum to 1. Raises ValueError with fewer than FEWEST_PAIRS pairs.
    """
    if len(differences) < FEWEST_PAIRS:
        raise ValueError(
            f"{len(differences)} preference pairs are too few to fit attribute weights (at least {FEWEST_PAIRS}): "
            "raise the recipe's development_share, or collect more prompts"
        )
    from sklearn.linear_model import LogisticRegression

    scale = np.sqrt((differences**2).mean(axis=0))
    scale[scale == 0] = 1.0
    rows = np.concatenate([differences, -differences]) / scale
    wins = np.concatenate([chosen, ~chosen])
    fitted = LogisticRegression(C=1.0, fit_intercept=False, max_iter=1000).fit(rows, wins)
    weights = fitted.coef_[0] / scale
    total = np.abs(weights).sum()
    normal: npt.NDArray[np.float64] = weights / total if total > 0 else weights
    return normal


def weights_of(preferences: pa.Table, rated_by: str) -> pa.Table:
    """Weights from a model's outputs for development preferences (schema PREFERENCE_PREDICTIONS), in the schema WEIGHTS.

    A model of one output has nothing to weigh: its weight is 1.
    """
    outputs = [name for name in OUTPUTS if preferences[f"chosen_{name}"].null_count < len(preferences)]
    chosen, rejected = (
        np.stack([np.asarray(preferences[f"{side}_{name}"]) for name in outputs], axis=1)
        for side in ("chosen", "rejected")
    )
    weights = np.ones(1)
    if len(outputs) > 1:
        weights = fit_attribute_weights(chosen - rejected, np.ones(len(preferences), dtype=bool))
    published = [dict[str, float](zip(ATTRIBUTES, p, strict=True)) for p in (PUBLISHED_70B, PUBLISHED_340B)]
    n = len(outputs)
    return pa.table(
        {
            "attribute": outputs,
            "weight": weights,
            "published_70b": [published[0].get(name) for name in outputs],
            "published_340b": [published[1].get(name) for name in outputs],
            "pairs": [len(preferences)] * n,
            "rated_by": [rated_by] * n,
        },
        schema=WEIGHTS,
    )
