"""Floating-point operations: what a device reaches, and what a training step takes. Imported only by workers."""

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn


def matmul_rate(dtype: torch.dtype, seconds: float = 0.5) -> float:
    """Floating-point operations a second that this process' device reaches in multiplying two square matrices of 2,048."""
    on = "cuda" if torch.cuda.is_available() else "cpu"
    left, right = (torch.randn(2048, 2048, device=on).to(dtype) for _ in range(2))
    wait = torch.cuda.synchronize if on == "cuda" else lambda: None
    for _ in range(2):
        left @ right
    wait()
    count, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        left @ right
        wait()
        count += 1
    return 2 * 2048**3 * count / (time.perf_counter() - begun)


def training_flops(model: Any, lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Floating-point operations of a training step's forward and backward pass for conversations of these lengths.

    6 for every weight that multiplies and token, 4 where it is frozen (no gradient of its own), and 12 layers x width of queries x length
    for attention (PaLM, arXiv 2204.02311, appendix B). Of a mixture's experts those count that a token is sent to. What gradient
    checkpointing computes again is not counted.
    """
    config = model.config.get_text_config()
    per_token = sum((6 if w.requires_grad else 4) * w.numel() * share for w, share in multiplying(model))
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    attention = 12 * config.num_hidden_layers * config.num_attention_heads * size
    return lengths * (per_token + attention * lengths.astype(np.float64))


def multiplying(model: Any) -> Iterator[tuple[torch.Tensor, float]]:
    """A model's weights that multiply, each with the share of it that a token meets.

    They are all of two dimensions or more but embeddings, which are looked up. Of experts, and of their adapters, a token meets as many
    as it is sent to: `num_experts_per_tok` of all.
    """
    config = model.config.get_text_config()
    experts = getattr(config, "num_local_experts", None) or getattr(config, "num_experts", None)
    sent = config.num_experts_per_tok / experts if experts else 1.0
    for module_name, module in model.named_modules():
        for name, weight in module.named_parameters(recurse=False):
            if weight.ndim > 1 and not isinstance(module, nn.Embedding) and not name.endswith("bias"):
                yield weight, sent if "experts" in module_name.split(".") else 1.0
