"""Responses that are sampled from a policy in this process, where an engine would have to be given its weights at every step.

Imported only by workers.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from pipeline.alignment.encoding import Example
from pipeline.models.batching import batches
from pipeline.models.scoring import autocast

TOKENS_AT_ONCE = 32768
"""Tokens, of prompts and responses with their padding, that are held at once: without gradients, so many more than in a pass of training."""


class Sample(NamedTuple):
    """Token ids of a prompt and of a response, which is never empty; the response ends with the end of its turn, or was cut off."""

    prompt: list[int]
    response: list[int]
    ended: bool

    @property
    def example(self) -> Example:
        """The conversation, of which the response's tokens are trained, the end of its turn among them."""
        return Example([*self.prompt, *self.response], [False] * len(self.prompt) + [True] * len(self.response))


def sample(
    model: Any,
    prompts: Sequence[Sequence[int]],
    end: int,
    max_new_tokens: int,
    seed: Sequence[int],
    temperature: float = 1.0,
    precision: str = "float32",
    tokens: int = TOKENS_AT_ONCE,
) -> list[Sample]:
    """A response to each prompt (token ids, at least one), in order, of at most `max_new_tokens` tokens; one that ends has `end` as its last.

    The nth token of a response is drawn by a number that depends on `seed` (whole numbers: of the run and the step, say), the prompt's
    place and n alone: what is sampled doesn't depend on how prompts are cut into passes of at most `tokens` tokens, but for rounding.
    All tokens can be drawn, at their probabilities at `temperature`: there is no top-p and no top-k, so that they are those trained on.
    """
    model.eval()
    uniforms = torch.tensor(np.random.default_rng(list(seed)).random((len(prompts), max_new_tokens)))
    found = dict[int, Sample]()
    for batch in batches([len(prompt) + max_new_tokens for prompt in prompts], tokens):
        rows = batch.tolist()
        with autocast(model.device, precision):
            responses = _responses(model, [prompts[n] for n in rows], end, uniforms[rows], temperature)
        for n, response in zip(rows, responses, strict=True):
            found[n] = Sample(list(prompts[n]), response, response[-1] == end)
    return [found[n] for n in range(len(prompts))]


def drawn(logits: torch.Tensor, uniforms: torch.Tensor, temperature: float) -> torch.Tensor:
    """The token of each row whose share of the cumulated probabilities, in order of tokens, its number in [0, 1) falls in.

    logits: shape (rows, vocabulary); uniforms, and what is given: shape (rows,). In float64: cumulated float32 would leave out rare tokens.
    """
    upto = torch.softmax(logits.double() / temperature, dim=-1).cumsum(dim=-1)
    places = torch.searchsorted(upto, uniforms.to(upto).unsqueeze(-1) * upto[:, -1:], right=True).squeeze(-1)
    return places.clamp(max=logits.shape[-1] - 1)


@torch.no_grad()
def _responses(
    model: Any, prompts: Sequence[Sequence[int]], end: int, uniforms: torch.Tensor, temperature: float
) -> list[list[int]]:
    """The responses to prompts that fit in one pass. uniforms: shape (prompts, longest response)."""
    ids, mask = _padded_left(prompts, end)
    ids, mask = ids.to(model.device), mask.to(model.device)
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    going = torch.ones(len(ids), dtype=torch.bool, device=ids.device)
    cache, tokens = None, list[torch.Tensor]()
    for n in range(uniforms.shape[1]):
        output = model(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1
        )  # fmt: skip
        tokens.append(torch.where(going, drawn(output.logits[:, -1], uniforms[:, n], temperature), end))
        going &= tokens[-1] != end
        if not going.any():
            break
        cache, ids, positions = output.past_key_values, tokens[-1].unsqueeze(-1), positions[:, -1:] + 1
        mask = torch.nn.functional.pad(mask, (0, 1), value=1)
    return [_until(row, end) for row in torch.stack(tokens, dim=1).tolist()]


def _padded_left(prompts: Sequence[Sequence[int]], fill: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask, so that all prompts end in the last column; what they are padded with is never looked at."""
    longest = max(map(len, prompts))
    ids = torch.full((len(prompts), longest), fill, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for n, prompt in enumerate(prompts):
        ids[n, longest - len(prompt) :] = torch.tensor(prompt)
        mask[n, longest - len(prompt) :] = 1
    return ids, mask


def _until(tokens: list[int], end: int) -> list[int]:
    return tokens[: tokens.index(end) + 1] if end in tokens else tokens
