"""SFT: what is learned, and only that; ends; passes; a run that was cut off."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from pipeline.alignment import tuning
from pipeline.alignment.encoding import Example, encode_each, end_of_turn, prompt_ids
from pipeline.alignment.policies import load_policy, log_probs, save_policy
from pipeline.alignment.sft import NOT_LEARNED, row_of, train
from pipeline.settings import Lora
from pipeline.settings.alignment import Sft
from tests.models.families import LAYOUTS, tokenizer_of

WORDS = "one two three four five six seven eight".split()
CHATS = [[{"role": "user", "content": w}, {"role": "assistant", "content": f"{w} is good"}] for w in WORDS]


def method(**more: Any) -> Sft:
    given = {
        "checkpoint": "x",
        "learning_rate": 3e-3,
        "batch_size": 4,
        "epochs": 1,
        "max_tokens": 250,
        "precision": "float32",
        "evaluations": 1,
    }
    return Sft(kind="sft", **given | more)


@pytest.fixture
def tokenizer() -> Any:
    made = tokenizer_of(LAYOUTS["qwen_2_5"])
    made.pad_token = made.decode([end_of_turn(made)])  # pad is the end, as many models have it
    return made


def policy(tokenizer: Any) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
                    max_position_embeddings=256, pad_token_id=tokenizer.pad_token_id)
    )  # fmt: skip


def rows(tokenizer: Any) -> list[Example]:
    return list(encode_each(tokenizer, CHATS, 200).examples.values())


def test_eight_rows_are_learned_and_generation_repeats_them_and_stops(tokenizer: Any, tmp_path: Path) -> None:
    model, examples = policy(tokenizer), rows(tokenizer)
    curve = train(
        model,
        tokenizer,
        examples,
        examples,
        method(epochs=100, batch_size=8, learning_rate=1e-2),
        1,
        tmp_path / "work",
        print,
    )
    assert [row["loss"] for row in curve if row["part"] == "held_out"][-1] < 0.05
    end = end_of_turn(tokenizer)
    save_policy(model, tokenizer, end, tmp_path / "policy")
    again = load_policy(tmp_path / "policy")
    for chat, example in zip(CHATS, examples, strict=True):
        ids = torch.tensor([prompt_ids(tokenizer, chat[:-1])])
        written = again.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=20, do_sample=False)[
            0
        ].tolist()
        assert written == example.ids
        assert written[-1] == end


def test_labels_are_the_trained_tokens_and_the_end_among_them(tokenizer: Any) -> None:
    for example in rows(tokenizer):
        labels = row_of(example)["labels"]
        assert [n for n in labels if n != NOT_LEARNED] == [
            n for n, t in zip(example.ids, example.trained, strict=True) if t
        ]
        assert labels[-1] == end_of_turn(tokenizer) == tokenizer.pad_token_id


def test_how_a_step_is_cut_into_passes_changes_nothing(tokenizer: Any, tmp_path: Path) -> None:
    longer = [
        *rows(tokenizer)[:6],
        *encode_each(tokenizer, [[*CHATS[0], *CHATS[1]], [*CHATS[2], *CHATS[3]]], 250).examples.values(),
    ]
    found = []
    for tokens in (1, 10_000):
        model = policy(tokenizer)
        train(model, tokenizer, longer, longer, method(micro_batch_tokens=tokens), 1, tmp_path / str(tokens), print)
        found.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.allclose(*found, atol=1e-5)


def test_a_run_that_was_cut_off_ends_as_if_it_had_not_been(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, examples, asked = policy(tokenizer), rows(tokenizer), method(epochs=2, evaluations=4)
    curve = train(whole, tokenizer, examples, examples, asked, 1, tmp_path / "whole", print)

    class Cut(tuning.Say):
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 2:
                raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(tuning, "Say", Cut)
        with pytest.raises(KeyboardInterrupt):
            train(policy(tokenizer), tokenizer, examples, examples, asked, 1, tmp_path / "cut", print)
    said: list[str] = []
    model = policy(tokenizer)
    again = train(model, tokenizer, examples, examples, asked, 1, tmp_path / "cut", said.append)
    assert "Training goes on from checkpoint-2" in said
    assert [row["step"] for row in again] == [row["step"] for row in curve]
    for one, other in zip(model.parameters(), whole.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_adapters_alone_are_trained_and_are_added_to_the_weights(tokenizer: Any, tmp_path: Path) -> None:
    base, examples = policy(tokenizer), rows(tokenizer)
    before = copy.deepcopy(base.state_dict())
    model = tuning.with_adapters(base, Lora(rank=4))
    train(model, tokenizer, examples, examples, method(epochs=5), 1, tmp_path / "work", print)
    assert all("lora" in name for name, p in model.named_parameters() if p.requires_grad)
    with_adapters = log_probs(model.eval(), examples)
    merged = tuning.plain(model)
    assert not torch.equal(
        merged.state_dict()["model.layers.0.mlp.up_proj.weight"], before["model.layers.0.mlp.up_proj.weight"]
    )
    assert torch.equal(merged.state_dict()["lm_head.weight"], before["lm_head.weight"])
    for one, other in zip(log_probs(merged, examples), with_adapters, strict=True):
        assert torch.allclose(one, other, atol=1e-4)


def test_nothing_to_train_on_is_said(tokenizer: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="0 conversations to train on and 8 held out"):
        train(policy(tokenizer), tokenizer, [], rows(tokenizer), method(), 1, tmp_path, print)
