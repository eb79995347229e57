"""A probe fitted: ridge regression of ratings on the frozen hidden states of several layers. Minutes on a CPU. Imported only by workers."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from pipeline.models.classifier import device
from pipeline.models.probe import POOLINGS, Probe, load_backbone, pooled_states
from pipeline.models.scoring import Encoded, Floats, Update, autocast, over_batches
from pipeline.reward_model.figures import baseline_of, curve_of, figures_of
from pipeline.reward_model.made import Made, Refitted
from pipeline.reward_model.sides import Side
from pipeline.reward_model.spec import TrainingSpec
from pipeline.worker import Log, Progress

STRENGTHS = 10.0 ** np.arange(-3.0, 3.5, 0.5)
"""Ridge strengths that are tried, in units of the mean squared length of a row of standardised states."""
LAYERS = 8
"""Layers whose states are looked at, evenly over the depth."""
MOST_ROWS = 2000
"""Rows that choose layers, pooling and strength; all rows fit the probe."""


@dataclass(frozen=True)
class Choice:
    """Layers (1 is the first), poolings of their states over tokens, ridge strength, and the mean squared error in cross-validation."""

    layers: tuple[int, ...]
    poolings: tuple[str, ...]
    strength: float
    error: float


def candidate_layers(depth: int) -> tuple[int, ...]:
    """Layers to look at, evenly over a model of `depth` layers, the last among them."""
    return tuple(sorted({max(1, round(depth * n / LAYERS)) for n in range(1, LAYERS + 1)}))


def states_of(
    backbone: Any, layers: Sequence[int], encoded: Encoded, update: Update, precision: str
) -> npt.NDArray[np.float32]:
    """Pooled states of conversations, computed in `precision`: shape (conversations, layers, 2, width), float32."""
    backbone.eval()
    width = backbone.config.hidden_size

    def states(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        with autocast(backbone.device, precision):
            return pooled_states(backbone, layers, ids.to(backbone.device), mask.to(backbone.device)).flatten(1)

    columns = len(layers) * len(POOLINGS) * width
    found = over_batches(encoded, backbone.config.pad_token_id, columns, states, update)
    return found.astype(np.float32).reshape(len(encoded), len(layers), len(POOLINGS), width)


def choices(layers: int) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """What is tried, as indices: each layer and each three neighbours, with the last token's state, the mean, or both."""
    runs = [(n,) for n in range(layers)] + [(n, n + 1, n + 2) for n in range(layers - 2)]
    for run in runs:
        for poolings in ((0,), (1,), (0, 1)):
            yield run, poolings


class FittedProbe(NamedTuple):
    """The choice with the least squared error in cross-validation, its weights (outputs, features) and bias, and the best of every choice."""

    choice: Choice
    weights: Floats
    bias: Floats
    tried: list[Choice]


def fit(
    states: npt.NDArray[np.float32], labels: Floats, folds: npt.NDArray[np.int64], layers: Sequence[int]
) -> FittedProbe:
    """A probe on the states of the layers and poolings that cross-validation chooses.

    states: (rows, layers, poolings, width); labels: (rows, outputs), NaN: not rated; folds: a number a row, the same for the responses
    of a prompt; layers: their names. One strength for all outputs: one for each fits the noise of a few hundred ratings.
    """
    rows = _sample(folds)
    kernels: dict[tuple[int, int], Floats] = {}
    for n in range(states.shape[1]):
        for p in range(states.shape[2]):
            part = _standard(states[rows][:, n, p].astype(np.float64)).states
            kernels[n, p] = part @ part.T / part.shape[1]
    tried = []
    for run, poolings in choices(states.shape[1]):
        kernel = sum((kernels[n, p] for n in run for p in poolings), np.zeros((len(rows), len(rows))))
        errors = cross_validated(kernel / (len(run) * len(poolings)), labels[rows], folds[rows])
        best = int(errors.argmin())
        names = tuple(POOLINGS[p] for p in poolings)
        tried.append(Choice(tuple(layers[n] for n in run), names, float(STRENGTHS[best]), float(errors[best])))
    chosen = min(tried, key=lambda c: c.error)
    weights, bias = ridge(read_by(chosen, states, layers), labels, chosen.strength)
    return FittedProbe(chosen, weights, bias, tried)


def read_by(choice: Choice, states: npt.NDArray[np.float32], layers: Sequence[int]) -> Floats:
    """The features of a choice, (rows, features), of the states of all `layers`, (rows, layers, poolings, width)."""
    index = [list(layers).index(layer) for layer in choice.layers]
    pooled = [POOLINGS.index(p) for p in choice.poolings]
    return states[:, index][:, :, pooled].reshape(len(states), -1).astype(np.float64)


def cross_validated(kernel: Floats, labels: Floats, folds: npt.NDArray[np.int64]) -> Floats:
    """Mean squared errors of kernel ridge regression on left-out folds, for each of STRENGTHS. kernel: (rows, rows), labels with NaN."""
    errors, count = np.zeros(len(STRENGTHS)), 0
    for rated, outputs in _patterns(labels):
        for fold in np.unique(folds):
            held, kept = rated & (folds == fold), rated & (folds != fold)
            if not held.any() or not kept.any():
                continue
            values, vectors = np.linalg.eigh(kernel[np.ix_(kept, kept)])
            y = labels[np.ix_(kept, outputs)]
            mean = y.mean(axis=0)
            projected = vectors.T @ (y - mean)
            across = kernel[np.ix_(held, kept)] @ vectors
            truth = labels[np.ix_(held, outputs)] - mean
            for n, strength in enumerate(STRENGTHS):
                predicted = across @ (projected / (np.maximum(values, 0) + strength)[:, None])
                errors[n] += ((predicted - truth) ** 2).sum()
            count += truth.size
    if not count:
        raise ValueError(
            "there are too few ratings to cross-validate a probe: ratings of at least two prompts are needed"
        )
    return errors / count


