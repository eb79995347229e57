"""Sizes of models: from a configuration to parameters, operations and memory."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.settings import Checkpoint, Lora


class PlanError(ValueError):
    """Why there is no plan; the message says what to give."""


class Matrix(NamedTuple):
    """A linear map of a layer; of experts, how many there are of it, and how many of them a token is sent to."""

    inputs: int
    outputs: int
    copies: int = 1
    met: int = 1

    @property
    def weights(self) -> int:
        """Of one copy."""
        return self.inputs * self.outputs


@dataclass(frozen=True)
class Shape:
    """What a model's size follows from."""

    kind: str
    """its `model_type`"""
    vocabulary: int
    width: int
    layers: int
    heads: int
    key_value_heads: int
    head_size: int
    matrices: tuple[Matrix, ...]
    """a layer's linear maps, as they are stored"""
    mlp: int
    """width of the MLP, or of all experts that a token is sent to"""
    vectors: int
    """weights of a layer that don't multiply: norms, biases"""
    outside: int
    """weights outside the layers, embeddings of tokens and the head left out"""
    experts: int = 0
    """of a layer, between which a router chooses"""
    pooler: int = 0
    """weights of what an encoder pools states with"""
    tied: bool = False
    """whether its language head is the matrix of embeddings"""

    @classmethod
    def of(cls, config: Mapping[str, Any], where: str) -> "Shape":
        """The shape in a config.json's values, of a multimodal model that of its text part.

        Raises PlanError for another kind of model, or a value that is missing.
        """
        config = config.get("text_config") or config
        kind = config.get("model_type")
        if kind not in KINDS:
            raise PlanError(f"{where}: models of type {kind!r} can't be planned; types that can are {', '.join(KINDS)}")
        config = {**DEFAULTS.get(kind, {}), **config}
        try:
            h, heads, f = config["hidden_size"], config["num_attention_heads"], config["intermediate_size"]
            vocabulary, layers = config["vocab_size"], config["num_hidden_layers"]
            experts = config["num_experts" if kind == "qwen3_moe" else "num_local_experts"] if kind in MIXTURES else 0
            met = config["num_experts_per_tok"] if experts else 1
            f = config["moe_intermediate_size"] if kind == "qwen3_moe" else f
            rows = 2 * config["position_buckets"] + config["type_vocab_size"] if kind == "deberta-v2" else 0
        except KeyError as missing:
            raise PlanError(f"{where}: has no field {missing.args[0]}") from None
        if config.get("mlp_only_layers") or config.get("decoder_sparse_step", 1) != 1:
            raise PlanError(
                f"{where}: only some of its layers have experts (decoder_sparse_step, mlp_only_layers), which can't be planned"
            )
        groups, size = config.get("num_key_value_heads") or heads, config.get("head_dim") or h // heads
        q, k = heads * size, groups * size
        attention = (
            (Matrix(h, q + 2 * k),) if kind in ("phi3", "modernbert") else (Matrix(h, q), Matrix(h, k), Matrix(h, k))
        )
        up = 1 if kind == "deberta-v2" else 2
        fused = bool(experts) or kind in ("phi3", "modernbert")
        widen = (Matrix(h, up * f),) if fused else (Matrix(h, f),) * up
        mlp = tuple(m._replace(copies=experts or 1, met=met) for m in (*widen, Matrix(f, h)))
        norms = h * (4 if kind in ("gemma2", "gemma3_text", "deberta-v2") else 1 if kind == "cohere2" else 2)
        if kind in ("qwen3", "qwen3_moe", "gemma3_text"):
            norms += 2 * size
        elif kind == "olmo2":
            norms += q + k
        biases = 0
        if kind == "qwen2":
            biases += q + 2 * k
        elif config.get("attention_bias"):
            biases += q + 2 * k + h
        if config.get("mlp_bias"):
            biases += up * f + h
        if kind == "gpt_oss":
            biases += (
                experts * (1 + up * f + h) + heads
            )  # of router and experts; what attention may look at instead of a token
        outside, pooler = h, 0
        if (
            kind == "modernbert"
        ):  # a norm of embeddings, but none before the first layer's attention; dense map and norm before the head
            pooler = h * h + h
        elif kind == "deberta-v2":
            convolution = config["conv_kernel_size"] * h * h + 3 * h if config["conv_kernel_size"] else 0
            outside = 2 * h * (2 if config["norm_rel_ebd"] == "layer_norm" else 1) + rows * h + convolution
            pooler = h * h + h
        return cls(kind, vocabulary, h, layers, heads, groups, size, (*attention, Matrix(q, h), *mlp), f * met, norms + biases, outside,
                   experts, pooler, bool(config.get("tie_word_embeddings")))  # fmt: skip

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
        return self._layer + self.vectors

    @property
    def _layer(self) -> int:
        return sum(m.copies * m.weights for m in self.matrices) + self.experts * self.width

    def head(self, outputs: int) -> int:
        """Parameters on the base model, which are trained whole: a head, of an encoder with a bias, and what it pools with."""
        return outputs * (self.width + bool(self.pooler)) + self.pooler

    def parameters(self, outputs: int) -> int:
        """Parameters of the reward model: embeddings, layers, what is outside them, and the head; no language head."""
        return self.vocabulary * self.width + self.layers * self.layer + self.outside + self.head(outputs)

    def multiplying(self, outputs: int) -> int:
        """Weights that multiply: those of the layers' linear maps and routers, and the head's."""
        return self.layers * self._layer + outputs * self.width

    def met(self, outputs: int) -> int:
        """Weights that multiply and that a token meets: of experts, those that it is sent to."""
        layer = sum(m.met * m.weights for m in self.matrices) + self.experts * self.width
        return self.layers * layer + outputs * self.width

    def adapters(self, lora: Lora) -> int:
        """Parameters of adapters on every linear map of the layers, and on every expert."""
        return self.layers * lora.rank * sum(m.copies * (m.inputs + m.outputs) for m in self.matrices)

    def met_adapters(self, lora: Lora) -> int:
        """Parameters of adapters that a token meets."""
        return self.layers * lora.rank * sum(m.met * (m.inputs + m.outputs) for m in self.matrices)

    def kept(self, precision: str) -> int:
        """Bytes that a token and layer keep for the backward pass; see the module's description."""
        h, f, q, k = self.width, self.mlp, self.attention, self.keys
        if precision == "float32":
            return 24 * h + 16 * f + 8 * (q + k) + 4 * self.heads + 8
        return 26 * h + 8 * f + 4 * (q + k + self.heads) + 8


