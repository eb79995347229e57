"""Sizes of models: from a configuration to parameters, operations and memory."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.settings import Checkpoint, Lora


class PlanError(ValueError):
    """Why there is no plan; the message says what to give."""


@dataclass(frozen=True)
class Shape:
    """What a model's size follows from: a decoder of Llama's kind (gated MLP, grouped queries, two norms a layer)."""

    vocabulary: int
    width: int
    mlp: int
    layers: int
    heads: int
    key_value_heads: int
    head_size: int
    biases: int = 0
    """of a layer"""
    head_norms: int = 0
    """weights of a layer's norms of queries and keys"""

    @classmethod
    def of(cls, config: Mapping[str, Any], where: str) -> "Shape":
        """The shape in a config.json's values. Raises PlanError for another kind of model, or a value that is missing."""
        kind = config.get("model_type")
        if kind not in KINDS:
            raise PlanError(f"{where}: models of type {kind!r} can't be planned; types that can are {', '.join(KINDS)}")
        try:
            width, heads, mlp = config["hidden_size"], config["num_attention_heads"], config["intermediate_size"]
            vocabulary, layers = config["vocab_size"], config["num_hidden_layers"]
        except KeyError as missing:
            raise PlanError(f"{where}: has no field {missing.args[0]}") from None
        groups, size = config.get("num_key_value_heads") or heads, config.get("head_dim") or width // heads
        biases = size * (heads + 2 * groups) if kind == "qwen2" or config.get("attention_bias") else 0
        if kind != "qwen2" and config.get("attention_bias"):
            biases += width
        if kind == "llama" and config.get("mlp_bias"):
            biases += 2 * mlp + width
        norms = 2 * size if kind == "qwen3" else 0
        return cls(vocabulary, width, mlp, layers, heads, groups, size, biases, norms)

    @property
    def matrices(self) -> tuple[tuple[int, int], ...]:
        """Inputs and outputs of a layer's linear maps: queries, keys, values, attention's output, gate, up, down."""
        h, q, k, f = self.width, self.attention, self.keys, self.mlp
        return ((h, q), (h, k), (h, k), (q, h), (h, f), (h, f), (f, h))

    @property
    def attention(self) -> int:
        """Width of queries."""
        return self.heads * self.head_size

    @property
    def keys(self) -> int:
        """Width of keys, and of values."""
        return self.key_value_heads * self.head_size

    @property
    def layer(self) -> int:
        """Parameters of a layer."""
        return sum(a * b for a, b in self.matrices) + self.biases + self.head_norms + 2 * self.width

    def parameters(self, outputs: int) -> int:
        """Parameters of the reward model: embeddings, layers, last norm, and a head without bias; no language head."""
        return self.vocabulary * self.width + self.layers * self.layer + self.width + outputs * self.width

    def multiplying(self, outputs: int) -> int:
        """Weights that multiply: those of the layers' linear maps, and the head's."""
        return self.layers * sum(a * b for a, b in self.matrices) + outputs * self.width

    def adapters(self, lora: Lora) -> int:
        """Parameters of adapters on every linear map but the head."""
        return self.layers * lora.rank * sum(a + b for a, b in self.matrices)

    def kept(self, precision: str) -> int:
        """Bytes that a token and layer keep for the backward pass; see the module's description."""
        h, f, q, k = self.width, self.mlp, self.attention, self.keys
        if precision == "float32":
            return 24 * h + 16 * f + 8 * (q + k) + 4 * self.heads + 8
        return 26 * h + 8 * f + 4 * (q + k + self.heads) + 8


KINDS = ("llama", "mistral", "qwen2", "qwen3")
"""Values of `model_type` whose shape is understood."""


def _llama(width: int, mlp: int, layers: int, heads: int, groups: int, vocabulary: int) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "hidden_size": width,
        "intermediate_size": mlp,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "vocab_size": vocabulary,
    }


CONFIGS: dict[str, dict[str, Any]] = {
    "meta-llama/Meta-Llama-3-70B": _llama(8192, 28672, 80, 64, 8, 128256),
    "meta-llama/Llama-3.1-70B-Instruct": _llama(8192, 28672, 80, 64, 8, 128256),
    "Qwen/Qwen2.5-7B-Instruct": _llama(3584, 18944, 28, 28, 4, 152064) | {"model_type": "qwen2"},
    "SmolLM2-135M-Instruct": _llama(576, 1536, 30, 9, 3, 49152),
}
"""Shapes of the models that the profiles' recipes start from, where their config.json isn't here: values of that file on the Hugging Face hub
(Llama 3: also table 3 of arXiv 2407.21783), by hub id, or the name of a GGUF file up to its first dot."""


def shape_of(checkpoint: Checkpoint, name: str) -> Shape:
    """A checkpoint's shape: from its config.json where it lies here (a folder, or the hub's cache), else from CONFIGS.

    Raises PlanError, naming what to do, where neither knows it.
    """
    from huggingface_hub import try_to_load_from_cache

    local = Path(checkpoint.folder).expanduser() / "config.json" if checkpoint.folder else None
    if local and not local.is_file():
        raise PlanError(f"checkpoint {name}: there is no file {local}")
    if checkpoint.hub:
        cached = try_to_load_from_cache(checkpoint.hub, "config.json", revision=checkpoint.revision)
        local = Path(cached) if isinstance(cached, str) else None
    if local:
        return Shape.of(json.loads(local.read_text()), str(local))
    known = checkpoint.hub or (checkpoint.gguf[0].rsplit("/", 1)[-1].split(".")[0] if checkpoint.gguf else "")
    if known not in CONFIGS:
        raise PlanError(
            f"checkpoint {name}: no config.json of {known or 'a model with weights'} is here, and its shape isn't known (known are "
            f"{', '.join(CONFIGS)}). Download the file (`hf download {known or 'ID'} config.json`), or name a `folder` that has it"
        )
    return Shape.of(CONFIGS[known], known)
