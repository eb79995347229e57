"""Direct preference optimisation: pairs, the reference, the loss, that it learns, that a training goes on."""

from math import log
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pytest
import torch

from pipeline.alignment.dpo import Pair, pairs_of, rows_of, train
from pipeline.alignment.encoding import Example, prompt_ids, response_ids
from pipeline.alignment.policies import log_probs
from pipeline.alignment.tuning import plain, with_adapters
from pipeline.settings.alignment import Dpo, IterativeDpo, Samples
from pipeline.settings.recipes import Lora
from tests.alignment.cutting import CutOffError, Tracker, assert_same
from tests.alignment.test_sft import END, LORA, NUMBERS, TOKENIZER, chat, policy, seen, weights
from tests.helpers import quiet

METHOD = Dpo(
    kind="dpo", start="a", learning_rate=1e-3, batch_size=4, micro_batch_tokens=90, epochs=2, evaluations=2, beta=0.1, precision="float32",
)  # fmt: skip


def table_of(*rows: tuple[list[dict[str, str]], str, str]) -> pa.Table:
    return pa.Table.from_pylist([{"messages": m, "chosen": c, "rejected": r} for m, c, r in rows])


TABLE = table_of(*[(chat(n)[:-1], NUMBERS[n] * (n % 3 + 1), NUMBERS[(n + 3) % 8] * (n % 2 + 1)) for n in range(8)])
PAIRS = list(pairs_of(TABLE, TOKENIZER, 64).pairs.values())


def sums(model: Any, pairs: list[Pair]) -> torch.Tensor:
    """Log-probabilities of chosen and rejected responses, shape (pairs, 2)."""
    found = []
    for which in (1, 2):
        rows = [Example([*p.prompt, *p[which]], [False] * len(p.prompt) + [True] * len(p[which])) for p in pairs]
        found.append(torch.stack([values.sum() for values in log_probs(model, rows)]))
    return torch.stack(found, dim=1)


def wanted_loss(now: torch.Tensor, reference: torch.Tensor, beta: float) -> float:
    ratios = now - reference
    return float(-torch.nn.functional.logsigmoid(beta * (ratios[:, 0] - ratios[:, 1])).mean())


# -------------------------------------------------------------------------------------------------------------------------------- pairs


def test_pairs_have_our_tokens_and_one_end_and_what_does_not_fit_is_counted() -> None:
    asks = [{"role": "user", "content": "one two"}]
    refused = [{"role": "user", "content": "one"}, {"role": "user", "content": "two"}]
    prompt = prompt_ids(TOKENIZER, asks)
    room = len(prompt) + 2
    found = pairs_of(
        table_of(
            (asks, "two", "three"),
            (asks, "two", "threefour"),
            (asks, "twothree", "four"),
            (asks, "two", "two"),
            (asks, "one" * 99, "one" * 99),
            (asks, "", "four"),
            (asks * 9, "two", "three"),
        ),
        TOKENIZER,
        room,
    )
    assert list(found.pairs) == [0, 5]
    assert (found.too_long, found.equal, found.refused) == (3, 2, {})
    pair = found.pairs[0]
    assert pair == (prompt, response_ids(TOKENIZER, "two", END), response_ids(TOKENIZER, "three", END))
    assert pair.chosen.count(END) == pair.rejected.count(END) == 1
    assert (pair.chosen[-1], pair.rejected[-1], pair.longest) == (END, END, room)
    assert found.pairs[5].chosen == [END]
    from tests.models.families import LAYOUTS, tokenizer_of

    strict = pairs_of(table_of((refused, "a", "b"), (asks, "a", "b")), tokenizer_of(LAYOUTS["gemma_3"]), 200)
    assert (list(strict.pairs), list(strict.refused.values())) == ([1], [1])


def test_the_model_gets_whole_pairs_whose_responses_alone_are_labelled_with_their_ends(tmp_path: Path) -> None:
    model = policy()
    method = METHOD.model_copy(update={"epochs": 1})
    got = seen(model, lambda: train(model, TOKENIZER, PAIRS, [], method, 0, tmp_path, quiet))
    found = []
    for given in got:
        assert given["input_ids"].numel() <= METHOD.micro_batch_tokens
        for ids, mask, labels in zip(given["input_ids"], given["attention_mask"], given["labels"], strict=True):
            there = int(mask.sum())
            assert labels[there:].tolist() == [-100] * (len(labels) - there)
            found.append((ids[:there].tolist(), labels[:there].tolist()))
    wanted = [([*p.prompt, *r], [-100] * len(p.prompt) + r) for p in PAIRS for r in (p.chosen, p.rejected)]
    assert sorted(found) == sorted(wanted)
    assert len(got) > 2


# ---------------------------------------------------------------------------------------------------------------------- loss, reference


