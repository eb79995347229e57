"""Ridge regression that finds where a head's training starts."""

import numpy as np
import numpy.typing as npt

from pipeline.reward_model.examples import Targets

RIDGE = 10.0 ** np.arange(-7, 2)
"""Strengths of the head's ridge regression that are tried, in units of the largest squared singular value of the states."""


def ridge_head(
    states: npt.NDArray[np.float64], labels: Targets, folds: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Head weights (attributes, width) by ridge regression of labels (rows, attributes; NaN: missing) on frozen states (rows, width).

    One strength for all attributes, the one with the least squared error in cross-validation over `folds` (a number a row; the responses
    of a prompt must share theirs). A strength for each attribute fits the noise of a few hundred ratings, and so does leaving out single
    rows, whose prompt stays. The development prompts have no say, so that the loss before training can be compared with the others
    of the curve. Training starts from here: from zero, the first hundreds of steps only find the mean. An attribute without labels
    gets zeros.
    """
    errors = np.zeros(len(RIDGE))
    for fold in np.unique(folds):
        held = folds == fold
        predicted = np.einsum("rw,saw->sra", states[held], _ridges(states[~held], labels[~held]))
        errors += np.nansum((predicted - labels[held]) ** 2, axis=(1, 2))
    weights: npt.NDArray[np.float64] = _ridges(states, labels)[int(errors.argmin())]
    return weights


def _ridges(states: npt.NDArray[np.float64], labels: Targets) -> npt.NDArray[np.float64]:
    """Ridge solutions for every strength: shape (strengths, attributes, width). Attributes with the same rows rated share a decomposition."""
    weights = np.zeros((len(RIDGE), labels.shape[1], states.shape[1]))
    patterns, pattern_of = np.unique(np.isfinite(labels), axis=1, return_inverse=True)
    for number, rated in enumerate(patterns.T):
        if not rated.any():
            continue
        attributes = np.flatnonzero(pattern_of == number)
        left, scale, right = np.linalg.svd(states[rated], full_matrices=False)
        projected = left.T @ labels[rated][:, attributes]
        shrunk = scale / (scale**2 + RIDGE[:, None] * max(scale[0] ** 2, np.finfo(float).tiny))
        weights[:, attributes] = np.einsum("sk,ka,kw->saw", shrunk, projected, right, optimize=True)
    return weights
