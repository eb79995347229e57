"""Reward models: a base model with a linear head, adapters, and how they are saved and loaded. Imported only by workers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification

from pipeline.models.weights import read_model
from pipeline.settings import Lora

Weights = npt.NDArray[np.float64]


class FullPrecisionHead(nn.Linear):
    """A linear head that computes in float32 under autocast too: scores that differ by less than a bfloat16 step stay apart."""

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Outputs of hidden states."""
        with torch.autocast(states.device.type, enabled=False):
            return nn.functional.linear(
                states.float(), self.weight.float(), None if self.bias is None else self.bias.float()
            )


def device() -> str:
    """Where models run: this process' accelerator, or the CPU."""
    return f"cuda:{torch.cuda.current_device()}" if torch.cuda.is_available() else "cpu"


def new_model(folder: Path, pad_token_id: int, outputs: Sequence[str], layers: int | None = None) -> Any:
    """The base model in float32, of its first `layers` layers if given, with a head of the named outputs at zero.

    Raises ValueError where the model has fewer layers.
    """
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    if layers:
        if layers > config.num_hidden_layers:
            raise ValueError(f"layers: {layers} are asked for, but {folder.name} has only {config.num_hidden_layers}")
        config.num_hidden_layers = layers
        if getattr(config, "layer_types", None):
            config.layer_types = config.layer_types[:layers]
    name_outputs(config, outputs)
    config.problem_type, config.pad_token_id = "regression", pad_token_id
    kind = AutoModelForSequenceClassification
    model = read_model(kind, folder, "a base model", ("score.",), config=config, dtype=torch.float32)
    model.score = FullPrecisionHead(model.score.in_features, len(outputs), bias=model.score.bias is not None)
    set_head(model, np.zeros((len(outputs), model.score.in_features)))
    return model.to(device())


def name_outputs(config: Any, outputs: Sequence[str]) -> None:
    """Write the outputs' names, and so their number, into a model's configuration."""
    config.id2label = dict(enumerate(outputs))
    config.label2id = {name: n for n, name in enumerate(outputs)}


def outputs_of(config: Any) -> tuple[str, ...]:
    """Names of a model's outputs."""
    return tuple(config.id2label[n] for n in range(config.num_labels))


def load_model(folder: Path, precision: str = "float32") -> Any:
    """A trained model in a precision, with the weights that anyone loads. Raises ValueError where the folder has none, or no head."""
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder}: holds no model, for it has no config.json")
    model = read_model(AutoModelForSequenceClassification, folder, "a reward model", dtype=getattr(torch, precision))
    if isinstance(getattr(model, "score", None), nn.Linear):  # of another architecture the head stays as it is
        head = FullPrecisionHead(model.score.in_features, model.score.out_features, bias=model.score.bias is not None)
        head.load_state_dict(model.score.state_dict())
        model.score = head
    return model.to(device())


def set_head(model: Any, weights: Weights, bias: Weights | None = None) -> None:
    """Give the head its weights: shape (outputs, width). A bias, where the architecture has one, is zero unless given."""
    with torch.no_grad():
        model.score.weight.copy_(torch.tensor(weights, dtype=torch.float32))
        if model.score.bias is not None:
            model.score.bias.copy_(torch.zeros(len(weights)) if bias is None else torch.tensor(bias))


def keep_outputs(model: Any, rows: npt.ArrayLike, outputs: Sequence[str]) -> None:
    """Replace the head's outputs by sums of them, in place: `rows` holds for each new output the weights of the old ones."""
    mixed = np.asarray(rows, dtype=np.float64)
    old = model.score
    bias = None if old.bias is None else mixed @ old.bias.detach().double().cpu().numpy()
    weights = mixed @ old.weight.detach().double().cpu().numpy()
    model.score = FullPrecisionHead(old.in_features, len(outputs), bias=old.bias is not None).to(old.weight.device)
    name_outputs(model.config, outputs)
    model.num_labels = len(outputs)
    set_head(model, weights, bias)


def with_adapters(model: Any, lora: Lora) -> Any:
    """The model with low-rank adapters on every linear layer but the head, which is trained whole, and saved with them."""
    from peft import LoraConfig, get_peft_model

    linear = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    config = LoraConfig(
        task_type="SEQ_CLS",
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=sorted(name for name in linear if name != "score"),
        modules_to_save=["score"],
    )
    return get_peft_model(model, config)


def merged(model: Any) -> Any:
    """The model with its adapters, if it has any, added to the weights."""
    return model.merge_and_unload() if hasattr(model, "merge_and_unload") else model


def backbone_of(model: Any) -> Any:
    """The part of a model that gives hidden states."""
    return model.get_decoder() if hasattr(model, "get_decoder") else model.base_model
