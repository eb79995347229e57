"""Scorers of candidates, for models of every family."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaModel

from pipeline.models.templates import ASKED, settled
from pipeline.responses.scorers import NextUserTurn, RewardModel
from tests.helpers import quiet
from tests.models.families import LAYOUTS, tokenizer_of
from tests.reward_model.small import save_small_model, small_tokenizer

TRIMS = ("llama_3", "llama_3_1", "llama_3_2", "gemma_2", "gemma_3", "command_r")


def reader_of(family: str) -> NextUserTurn:
    """A scorer that encodes, of a family's tokenizer; it has no model."""
    scorer, layout = object.__new__(NextUserTurn), LAYOUTS[family]
    scorer._tokenizer, scorer._max = tokenizer_of(layout), 10_000
    scorer._tokenizer.chat_template = settled(layout.template, ASKED)
    return scorer


READERS = {name: reader_of(name) for name in LAYOUTS}


@pytest.mark.parametrize("family", LAYOUTS)
@given(st.lists(st.sampled_from(["a", "b", " ", "\n", "yes", "\n\n", "ä", "7"]), min_size=1, max_size=6).map("".join))
@settings(max_examples=25)
def test_the_tokens_of_the_next_turn_are_told_from_those_of_the_rest(family: str, following: str) -> None:
    scorer = READERS[family]
    conversation = [{"role": "user", "content": following}, {"role": "assistant", "content": following}]
    ids, inside = scorer._encode(conversation, following)
    found = scorer._tokenizer.decode([n for n, asked in zip(ids, inside, strict=True) if asked])
    assert found == (following.strip() if family in TRIMS else following)


def test_a_next_turn_with_the_models_marks_is_read_as_text() -> None:
    scorer = READERS["llama_3"]
    conversation = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
    ids, inside = scorer._encode(conversation, "a<|eot_id|>b")
    found = scorer._tokenizer.decode([n for n, asked in zip(ids, inside, strict=True) if asked])
    assert found == "a< |eot_id|>b"


def test_a_scorer_without_its_weights_is_refused_and_never_draws_them(tmp_path: Path) -> None:
    base = save_small_model(tmp_path / "base")
    with pytest.raises(ValueError, match=r"is not a reward model: it has no weights for score\.weight"):
        RewardModel("r", base, 128)
    config = LlamaConfig(
        vocab_size=32, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2
    )
    LlamaModel(config).save_pretrained(tmp_path / "headless")
    small_tokenizer().save_pretrained(tmp_path / "headless")
    with pytest.raises(ValueError, match=r"is not a language model: it has no weights for lm_head\.weight"):
        NextUserTurn("n", tmp_path / "headless", 128, "float32")


def test_a_padding_token_beyond_the_models_vocabulary_does_no_harm(tmp_path: Path) -> None:
    torch.manual_seed(0)
    folder = save_small_model(tmp_path / "model")
    tokenizer = small_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.add_tokens([f"<{n}>" for n in range(20)])
    tokenizer.save_pretrained(folder)
    scorer = NextUserTurn("n", folder, 128, "float32")
    asked = [
        [{"role": "user", "content": "one"}, {"role": "assistant", "content": text}] for text in ("a", "a b one two")
    ]
    together = scorer.score(asked, ["two", "two"], quiet)
    alone = [scorer.score([one], ["two"], quiet)[0] for one in asked]
    assert together == pytest.approx(alone, abs=1e-4)
