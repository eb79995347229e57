"""Figures of a training: losses, errors, correlations, and the rows of its curve and steps."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from pipeline.reward_model.examples import Examples, Targets
from pipeline.reward_model.objectives import preference_losses
from pipeline.settings import Recipe
from pipeline.vocabulary import ATTRIBUTES


def rating_figures(predictions: Targets, labels: Targets, attributes: Sequence[str] = ATTRIBUTES) -> dict[str, float]:
    """Masked loss, and error and Pearson correlation of each attribute (NaN where there is no variance)."""
    figures = {"loss": float(np.nanmean((predictions - labels) ** 2))}
    for n, attribute in enumerate(attributes):
        rated = np.isfinite(labels[:, n])
        p, y = predictions[rated, n], labels[rated, n]
        varied = len(y) > 1 and p.std() > 0 and y.std() > 0
        figures[f"{attribute}_mse"] = float(np.mean((p - y) ** 2)) if len(y) else float("nan")
        figures[f"{attribute}_pearson"] = float(np.corrcoef(p, y)[0, 1]) if varied else float("nan")
    return figures


def figures_of(recipe: Recipe, outputs: Targets, examples: Examples) -> dict[str, float]:
    """Loss and metrics of a model's outputs for examples: `loss`, `pair_accuracy` (of the first output; a tie loses), and of each attribute."""
    if recipe.pairs:
        strength = torch.tensor(examples.targets[:, 0])
        chosen, rejected = (torch.tensor(outputs[examples.units[:, n], 0]) for n in (0, 1))
        figures = {"loss": float(preference_losses(recipe.objective, chosen, rejected, strength).mean())}  # type: ignore[arg-type]
    else:
        figures = rating_figures(outputs[examples.units[:, 0]], examples.targets, recipe.attributes)
    better, worse = outputs[examples.pairs].T[0] if len(examples.pairs) else np.empty((2, 0))
    figures["pair_accuracy"] = float((better > worse).mean()) if len(better) else float("nan")
    return figures


def baseline_of(recipe: Recipe, train: Examples, development: Examples) -> dict[str, float]:
    """Figures of knowing nothing of a response: each attribute's mean among the training labels; for preferences, equal rewards."""
    if recipe.pairs:
        outputs = np.zeros((len(development.encoded), 1))
    else:
        outputs = np.broadcast_to(np.nanmean(train.targets, axis=0), (len(development.encoded), len(recipe.attributes)))
    return figures_of(recipe, outputs, development)


def curve_of(history: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of CURVE from the trainer's log: an evaluation each, with the mean training loss since the one before."""
    curve: list[dict[str, Any]] = []
    losses: list[float] = []
    for entry in history:
        if "loss" in entry:
            losses.append(entry["loss"])
        elif "eval_loss" in entry and not any(row["step"] == entry["step"] for row in curve):
            figures = {name.removeprefix("eval_"): value for name, value in entry.items() if name.startswith("eval_")}
            row = {"step": entry["step"], "train_loss": float(np.mean(losses)) if losses else None}
            row |= {"development_loss": figures["loss"], "pair_accuracy": figures["pair_accuracy"]}
            row |= {f"{a}_{f}": figures.get(f"{a}_{f}") for a in ATTRIBUTES for f in ("mse", "pearson")}
            curve.append(row)
            losses = []
    return curve


STEP_FIGURES = ("loss", "learning_rate", "grad_norm", "tokens", "flops")
SPEED = ("tokens_per_second", "share_of_peak")


def steps_of(history: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Optimiser steps of the trainer's log: a row each, with the columns of STEPS, and with its speed."""
    return [{"step": e["step"], **{name: e[name] for name in (*STEP_FIGURES, *SPEED)}} for e in history if "loss" in e]