MIXTURES = ("mixtral", "qwen3_moe", "gpt_oss")
PROBED = ("granite", "cohere2")
"""Kinds that transformers has no class for sequence classification of: nobody could load a trained one."""
KINDS = (
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma2",
    "gemma3_text",
    "phi3",
    "olmo2",
    "smollm3",
    "modernbert",
    "deberta-v2",
    *MIXTURES,
    *PROBED,
)
"""Values of `model_type` whose shape is understood."""
DEFAULTS: dict[str, dict[str, Any]] = {
    "cohere2": {"tie_word_embeddings": True},
    "gemma2": {"head_dim": 256, "tie_word_embeddings": True},
    "gemma3_text": {
        "vocab_size": 262_208,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "tie_word_embeddings": True,
    },
    "smollm3": {"tie_word_embeddings": True},
    "qwen3": {"head_dim": 128},
    "deberta-v2": {
        "attention_bias": True,
        "mlp_bias": True,
        "norm_rel_ebd": "none",
        "type_vocab_size": 0,
        "conv_kernel_size": 0,
    },
    "gpt_oss": {"attention_bias": True, "head_dim": 64},
}
"""What a config.json may leave out because it is the default of transformers' class, or always so (DeBERTa's biases)."""


def _config(
    kind: str, width: int, mlp: int, layers: int, heads: int, groups: int, vocabulary: int, **more: Any
) -> dict[str, Any]:
    return {
        "model_type": kind,
        "hidden_size": width,
        "intermediate_size": mlp,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "vocab_size": vocabulary,
        **more,
    }


_EIGHT, _TIED = {"num_local_experts": 8, "num_experts_per_tok": 2}, {"tie_word_embeddings": True}
CONFIGS: dict[str, dict[str, Any]] = {
    "meta-llama/Meta-Llama-3-70B": _config("llama", 8192, 28672, 80, 64, 8, 128256),
    "meta-llama/Llama-3.1-70B-Instruct": _config("llama", 8192, 28672, 80, 64, 8, 128256),
    "Qwen/Qwen2.5-7B-Instruct": _config("qwen2", 3584, 18944, 28, 28, 4, 152064),
    "Qwen/Qwen2.5-32B-Instruct": _config("qwen2", 5120, 27648, 64, 40, 8, 152064),
    "mistralai/Mistral-Small-24B-Instruct-2501": _config("mistral", 5120, 32768, 40, 32, 8, 131072, head_dim=128),
    "mistralai/Mixtral-8x7B-Instruct-v0.1": _config("mixtral", 4096, 14336, 32, 32, 8, 32000, **_EIGHT),
    "mistralai/Mixtral-8x22B-Instruct-v0.1": _config("mixtral", 6144, 16384, 56, 48, 8, 32768, **_EIGHT),
    "microsoft/phi-4": _config("phi3", 5120, 17920, 40, 40, 10, 100352),
    "allenai/OLMo-2-1124-13B-Instruct": _config("olmo2", 5120, 13824, 40, 40, 40, 100352),
    "ibm-granite/granite-3.1-8b-instruct": _config("granite", 4096, 12800, 40, 32, 8, 49155, **_TIED),
    "HuggingFaceTB/SmolLM2-1.7B-Instruct": _config("llama", 2048, 8192, 24, 32, 32, 49152, **_TIED),
    "SmolLM2-135M-Instruct": _config("llama", 576, 1536, 30, 9, 3, 49152, **_TIED),
    "gemma-3-270m-q4_k_m": _config("gemma3_text", 640, 2048, 18, 4, 1, 262144, head_dim=256),
}
"""Shapes of the profiles' models with weights, where their config.json isn't here: values of that file on the Hugging Face hub
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
