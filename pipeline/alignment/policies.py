"""Policies: causal language models that are read, asked for log-probabilities, and kept. Imported only by workers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from pipeline.alignment.encoding import Example
from pipeline.models.batching import TOKENS_A_BATCH, batches
from pipeline.models.classifier import device
from pipeline.models.weights import read_model


def load_policy(folder: Path, precision: str = "float32") -> Any:
    """A policy with all of its weights, in evaluation mode, on this process' device. Raises ValueError where the folder has none."""
    from transformers import AutoModelForCausalLM

    model = read_model(AutoModelForCausalLM, folder, "a language model", dtype=getattr(torch, precision))
    return model.to(device()).eval()


def padded(rows: Sequence[Example], fill: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Token ids, attention mask and trained tokens of examples, each of shape (rows, longest), padded on the right.

    What it is padded with is never looked at, so that any token may be: an end of turn too.
    """
    longest = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), longest), fill, dtype=torch.long)
    mask, trained = torch.zeros_like(ids), torch.zeros(ids.shape, dtype=torch.bool)
    for n, row in enumerate(rows):
        ids[n, : len(row.ids)] = torch.tensor(row.ids)
        mask[n, : len(row.ids)] = 1
        trained[n, : len(row.ids)] = torch.tensor(row.trained)
    return ids, mask, trained


def token_log_probs(model: Any, ids: torch.Tensor, mask: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """Natural log-probability of each token given those before it, float32, shape (rows, length); 0 for the first and for padding."""
    logits = model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device), use_cache=False).logits[:, :-1]
    following = ids[:, 1:].to(model.device)
    found = torch.log_softmax(logits.float() / temperature, dim=-1).gather(-1, following.unsqueeze(-1)).squeeze(-1)
    found = torch.nn.functional.pad(found, (1, 0))
    return found * mask.to(model.device)


@torch.no_grad()
def log_probs(model: Any, examples: Sequence[Example], tokens: int = TOKENS_A_BATCH) -> list[torch.Tensor]:
    """Log-probabilities of the trained tokens of each example, in order, float32 on the CPU; their sum is the response's."""
    found: list[torch.Tensor] = [torch.zeros(0)] * len(examples)
    for rows in batches([len(example.ids) for example in examples], tokens):
        ids, mask, trained = padded([examples[n] for n in rows])
        values = token_log_probs(model, ids, mask).cpu()
        for place, n in enumerate(rows):
            found[n] = values[place][trained[place]]
    return found


def save_policy(model: Any, tokenizer: Any, end: int, out: Path) -> None:
    """Keep a policy in Hugging Face form, with its tokenizer, and with the end of a turn among the tokens that end generation."""
    known = model.generation_config.eos_token_id
    ends = [known] if isinstance(known, int) else list(known or [])
    model.generation_config.eos_token_id = list(dict.fromkeys([end, *ends]))
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
