"""Floating-point operations: what a device reaches, and what a training step takes. Imported only by workers."""

import time
from typing import Any

import numpy as np
import numpy.typing as npt
import torch


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

    6 for every weight that multiplies and token, 4 where it is frozen (no gradient of its own), and 12 layers x width x length for
    attention (PaLM, arXiv 2204.02311, appendix B). What gradient checkpointing computes again is not counted.
    """
    config = model.config
    linear = [m for m in model.modules() if isinstance(m, torch.nn.Linear)]
    per_token = sum((6 if m.weight.requires_grad else 4) * m.weight.numel() for m in linear)
    attention = 12 * config.num_hidden_layers * config.hidden_size
    return lengths * (per_token + attention * lengths.astype(np.float64))
