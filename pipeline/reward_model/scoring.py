"""Scores of conversations under a trained reward model. Imported only by workers."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

TOKENS_A_BATCH = 4096


def batches(lengths: Sequence[int], tokens: int = TOKENS_A_BATCH) -> Iterator[npt.NDArray[np.int64]]:
    """Rows in batches of like length, each at most `tokens` tokens with its padding (or one row); the longest first."""
    order = np.argsort(np.asarray(lengths), kind="stable")[::-1]
    start = 0
    while start < len(order):
        size = max(1, tokens // int(lengths[order[start]]))
        yield order[start : start + size]
        start += size


def pad(rows: Sequence[Sequence[int]], padding: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of token ids as a rectangle, padded on the right, and its attention mask."""
    longest = max(map(len, rows))
    ids = torch.full((len(rows), longest), padding, dtype=torch.long)
    mask = torch.zeros((len(rows), longest), dtype=torch.long)
    for n, row in enumerate(rows):
        ids[n, : len(row)] = torch.tensor(row)
        mask[n, : len(row)] = 1
    return ids, mask


@torch.no_grad()
def score(model: Any, encoded: Sequence[Sequence[int]], update: Callable[[int], None]) -> npt.NDArray[np.float64]:
    """The model's outputs for encoded conversations, in order: shape (conversations, outputs). Calls `update` with the number done.

    Independent of batches and padding, to rounding: computed in the precision of the model's weights.
    """
    model.eval()
    scores = np.full((len(encoded), model.config.num_labels), np.nan)
    done = 0
    for rows in batches([len(row) for row in encoded]):
        ids, mask = pad([encoded[row] for row in rows], model.config.pad_token_id)
        outputs = model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device))
        scores[rows] = outputs.logits.float().cpu().numpy()
        done += len(rows)
        update(done)
    return scores