@pytest.mark.parametrize("adapters", [False, True])
def test_the_reference_is_the_policy_as_it_is_given_and_the_loss_that_of_the_paper(
    tmp_path: Path, adapters: bool
) -> None:
    """Adapters that are already trained are part of the reference."""
    model = with_adapters(policy(), Lora(rank=4, alpha=8)) if adapters else policy()
    if adapters:
        for name, p in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(p, std=0.2)
    start = sums(model, PAIRS)
    assert not adapters or not torch.allclose(start, sums(policy(), PAIRS), atol=0.1)
    method = METHOD.model_copy(update={"batch_size": 8, "evaluations": 3, "epochs": 3})
    curve = train(model, TOKENIZER, PAIRS, PAIRS, method, 0, tmp_path, quiet)
    for row in curve[:2]:
        assert row["loss"] == pytest.approx(log(2), abs=1e-6)
        assert row["margin"] == pytest.approx(0, abs=1e-6)
        assert [row["chosen_log_prob"], row["rejected_log_prob"]] == pytest.approx(start.mean(0).tolist(), abs=1e-5)
    end, last = sums(model, PAIRS), curve[-1]
    assert last["loss"] == pytest.approx(wanted_loss(end, start, 0.1), abs=1e-5)
    assert last["loss"] < log(2) - 1e-3
    ratios = 0.1 * (end - start)
    assert last["margin"] == pytest.approx(float((ratios[:, 0] - ratios[:, 1]).mean()), abs=1e-5)
    assert [last["chosen_reward"], last["rejected_reward"]] == pytest.approx(ratios.mean(0).tolist(), abs=1e-5)
    assert last["accuracy"] == pytest.approx(float((ratios[:, 0] > ratios[:, 1]).float().mean()))
    if adapters:
        assert list(model.peft_config) == ["default"]
        assert not [name for name, p in model.named_parameters() if ".ref." in name]
        assert torch.allclose(sums(plain(model), PAIRS), end, atol=1e-4)


def test_reference_log_probabilities_of_every_pair_are_those_of_the_start(tmp_path: Path) -> None:
    from trl import DPOConfig

    from pipeline.alignment.dpo import _trainer
    from pipeline.alignment.tuning import arguments_of, borrowed

    model = policy()
    start = sums(model, PAIRS)
    settings = DPOConfig(**arguments_of(METHOD, 0, 1, True, tmp_path), precompute_ref_log_probs=True)
    with borrowed(model):
        trainer = _trainer()(
            rows_of(PAIRS), rows_of(PAIRS[:3]), METHOD, 0, model=model, args=settings, processing_class=TOKENIZER
        )
        for dataset, wanted in ((trainer.train_dataset, start), (trainer.eval_dataset, start[:3])):
            found = np.stack([dataset["ref_chosen_logps"], dataset["ref_rejected_logps"]], axis=1)
            np.testing.assert_allclose(found, wanted.numpy(), atol=1e-5)


