"""Supervised fine-tuning: what is trained, that it stops, that the cut changes nothing, that a training goes on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from pipeline.alignment.encoding import Example, encode, end_of_turn, prompt_ids, response_ids
from pipeline.alignment.policies import log_probs
from pipeline.alignment.sft import train
from pipeline.alignment.tuning import plain, with_adapters
from pipeline.settings.alignment import Sft
from pipeline.settings.recipes import Lora
from tests.alignment.cutting import CutOffError, Tracker, assert_same
from tests.helpers import quiet
from tests.models.families import LAYOUTS, tokenizer_of

NUMBERS = "one two three four five six seven eight".split()
TOKENIZER = tokenizer_of(LAYOUTS["phi_3_first"]._replace(pad="<|end|>", eos="<|end|>"), NUMBERS)
"""A tokenizer that pads with the end of a turn."""
END = end_of_turn(TOKENIZER)
METHOD = Sft(
    kind="sft", checkpoint="a", learning_rate=3e-3, batch_size=4, micro_batch_tokens=40, epochs=2, evaluations=2, precision="float32",
)  # fmt: skip
LORA = Lora(rank=4, alpha=8, dropout=0.2)


def policy(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=len(TOKENIZER), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
                    initializer_range=0.1, pad_token_id=None, eos_token_id=0)
    ).eval()  # fmt: skip


def chat(n: int) -> list[dict[str, str]]:
    words = NUMBERS[n:] + NUMBERS[:n]
    said = [{"role": "user", "content": words[0]}, {"role": "assistant", "content": words[1]}]
    return [
        *(said if n % 2 else []),
        {"role": "user", "content": words[2]},
        {"role": "assistant", "content": words[3] * (n % 3 + 1)},
    ]


EXAMPLES = [encode(TOKENIZER, chat(n), END)[0] for n in range(8)]


def weights(model: Any) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def loss_of(model: Any, examples: list[Example]) -> float:
    return -float(torch.cat(log_probs(model, examples)).mean())


def test_eight_rows_are_learned_and_a_response_stops(tmp_path: Path) -> None:
    assert TOKENIZER.pad_token_id == END
    model = policy()
    method = METHOD.model_copy(
        update={"batch_size": 8, "epochs": 50, "learning_rate": 1e-2, "micro_batch_tokens": 4096}
    )
    curve = train(model, TOKENIZER, EXAMPLES, EXAMPLES, method, 0, tmp_path, quiet)
    assert curve[-1]["part"] == "development"
    assert curve[-1]["loss"] < 0.01
    assert curve[-1]["loss"] == pytest.approx(loss_of(model, EXAMPLES), abs=1e-5)
    assert curve[-1]["token_accuracy"] == 1
    for n in range(8):
        asked = prompt_ids(TOKENIZER, chat(n)[:-1])
        made = model.generate(
            torch.tensor([asked]), max_new_tokens=60, do_sample=False, eos_token_id=END, pad_token_id=0
        )
        assert made[0, len(asked) :].tolist() == response_ids(TOKENIZER, chat(n)[-1]["content"], END)


def seen(model: Any, run: Callable[[], object]) -> list[dict[str, torch.Tensor]]:
    """What the model gets in training."""
    got: list[dict[str, torch.Tensor]] = []
    handle = model.register_forward_pre_hook(
        lambda module, _, given: got.append({**given}) if module.training else None, with_kwargs=True
    )
    run()
    handle.remove()
    return got


def test_exactly_the_trained_tokens_have_labels_and_padding_with_the_end_hides_no_end(tmp_path: Path) -> None:
    model = policy()
    method = METHOD.model_copy(update={"epochs": 1})
    got = seen(model, lambda: train(model, TOKENIZER, EXAMPLES, [], method, 0, tmp_path, quiet))
    found, widths = [], []
    for given in got:
        widths.append(given["input_ids"].numel())
        for ids, mask, labels in zip(given["input_ids"], given["attention_mask"], given["labels"], strict=True):
            there = int(mask.sum())
            assert labels[there:].tolist() == [-100] * (len(labels) - there)
            found.append((ids[:there].tolist(), labels[:there].tolist()))
            assert labels[there - 1] == END
    wanted = [(e.ids, [i if t else -100 for i, t in zip(e.ids, e.trained, strict=True)]) for e in EXAMPLES]
    assert sorted(found) == sorted(wanted)
    assert len(got) > 2
    assert max(widths) <= METHOD.micro_batch_tokens
    assert any(0 in mask for mask in (given["attention_mask"] for given in got)), "some are padded"


@pytest.mark.parametrize("tokens", [1, 40, 70])
def test_the_cut_into_passes_changes_neither_loss_nor_gradient(tmp_path: Path, tokens: int) -> None:
    """Seven rows: a step of four, and one of three."""
    made = []
    for budget in (100_000, tokens):
        model, gradients = policy(), dict[str, torch.Tensor]()

        def keep(name: str, into: dict[str, torch.Tensor]) -> Callable[[Any], None]:
            return lambda of: into.update({name: of.grad.clone()})

        for name, p in model.named_parameters():
            p.register_post_accumulate_grad_hook(keep(name, gradients))
        method = METHOD.model_copy(update={"micro_batch_tokens": budget, "learning_rate": 1e-5, "epochs": 1})
        curve = train(model, TOKENIZER, EXAMPLES[:7], EXAMPLES[3:], method, 3, tmp_path / str(budget), quiet)
        made.append((gradients, [(row["loss"], row["token_accuracy"]) for row in curve]))
    for name, gradient in made[0][0].items():
        assert torch.allclose(gradient, made[1][0][name], atol=1e-6), name
    np.testing.assert_allclose(made[0][1], made[1][1], rtol=1e-6)


def test_the_loss_is_the_mean_over_the_trained_tokens_of_the_step(tmp_path: Path) -> None:
    model = policy()
    wanted = loss_of(model, EXAMPLES)
    method = METHOD.model_copy(update={"batch_size": 8, "epochs": 1})
    curve = train(model, TOKENIZER, EXAMPLES, EXAMPLES[:3], method, 0, tmp_path, quiet)
    assert [(row["step"], row["part"]) for row in curve] == [(0, "development"), (1, "train"), (1, "development")]
    assert curve[0]["loss"] == pytest.approx(loss_of(policy(), EXAMPLES[:3]), abs=1e-6)
    assert curve[1]["loss"] == pytest.approx(wanted, abs=1e-6)


def test_the_model_and_the_tokenizer_are_given_back_as_they_were(tmp_path: Path) -> None:
    model, tokenizer = policy(), tokenizer_of(LAYOUTS["qwen_2_5"]._replace(pad=None))
    train(model, tokenizer, EXAMPLES, [], METHOD, 0, tmp_path, quiet)
    assert tokenizer.pad_token is None
    assert (model.config.pad_token_id, model.config.eos_token_id, model.generation_config.eos_token_id) == (None, 0, 0)
    assert "forward" not in model.__dict__
    assert model.config.use_cache, "without a cache a policy is slow, wherever it is read"
    assert not model.training
    with pytest.raises(ValueError, match="nothing to train on"):
        train(model, tokenizer, [], [], METHOD, 0, tmp_path, quiet)


def test_the_learning_rate_rises_to_its_height_in_the_warm_up(tmp_path: Path) -> None:
    method = METHOD.model_copy(update={"warmup_steps": 3})
    curve = train(policy(), TOKENIZER, EXAMPLES, [], method, 0, tmp_path, quiet)
    assert [row["learning_rate"] for row in curve] == pytest.approx([1e-3, 2e-3, 3e-3, 3e-3])
    assert all(row["gradient_norm"] > 0 for row in curve)


@pytest.mark.parametrize("adapters", [False, True])
def test_a_training_that_is_cut_off_goes_on_and_ends_with_the_same_weights(tmp_path: Path, adapters: bool) -> None:
    def fresh() -> Any:
        model = policy()
        torch.manual_seed(5)
        return with_adapters(model, LORA) if adapters else model

    def run(model: Any, name: str, tracker: Any = None, log: Any = quiet) -> list[dict[str, Any]]:
        return train(model, TOKENIZER, EXAMPLES, EXAMPLES[:2], METHOD, 7, tmp_path / name, log, tracker)

    whole, again, tracker, said = fresh(), fresh(), Tracker(), list[str]()
    curve = run(whole, "whole", tracker)
    with pytest.raises(CutOffError):
        run(fresh(), "cut", Tracker(3))
    resumed = run(again, "cut", log=said.append)
    assert "Training goes on from step 2" in said
    assert torch.allclose(weights(whole), weights(again), atol=1e-6)
    assert [(row["step"], row["part"]) for row in resumed] == [
        (0, "development"), (1, "train"), (2, "train"), (2, "development"), (3, "train"), (4, "train"), (4, "development")
    ]  # fmt: skip
    assert_same(curve, resumed)
    assert {"train_loss", "train_gradient_norm", "train_seconds", "development_token_accuracy"} <= tracker.names
    done = fresh()
    assert run(done, "cut") == resumed, "what is done is not done again"
    assert torch.equal(weights(done), weights(again))


def test_adapters_alone_are_trained_and_merging_them_changes_no_logit(tmp_path: Path) -> None:
    model = with_adapters(policy(), LORA)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    ids = torch.tensor([EXAMPLES[0].ids])
    assert torch.allclose(model(ids).logits, policy()(ids).logits, atol=1e-6)
    train(model, TOKENIZER, EXAMPLES, [], METHOD, 0, tmp_path, quiet)
    for name, p in model.named_parameters():
        assert torch.equal(p, before[name]) == ("lora" not in name), name
    layers = {name.split(".lora")[0].rpartition(".")[2] for name in before if "lora" in name}
    assert layers == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    with torch.no_grad():
        wanted = model(ids).logits
        whole = plain(model)
        assert isinstance(whole, LlamaForCausalLM)
        assert torch.allclose(whole(ids).logits, wanted, atol=1e-5)


def test_bfloat16_is_computed_in_and_weights_stay_in_float32(tmp_path: Path) -> None:
    model = policy()
    method = METHOD.model_copy(update={"precision": "bfloat16", "epochs": 1})
    curve = train(model, TOKENIZER, EXAMPLES, EXAMPLES, method, 0, tmp_path, quiet)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    exact = loss_of(policy(), EXAMPLES)
    assert 0 < abs(curve[0]["loss"] - exact) < 0.02


@pytest.mark.parametrize("adapters", [False, True])
def test_activations_that_are_computed_again_change_nothing(tmp_path: Path, adapters: bool) -> None:
    made = []
    for again in (False, True):
        torch.manual_seed(0)
        model = with_adapters(policy(), Lora(rank=4, alpha=8)) if adapters else policy()
        passes = list[int]()
        layer = model.get_base_model().model.layers[0] if adapters else model.model.layers[0]
        layer.mlp.register_forward_pre_hook(lambda *_, passes=passes: passes.append(1))
        method = METHOD.model_copy(update={"gradient_checkpointing": again})
        curve = train(model, TOKENIZER, EXAMPLES, [], method, 1, tmp_path / str(again), quiet)
        made.append((curve, weights(model), len(passes)))
    (curve, first, once), (other, second, twice) = made
    assert_same(curve, other)
    assert torch.allclose(first, second, atol=1e-6)
    assert twice == 2 * once
