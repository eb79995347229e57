"""Reward models: a base model with a linear head, adapters, and how they are saved and loaded. Imported only by workers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, AutoConfig, AutoModelForSequenceClassification

from pipeline.models.weights import read_model
from pipeline.settings import Lora

UNDONE = ("mxfp4", "fp8")
"""Quantisations, by `quant_method`, that transformers undoes while it loads; gpt-oss and Ministral 3 are published in them."""

TEXT_PARTS = {r"^language_model\.model\.": "model.", r"^model\.language_model\.": "model."}
"""How a multimodal model's file calls the weights of its text part, before transformers 4.52 and since, and what they are called alone."""

HEADS = ("score.", "classifier.", "head.", "pooler.")
"""How the weights are called that a base model need not have: those of the layers that are put on it."""

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

    Of a multimodal model it is the part that reads text. Raises ValueError where the model has fewer layers, or can't be trained.
    """
    config = base_config(folder, pad_token_id, layers)
    if type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        raise ValueError(
            f"{folder.name}: transformers has no class for sequence classification with {config.model_type}, so nobody could load the "
            "trained model; take objective: probe, or a base model of another family"
        )
    name_outputs(config, outputs)
    config.problem_type = "regression"
    model = read_model(AutoModelForSequenceClassification, folder, "a base model", HEADS, **reading(config))
    replace_head(model, len(outputs))
    set_head(model, np.zeros((len(outputs), head_of(model).in_features)))
    return plain(model).to(device())


def base_config(folder: Path, pad_token_id: int, layers: int | None = None) -> Any:
    """A base model's configuration, of the part that reads text, with its first `layers` layers alone if given.

    Raises ValueError where it has fewer, or where its weights are quantised in a way that can't be undone.
    """
    whole = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    config = whole.get_text_config()
    if depth := layers and config.num_hidden_layers:
        if layers > depth:
            raise ValueError(f"layers: {layers} are asked for, but {folder.name} has only {depth}")
        for name, values in config.to_dict().items():
            if isinstance(values, list) and len(values) == depth:  # an entry a layer
                setattr(config, name, values[:layers])
        config.num_hidden_layers = layers
    if quantised := getattr(whole, "quantization_config", None):
        if quantised["quant_method"] not in UNDONE:
            raise ValueError(
                f"{folder.name}: its weights are quantised ({quantised['quant_method']}), and can't be trained or read in full; "
                f"take the model's original weights (of quantised ones, {', '.join(UNDONE)} can be taken)"
            )
        config.quantization_config = quantised | {"dequantize": True}
    if getattr(config, "attn_logit_softcapping", None):
        config.attn_logit_softcapping = (
            None  # torch's attention leaves it out, vLLM's doesn't: so that everyone's scores are the same
        )
    config.pad_token_id = pad_token_id
    return config


def reading(config: Any) -> dict[str, Any]:
    """Options of `from_pretrained` for a base model of this configuration: float32, and of a multimodal model the text part's weights."""
    return {
        "config": config,
        "dtype": torch.float32,
        "key_mapping": TEXT_PARTS,
    }


def plain(model: Any) -> Any:
    """The model as if it had been built here: it is saved under its own names, and unquantised, whatever it was read from."""
    model._weight_conversions = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
        model.hf_quantizer, model.is_quantized = None, False
    return model


def head_name(model: Any) -> str:
    """Name of the linear layer that gives a model's outputs: the last one outside its base model (`score`, `classifier`, ...).

    Raises ValueError where there is none.
    """
    names = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and not name.startswith(f"{model.base_model_prefix}.")
        and module.out_features == model.config.num_labels
    ]
    if not names:
        raise ValueError(
            f"{type(model).__name__}: has no linear layer that gives its {model.config.num_labels} outputs"
        )
    return names[-1]


def head_of(model: Any) -> Any:
    """The linear layer that gives a model's outputs."""
    return model.get_submodule(head_name(model))


def replace_head(model: Any, outputs: int) -> Any:
    """Put a head of so many outputs, which computes in float32, in the place of a model's; the old one."""
    name = head_name(model)
    old = model.get_submodule(name)
    new = FullPrecisionHead(old.in_features, outputs, bias=old.bias is not None)
    model.set_submodule(name, new.to(old.weight.device))
    return old


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
    old = replace_head(model, model.config.num_labels)
    head_of(model).load_state_dict(old.state_dict())
    return model.to(device())


def set_head(model: Any, weights: Weights, bias: Weights | None = None) -> None:
    """Give the head its weights: shape (outputs, width). A bias, where the architecture has one, is zero unless given."""
    head = head_of(model)
    with torch.no_grad():
        head.weight.copy_(torch.tensor(weights, dtype=torch.float32))
        if head.bias is not None:
            head.bias.copy_(torch.zeros(len(weights)) if bias is None else torch.tensor(bias))


def keep_outputs(model: Any, rows: npt.ArrayLike, outputs: Sequence[str]) -> None:
    """Replace the head's outputs by sums of them, in place: `rows` holds for each new output the weights of the old ones."""
    mixed = np.asarray(rows, dtype=np.float64)
    old = replace_head(model, len(outputs))
    bias = None if old.bias is None else mixed @ old.bias.detach().double().cpu().numpy()
    name_outputs(model.config, outputs)
    model.num_labels = len(outputs)
    set_head(model, mixed @ old.weight.detach().double().cpu().numpy(), bias)


def with_adapters(model: Any, lora: Lora) -> Any:
    """The model with low-rank adapters on every linear layer of its base model, and on the matrices of all experts.

    What stands on the base model (the head, and what an encoder pools with) is trained whole, and saved with them; routers stay as they
    are. Raises ValueError for dropout before the adapters of experts.
    """
    from peft import LoraConfig, get_peft_model

    inside = f"{model.base_model_prefix}."
    matrices = experts_of(model)
    if matrices and lora.dropout:
        raise ValueError("lora.dropout: adapters on experts take none; set it to 0")
    config = LoraConfig(
        task_type="SEQ_CLS",
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=[
            name for name, m in model.named_modules() if isinstance(m, nn.Linear) and name.startswith(inside)
        ],
        target_parameters=matrices or None,
        modules_to_save=[
            name for name, m in model.named_children() if f"{name}." != inside and any(True for _ in m.parameters())
        ],
    )
    return get_peft_model(model, config)


def experts_of(model: Any) -> list[str]:
    """Names of a mixture's matrices: transformers keeps those of all experts of a layer in one parameter of three dimensions."""
    return [name for name, p in model.named_parameters() if p.ndim == 3 and "experts" in name.split(".")]


def merged(model: Any) -> Any:
    """The model with its adapters, if it has any, added to the weights."""
    return model.merge_and_unload() if hasattr(model, "merge_and_unload") else model
