"""Base models of the families that a recipe may start from: tiny ones with random weights, of the classes and the token layouts of real ones."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from transformers import AutoConfig

from tests.models.families import LAYOUTS, Layout, tokenizer_of

WIDTHS = {
    "hidden_size": 64,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "initializer_range": 0.2,
}
GROUPED = WIDTHS | {"num_key_value_heads": 1, "head_dim": 32}
EXPERTS = GROUPED | {"num_local_experts": 4, "num_experts_per_tok": 2}
SEES = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
ENCODER = Layout(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"), (), "", "", "[SEP]", pad="[PAD]")
"""Of an encoder, which nobody chats with: a recipe takes a named template."""


class Base(NamedTuple):
    """A family: its layout of tokens, the class of its published models, that model's type, and the configuration of a tiny one."""

    layout: Layout
    made: str
    kind: str
    config: dict[str, Any]
    template: str = "tokenizer"
    text: dict[str, Any] | None = None
    """of a multimodal model the configuration of its text part; `config` is that of the whole"""


def _encoder(made: str, kind: str, **config: Any) -> Base:
    return Base(ENCODER, made, kind, WIDTHS | config, template="helpsteer")


FAMILIES = {
    "Llama 3": Base(LAYOUTS["llama_3"], "LlamaForCausalLM", "llama", GROUPED),
    "Qwen 2.5": Base(LAYOUTS["qwen_2_5"], "Qwen2ForCausalLM", "qwen2", GROUPED),
    "Qwen 3": Base(LAYOUTS["qwen_3"], "Qwen3ForCausalLM", "qwen3", GROUPED),
    "Qwen 3 MoE": Base(
        LAYOUTS["qwen_3"],
        "Qwen3MoeForCausalLM",
        "qwen3_moe",
        GROUPED | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    ),
    "Gemma 2": Base(LAYOUTS["gemma_2"], "Gemma2ForCausalLM", "gemma2", GROUPED | {"sliding_window": 16}),
    "Gemma 3": Base(LAYOUTS["gemma_3"], "Gemma3ForCausalLM", "gemma3_text", GROUPED | {"sliding_window": 16}),
    "Gemma 3, multimodal": Base(
        LAYOUTS["gemma_3"],
        "Gemma3ForConditionalGeneration",
        "gemma3",
        {
            "vision_config": SEES,
            "mm_tokens_per_image": 4,
            "image_token_index": 7,
            "boi_token_index": 8,
            "eoi_token_index": 9,
        },
        text=GROUPED | {"sliding_window": 16},
    ),
    "Mistral": Base(LAYOUTS["mistral_v3"], "MistralForCausalLM", "mistral", GROUPED),
    "Mistral 3, multimodal": Base(
        LAYOUTS["mistral_v7"],
        "Mistral3ForConditionalGeneration",
        "mistral3",
        {"vision_config": SEES | {"model_type": "pixtral"}, "image_token_index": 7},
        text=GROUPED | {"model_type": "mistral"},
    ),
    "Mixtral": Base(LAYOUTS["mistral_v3"], "MixtralForCausalLM", "mixtral", EXPERTS),
    "Phi 3": Base(LAYOUTS["phi_3"], "Phi3ForCausalLM", "phi3", GROUPED),
    "Phi 4": Base(LAYOUTS["phi_4"], "Phi3ForCausalLM", "phi3", GROUPED),
    "OLMo 2": Base(LAYOUTS["olmo_2"], "Olmo2ForCausalLM", "olmo2", GROUPED),
    "SmolLM 3": Base(LAYOUTS["smollm_3"], "SmolLM3ForCausalLM", "smollm3", GROUPED),
    "gpt-oss": Base(LAYOUTS["gpt_oss"], "GptOssForCausalLM", "gpt_oss", EXPERTS | {"sliding_window": 16}),
    "Granite": Base(LAYOUTS["granite_3_1"], "GraniteForCausalLM", "granite", GROUPED),
    "Cohere 2": Base(LAYOUTS["command_r"], "Cohere2ForCausalLM", "cohere2", GROUPED | {"sliding_window": 16}),
    "ModernBERT": _encoder("ModernBertForMaskedLM", "modernbert", local_attention=16),
    "DeBERTa 3": _encoder(
        "DebertaV2ForMaskedLM",
        "deberta-v2",
        relative_attention=True,
        pos_att_type=["p2c", "c2p"],
        share_att_key=True,
        position_buckets=16,
        position_biased_input=False,
        norm_rel_ebd="layer_norm",
        type_vocab_size=0,
    ),
}


def save_base(family: str, folder: Path) -> Path:
    """A base model of a family, with random weights, as a folder."""
    base = FAMILIES[family]
    tokenizer = tokenizer_of(base.layout)
    ids = {"vocab_size": len(tokenizer)} | {
        f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad", "cls", "sep")
    }
    config = {"text_config": base.text | ids} | base.config if base.text else base.config | ids
    torch.manual_seed(0)
    whole = AutoConfig.for_model(base.kind, **config)
    getattr(transformers, base.made)(whole).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