def ridge(states: Floats, labels: Floats, strength: float) -> tuple[Floats, Floats]:
    """Weights (outputs, features) and bias (outputs,) of ridge regression on standardised states, for states as they are.

    Solved over rows or features, whichever are fewer. An output without labels gets zeros.
    """
    standard = _standard(states)
    features = states.shape[1]
    weights, bias = np.zeros((labels.shape[1], features)), np.zeros(labels.shape[1])
    for rated, outputs in _patterns(labels):
        x, y = standard.states[rated], labels[np.ix_(rated, outputs)]
        mean = y.mean(axis=0)
        if len(x) < features:
            found = x.T @ np.linalg.solve(x @ x.T + strength * features * np.eye(len(x)), y - mean)
        else:
            found = np.linalg.solve(x.T @ x + strength * features * np.eye(features), x.T @ (y - mean))
        weights[outputs] = (found / standard.scale[:, None]).T
        bias[outputs] = mean - weights[outputs] @ standard.centre
    return weights, bias


def _patterns(labels: Floats) -> Iterator[tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]]:
    """Outputs that have the same rows rated, with these rows."""
    patterns, pattern_of = np.unique(np.isfinite(labels), axis=1, return_inverse=True)
    for number, rated in enumerate(patterns.T):
        if rated.any():
            yield rated, np.flatnonzero(pattern_of == number)


class Standard(NamedTuple):
    """States with mean 0 and standard deviation 1, with what was subtracted, and divided by."""

    states: Floats
    centre: Floats
    scale: Floats


def _standard(states: Floats) -> Standard:
    """Standardised states. A constant column becomes 0."""
    centre, scale = states.mean(axis=0), states.std(axis=0)
    scale = np.where(scale > 1e-6, scale, 1.0)
    return Standard((states - centre) / scale, centre, scale)


def _sample(folds: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """At most MOST_ROWS rows, evenly over the data: neighbours, which share a prompt, mostly stay together."""
    if len(folds) <= MOST_ROWS:
        return np.arange(len(folds))
    starts = np.linspace(0, len(folds) - 2, MOST_ROWS // 2).astype(np.int64)
    return np.unique(np.concatenate([starts, starts + 1]))


def fit_probe(
    spec: TrainingSpec,
    folder: Path,
    tokenizer: Any,
    train: Side,
    development: Side,
    place: Path,
    log: Log,
) -> Made:
    """A probe on the frozen states of the base model.

    The rows to train on choose and fit it, the development rows judge that; then the choice is fitted to all of them.
    """
    begun, recipe = time.monotonic(), spec.recipe
    backbone = load_backbone(folder, tokenizer.pad_token_id, recipe.layers)
    layers = candidate_layers(backbone.config.num_hidden_layers)
    examples, held_out = train.examples(recipe), development.examples(recipe)
    rows, held_out_rows = examples.units[:, 0], held_out.units[:, 0]
    encoded = [*train.encoded, *development.encoded]
    say = Progress(log, "conversations read for the probe", len(encoded), lengths=list(map(len, encoded)))
    states = states_of(backbone, layers, encoded, say.update, recipe.precision)
    states, held_out_states = states[: len(train.encoded)][rows], states[len(train.encoded) :]
    fitted = fit(states, examples.targets, train.folds(recipe), layers)
    chosen = fitted.choice
    features = read_by(chosen, held_out_states, layers)
    outputs = features @ fitted.weights.T + fitted.bias
    weights, bias = ridge(
        np.concatenate([read_by(chosen, states, layers), features[held_out_rows]]),
        np.concatenate([examples.targets, held_out.targets]),
        chosen.strength,
    )
    log(
        f"The probe reads the layers {chosen.layers} by {' and '.join(chosen.poolings)}, with strength "
        f"{chosen.strength:g}; its cross-validated error is {chosen.error:.4f}"
    )
    backbone = load_backbone(folder, tokenizer.pad_token_id, max(chosen.layers))
    made = Probe(backbone, chosen.layers, chosen.poolings, recipe.outputs).to(device())
    with torch.no_grad():
        made.score.weight.copy_(torch.tensor(weights))
        made.score.bias.copy_(torch.tensor(bias))
    figures = figures_of(recipe, outputs, held_out)
    loss = figures_of(recipe, features @ weights.T + bias, held_out)["loss"]
    curve = curve_of([{"step": 0, **{f"eval_{n}": v for n, v in figures.items()}}])
    return Made(
        made.save,
        [{"stage": "ratings", **row, "chosen": True} for row in curve],
        [],
        baseline_of(recipe, examples, held_out),
        {
            "steps": 0,
            "train_seconds": round(time.monotonic() - begun, 1),
            "layers": ", ".join(map(str, chosen.layers)),
            "poolings": " and ".join(chosen.poolings),
            "strength": chosen.strength,
            "choices_tried": len(fitted.tried),
        },
        Refitted(outputs, loss),
    )
