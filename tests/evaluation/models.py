"""Small reward models with drawn heads, and items to score."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from pipeline.models.classifier import new_model, set_head
from pipeline.models.encoding import prepare_tokenizer
from tests.helpers import items_of
from tests.reward_model.small import WORDS, save_small_model, small_tokenizer

QUESTION = [{"role": "user", "content": "one two"}]


def save_reward_model(folder: Path, outputs: Sequence[str] = ("reward",), seed: int = 0) -> Path:
    """A small Llama with a head, as this project saves a trained one."""
    torch.manual_seed(seed)
    base = save_small_model(folder.with_name(f"{folder.name}-base"))
    tokenizer = prepare_tokenizer(small_tokenizer())
    model = new_model(base, tokenizer.pad_token_id, outputs)
    set_head(model, np.random.default_rng(seed).normal(size=(len(outputs), model.config.hidden_size)))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def answered(pairs: Sequence[tuple[str, str]], benchmark: str = "mine") -> pa.Table:
    """Items of one question with two responses, of which the first is good."""
    return items_of(*(("s", str(n), pair, 1) for n, pair in enumerate(pairs)), benchmark=benchmark, asked="one two")


def drawn_pairs(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Responses of 1 to 40 words; all are different."""
    generator = np.random.default_rng(seed)
    words = [word for word in WORDS if word.strip()]

    def text() -> str:
        return " ".join(generator.choice(words, generator.integers(1, 40)))

    found: dict[str, None] = {}
    while len(found) < 2 * count:
        found[text()] = None
    texts = list(found)
    return list(zip(texts[::2], texts[1::2], strict=True))