@pytest.mark.parametrize("tokens", [1, 100])
def test_the_cut_into_passes_changes_no_figure_of_a_step(tmp_path: Path, tokens: int) -> None:
    """Seven pairs: a step of four, and one of three."""
    made = []
    for budget in (100_000, tokens):
        model = policy()
        method = METHOD.model_copy(update={"micro_batch_tokens": budget, "learning_rate": 1e-5, "epochs": 1})
        curve = train(model, TOKENIZER, PAIRS[:7], PAIRS[3:], method, 3, tmp_path / str(budget), quiet)
        # while policy and reference are the same, which margins are above 0 is rounding
        left_out = [{"seconds", "part"} | ({"accuracy"} if row["step"] < 2 else set()) for row in curve]
        made.append(
            [[v for name, v in row.items() if name not in left] for row, left in zip(curve, left_out, strict=True)]
        )
    for one, other in zip(*made, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_it_learns_to_tell_every_pair(tmp_path: Path) -> None:
    model = policy()
    method = METHOD.model_copy(update={"epochs": 10, "batch_size": 8, "micro_batch_tokens": 4096})
    curve = train(model, TOKENIZER, PAIRS, PAIRS, method, 0, tmp_path, quiet)
    assert curve[0]["accuracy"] == 0
    assert curve[-1]["accuracy"] == 1
    assert curve[-1]["margin"] > 1
    ratios = sums(model, PAIRS) - sums(policy(), PAIRS)
    assert (ratios[:, 0] > ratios[:, 1]).all()


LOSSES = get_args(get_args(Dpo.model_fields["losses"].annotation)[0])


def test_every_loss_of_the_settings_is_one_of_trls_and_they_add_up(tmp_path: Path) -> None:
    assert LOSSES[0] == "sigmoid"
    apart = {}
    for losses in [*((name,) for name in LOSSES), ("sigmoid", "sft")]:
        method = METHOD.model_copy(update={"losses": losses, "epochs": 1, "micro_batch_tokens": 4096})
        model = policy()
        (row,) = train(model, TOKENIZER, PAIRS[:4], [], method, 0, tmp_path / "_".join(losses), quiet)
        assert np.isfinite(row["loss"])
        assert row["gradient_norm"] > 0
        assert not torch.equal(weights(model), weights(policy()))
        apart[losses] = row["loss"]
    assert apart["sigmoid", "sft"] == pytest.approx(apart["sigmoid",] + apart["sft",], abs=1e-5)


@pytest.mark.parametrize("beyond", [0.0, 0.4])
def test_tokens_beyond_the_shorter_responses_length_count_as_little_as_is_said(tmp_path: Path, beyond: float) -> None:
    """Else a policy is rewarded for length by itself: log-probabilities are sums."""
    pairs = [pair for pair in PAIRS if len(pair.chosen) != len(pair.rejected)]
    assert pairs
    model = policy()
    method = METHOD.model_copy(update={"beyond": beyond, "batch_size": 8, "evaluations": 2, "epochs": 2})
    curve = train(model, TOKENIZER, pairs, pairs, method, 0, tmp_path, quiet)
    assert curve[0]["loss"] == pytest.approx(log(2), abs=1e-6)

    def weighed(of: Any) -> torch.Tensor:
        examples = [
            Example([*p.prompt, *r], [False] * len(p.prompt) + [True] * len(r))
            for p in pairs
            for r in (p.chosen, p.rejected)
        ]
        shared = [min(len(p.chosen), len(p.rejected)) for p in pairs for _ in range(2)]
        values = zip(log_probs(of, examples), shared, strict=True)
        return torch.tensor([float(v[:n].sum() + beyond * v[n:].sum()) for v, n in values]).view(-1, 2)

    assert curve[-1]["loss"] == pytest.approx(wanted_loss(weighed(model), weighed(policy()), 0.1), abs=1e-5)


def test_sigmoid_norm_divides_by_a_responses_tokens(tmp_path: Path) -> None:
    model = policy()
    method = METHOD.model_copy(update={"losses": ("sigmoid_norm",), "batch_size": 8, "evaluations": 2, "epochs": 2})
    curve = train(model, TOKENIZER, PAIRS, PAIRS, method, 0, tmp_path, quiet)
    lengths = torch.tensor([[len(pair.chosen), len(pair.rejected)] for pair in PAIRS])
    assert curve[-1]["loss"] == pytest.approx(
        wanted_loss(sums(model, PAIRS) / lengths, sums(policy(), PAIRS) / lengths, 0.1), abs=1e-5
    )


def test_iterative_dpo_has_the_sigmoid_loss(tmp_path: Path) -> None:
    method = IterativeDpo(
        **METHOD.model_dump(exclude={"kind", "losses"}), kind="iterative_dpo", samples=Samples(prompts=1)
    )
    one, other = policy(), policy()
    train(one, TOKENIZER, PAIRS, [], METHOD, 0, tmp_path / "a", quiet)
    train(other, TOKENIZER, PAIRS, [], method, 0, tmp_path / "b", quiet)
    assert torch.equal(weights(one), weights(other))
    with pytest.raises(ValueError, match="nothing to train on"):
        train(one, TOKENIZER, [], PAIRS, METHOD, 0, tmp_path, quiet)


def test_bfloat16_starts_at_ln_2_too(tmp_path: Path) -> None:
    method = METHOD.model_copy(update={"precision": "bfloat16", "epochs": 1})
    for name, model in (("all", policy()), ("adapters", with_adapters(policy(), LORA))):
        curve = train(model, TOKENIZER, PAIRS, PAIRS, method, 0, tmp_path / name, quiet)
        assert curve[0]["loss"] == pytest.approx(log(2), abs=1e-6)


# ----------------------------------------------------------------------------------------------------------------------------- going on


@pytest.mark.parametrize("adapters", [False, True])
def test_a_training_that_is_cut_off_goes_on_and_ends_with_the_same_weights(tmp_path: Path, adapters: bool) -> None:
    def fresh() -> Any:
        model = policy()
        torch.manual_seed(5)
        return with_adapters(model, LORA) if adapters else model

    def run(model: Any, name: str, tracker: Any = None, log: Any = quiet) -> list[dict[str, Any]]:
        return train(model, TOKENIZER, PAIRS, PAIRS[:2], METHOD, 7, tmp_path / name, log, tracker)

    whole, again, tracker, said = fresh(), fresh(), Tracker(), list[str]()
    before = {name: p.detach().clone() for name, p in whole.named_parameters()}
    curve = run(whole, "whole", tracker)
    with pytest.raises(CutOffError):
        run(fresh(), "cut", Tracker(3))
    resumed = run(again, "cut", log=said.append)
    assert "Training goes on from step 2" in said
    assert torch.allclose(weights(whole), weights(again), atol=1e-6)
    for name, p in again.named_parameters():
        assert torch.equal(p, before[name]) == (adapters and "lora" not in name), name
    assert_same(curve, resumed)
    assert {"train_loss", "train_margin", "development_accuracy", "development_chosen_log_prob"} <= tracker.names
