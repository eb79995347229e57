"""Scores of conversations under a trained reward model. Imported only by workers."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import distributed

from pipeline.models.batching import TOKENS_A_BATCH, batches
from pipeline.models.classifier import head_of

Encoded = Sequence[Sequence[int]]
Floats = npt.NDArray[np.float64]
Update = Callable[[int], None]
"""Is told how many conversations are done; the longest come first."""


def pad(rows: Encoded, padding: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of token ids as a rectangle, padded on the right, and its attention mask."""
    longest = max(map(len, rows))
    ids = torch.full((len(rows), longest), padding, dtype=torch.long)
    mask = torch.zeros((len(rows), longest), dtype=torch.long)
    for n, row in enumerate(rows):
        ids[n, : len(row)] = torch.tensor(row)
        mask[n, : len(row)] = 1
    return ids, mask


def autocast(on: torch.device, precision: str, shared: bool = False) -> torch.autocast:
    """Context in which a model of float32 weights multiplies in a recipe's precision. shared: its weights are sharded."""
    # autocast's cache would hold a copy of every weight: sharded weights are not to be whole all at once
    return torch.autocast(on.type, dtype=torch.bfloat16, enabled=precision == "bfloat16", cache_enabled=not shared)


def score(
    model: Any,
    encoded: Encoded,
    update: Update | None = None,
    tokens: int = TOKENS_A_BATCH,
    shared: bool = False,
    precision: str = "float32",
) -> Floats:
    """The model's outputs for encoded conversations, in order: shape (conversations, outputs).

    In float32, independent of batches and padding, to rounding. shared: the processes of a training, which all call this with the same
    conversations, each compute a part.
    """
    model.eval()

    def outputs(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        with autocast(model.device, precision, shared):
            logits: torch.Tensor = model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device)).logits
            return logits

    return over_batches(
        encoded, model.config.get_text_config().pad_token_id, model.config.num_labels, outputs, update, tokens, shared
    )


def last_states(model: Any, encoded: Encoded, update: Update | None, precision: str, shared: bool = False) -> Floats:
    """What the head reads of each conversation: the last layer's state at its last token, or what an encoder pools.

    Shape (conversations, width).
    """
    model.eval()
    head, read = head_of(model), list[torch.Tensor]()

    def states(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        with autocast(model.device, precision, shared):
            model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device))
        hidden = read.pop()
        return hidden if hidden.ndim == 2 else hidden[torch.arange(len(ids)), mask.sum(dim=1) - 1]

    handle = head.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    try:
        return over_batches(
            encoded, model.config.pad_token_id, head.in_features, states, update, TOKENS_A_BATCH, shared
        )
    finally:
        handle.remove()


@torch.no_grad()
def over_batches(
    encoded: Encoded,
    padding: int,
    width: int,
    compute: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    update: Update | None = None,
    tokens: int = TOKENS_A_BATCH,
    shared: bool = False,
) -> Floats:
    """What `compute` gives for token ids and attention mask of batches (shape (batch, width)), in the order of the conversations.

    shared: each process computes every so manieth batch. A process that has none left computes its last one again: sharded models
    need all processes at every pass.
    """
    rank, processes = (distributed.get_rank(), distributed.get_world_size()) if shared else (0, 1)
    found, done = np.full((len(encoded), width), np.nan), 0
    planned = list(batches([len(row) for row in encoded], tokens))
    for start in range(0, len(planned), processes):
        rows = planned[min(start + rank, len(planned) - 1)]
        ids, mask = pad([encoded[row] for row in rows], padding)
        part = compute(ids, mask).float().cpu().numpy()
        parts = [(rows, part)]
        if processes > 1:
            parts = [(rows, part)] * processes
            distributed.all_gather_object(parts, (rows, part))
        for its_rows, values in parts:
            found[its_rows] = values
        done += sum(len(its_rows) for its_rows, _ in parts)
        if update:
            update(min(done, len(encoded)))
    return found
