"""Losses of reward models, as sums: the caller divides by the weight of all that a step sees. Imported only by workers."""

from importlib import import_module

import torch
from torch.nn.functional import logsigmoid

from pipeline.settings import PairObjective


def masked_squares(predictions: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Sum of mask * (prediction - label)^2; shapes (rows, attributes), NaN: not rated.

    Divided by the number of labels that are not NaN it is NeMo-Aligner's regression loss (HelpSteer2, section 3).
    """
    mask = ~torch.isnan(labels)
    return torch.where(mask, predictions - torch.nan_to_num(labels), 0.0).square().sum()


def masked_mse(predictions: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """`masked_squares` over the number of labels; 0 where there is none."""
    return masked_squares(predictions, labels) / (~torch.isnan(labels)).sum().clamp(min=1)


def preference_losses(
    objective: PairObjective, chosen: torch.Tensor, rejected: torch.Tensor, strength: torch.Tensor
) -> torch.Tensor:
    """Losses of preferences; rewards and strengths m > 0 of shape (pairs,).

    With d = chosen - rejected: bradley_terry -log s(d), margin_bt -log s(d - m), scaled_bt -m log s(d)
    (HelpSteer2-Preference, arXiv 2410.01257, section 3). Any other is the function `losses` of the module `objective_NAME` beside this one.
    """
    difference = chosen - rejected
    match objective:
        case "bradley_terry":
            return -logsigmoid(difference)
        case "margin_bt":
            return -logsigmoid(difference - strength)
        case "scaled_bt":
            return -strength * logsigmoid(difference)
        case own:
            return import_module(f"pipeline.reward_model.objective_{own}").losses(chosen, rejected, strength)
