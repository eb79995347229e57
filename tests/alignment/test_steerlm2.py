"""SteerLM 2.0: probabilities of levels, gradients against autograd, the loop, and a policy over three tokens against its enumerated posterior."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats
from transformers import LlamaConfig, LlamaForCausalLM

from pipeline.alignment.encoding import Example, prompt_ids, response_ids
from pipeline.alignment.policies import token_log_probs
from pipeline.alignment.steerlm import conditioned
from pipeline.alignment.steerlm2 import (
    CLIP,
    Group,
    Policy,
    attribute_log_probs,
    baseline,
    divergence,
    encode_samples,
    groups_of,
    importance,
    level_log_probs,
    loss_of,
    plan,
    response_log_probs,
    train,
)
from pipeline.settings.alignment import Samples, SteerLm2
from tests.alignment.cutting import CutOffError, Tracker, assert_same
from tests.helpers import quiet
from tests.models.families import LAYOUTS, tokenizer_of

ratings = arrays.arrays(np.float64, (4, 5), elements=st.floats(-1, 5))
numbers = st.lists(st.tuples(*[st.floats(-8, 0)] * 4), min_size=2, max_size=6)


# ------------------------------------------------------------------------------------------------------------------------ probabilities


@settings(max_examples=60, deadline=None)
@given(ratings, st.floats(0.5, 200))
def test_levels_have_the_mass_of_their_fifth_of_the_beta_distribution(predictions: np.ndarray, c: float) -> None:
    found = np.exp(level_log_probs(predictions, c))
    r = np.clip(predictions / 4, CLIP, 1 - CLIP)
    for level in range(5):
        wanted = stats.beta.cdf((level + 1) / 5, c * r, c * (1 - r)) - stats.beta.cdf(level / 5, c * r, c * (1 - r))
        np.testing.assert_allclose(found[..., level], wanted, atol=1e-12)
    np.testing.assert_allclose(found.sum(axis=-1), 1, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(ratings, st.floats(1, 100))
def test_the_least_likely_ends_are_right_too_and_both_ends_are_alike(predictions: np.ndarray, c: float) -> None:
    found = level_log_probs(predictions, c)
    r = np.clip(predictions / 4, CLIP, 1 - CLIP)
    np.testing.assert_allclose(found[..., 0], stats.beta.logcdf(0.2, c * r, c * (1 - r)), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found[..., 4], stats.beta.logsf(0.8, c * r, c * (1 - r)), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(level_log_probs(4 - predictions, c)[..., ::-1], found, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("c", [1e-3, 24.0, 1e6])
def test_extremes_are_finite(c: float) -> None:
    found = level_log_probs(np.array([-1e9, -1.0, 0.0, 1e-12, 2.0, 4.0, 5.0, 1e9]), c)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(np.exp(found).sum(axis=-1), 1, atol=1e-9)
    with pytest.raises(ValueError, match="no finite numbers"):
        level_log_probs(np.array([np.nan]), c)


def test_the_level_that_is_predicted_is_the_likeliest_and_attributes_add_up() -> None:
    assert level_log_probs(np.arange(5.0), 24).argmax(axis=-1).tolist() == [0, 1, 2, 3, 4]
    predictions = np.array([[3.9, 2.1], [1.0, 2.0]])
    single = level_log_probs(predictions, 24)
    found = attribute_log_probs(predictions, [4, 2], 24)
    np.testing.assert_allclose(found, [single[n, 0, 4] + single[n, 1, 2] for n in (0, 1)])
    assert found[0] > found[1]


# ---------------------------------------------------------------------------------------------------------------------- loss and weights


@settings(max_examples=60, deadline=None)
@given(numbers, st.integers(0, 2**31))
def test_the_gradient_is_that_of_the_divergence_by_autograd(logs: list[tuple[float, ...]], seed: int) -> None:
    """-sum w log Q + log sum Q/Q' has the gradient -sum (w - b) grad log Q, without anything being held fixed."""
    generator = np.random.default_rng(seed)
    attributes, prior, proposal, _ = torch.tensor(logs, dtype=torch.float64).T
    logits = torch.tensor(generator.normal(size=5), requires_grad=True)
    drawn = torch.tensor(generator.integers(5, size=len(logs)))
    log_q = logits.log_softmax(-1)[drawn]
    w = importance(attributes, prior, proposal)
    assert torch.isclose(w.sum(), torch.ones((), dtype=w.dtype))
    (found,) = torch.autograd.grad(loss_of(log_q, w, baseline(log_q, proposal)), logits, retain_graph=True)
    whole = -(w * log_q).sum() + torch.logsumexp(log_q - proposal, -1)
    (wanted,) = torch.autograd.grad(whole, logits)
    assert torch.allclose(found, wanted, atol=1e-12)


def test_importance_is_the_ratio_of_probabilities_and_a_policy_that_has_it_diverges_by_nothing() -> None:
    p_a, p_y, q = (torch.tensor(x, dtype=torch.float64) for x in ([0.5, 0.2, 0.1], [0.3, 0.3, 0.4], [0.2, 0.5, 0.3]))
    w = importance(p_a.log(), p_y.log(), q.log())
    ratio = p_a * p_y / q
    assert torch.allclose(w, ratio / ratio.sum())
    assert divergence(w, w) == 0
    assert divergence(w, baseline((w * q).log(), q.log())) == pytest.approx(0, abs=1e-12)
    other = torch.tensor([0.1, 0.1, 0.8], dtype=torch.float64)
    assert divergence(w, other) == pytest.approx(float((w * (w / other).log()).sum()), abs=1e-6)
    assert torch.isfinite(importance(torch.tensor([-700.0, -1400.0]), torch.zeros(2), torch.zeros(2))).all()


# ------------------------------------------------------------------------------------------------------------------------------ policies


def llama(seed: int, vocabulary: int = 3) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=vocabulary, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
                    initializer_range=0.5)
    ).eval()  # fmt: skip


def group_of(seed: int, samples: int = 5, vocabulary: int = 9) -> Group:
    generator = np.random.default_rng(seed)
    prompt = generator.integers(vocabulary, size=generator.integers(1, 4)).tolist()
    examples = []
    for _ in range(samples):
        response = generator.integers(vocabulary, size=generator.integers(1, 7)).tolist()
        examples.append(Example([*prompt, *response], [False] * len(prompt) + [True] * len(response)))
    logs = [torch.tensor(-generator.uniform(0, 4, samples)) for _ in range(2)]
    return Group(examples, *logs, torch.tensor(response_log_probs(llama(0, vocabulary), examples)))


def gradients(model: Any) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters()])


@pytest.mark.parametrize("tokens", [1, 9, 30, 4096])
def test_however_samples_are_cut_into_passes_the_gradient_is_that_of_the_published_sum(tokens: int) -> None:
    groups, model = [group_of(n) for n in range(3)], llama(1, 9)
    figures = Policy(model, tokens, "float32").step(groups)
    found = gradients(model)
    model.zero_grad()
    total: Any = 0.0
    for group in groups:
        rows = []
        for example in group.examples:
            ids = torch.tensor([example.ids])
            rows.append(token_log_probs(model, ids, torch.ones_like(ids))[0][torch.tensor(example.trained)].sum())
        log_q = torch.stack(rows)
        assert figures["effective_samples"] > 1
        total = total - (group.weights * log_q).sum() + torch.logsumexp(log_q - group.proposal, -1)
    (total / len(groups)).backward()
    assert torch.allclose(found, gradients(model), atol=1e-5)


METHOD = SteerLm2(
    kind="steerlm2", start="a", unconditional="b", samples=Samples(prompts=1), learning_rate=3e-3, batch_size=2, micro_batch_tokens=32,
    epochs=2, evaluations=2, precision="float32", warmup_steps=3,
)  # fmt: skip


def test_a_policy_that_starts_at_the_proposal_gives_its_samples_equal_weights() -> None:
    model, groups = llama(0, 9), [group_of(n) for n in range(4)]
    first = Policy(model, 64, "float32").figures(groups)
    assert first["baseline_entropy"] == pytest.approx(np.log(5), abs=1e-6)
    assert first["divergence"] == pytest.approx(np.log(5) - first["weight_entropy"], abs=1e-5)
    assert 1 < first["effective_samples"] < 5


def steps_of(curve: list[dict[str, Any]]) -> list[tuple[int, str]]:
    return [(row["step"], row["part"]) for row in curve]


@pytest.mark.parametrize("adapters", [False, True])
def test_a_training_that_is_cut_off_goes_on_and_ends_with_the_same_weights(tmp_path: Path, adapters: bool) -> None:
    def fresh() -> Any:
        model = llama(0, 9)
        if not adapters:
            return model
        from peft import LoraConfig, get_peft_model

        torch.manual_seed(5)
        return get_peft_model(
            model, LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj", "v_proj"], lora_dropout=0.2)
        )

    groups, held_out = [group_of(n) for n in range(4)], [group_of(9)]
    whole, again, tracker = fresh(), fresh(), Tracker()
    before = {n: p.detach().clone() for n, p in whole.named_parameters()}
    curve = train(whole, groups, held_out, METHOD, 7, tmp_path / "whole", quiet, tracker)
    with pytest.raises(CutOffError):
        train(again, groups, held_out, METHOD, 7, tmp_path / "cut", quiet, Tracker(3))
    said: list[str] = []
    again = fresh()
    resumed = train(again, groups, held_out, METHOD, 7, tmp_path / "cut", said.append)
    assert "Training goes on from step 2" in said
    for (name, one), other in zip(whole.named_parameters(), again.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-6), name
        assert torch.equal(one, before[name]) == (adapters and "lora" not in name), name
    assert steps_of(resumed) == steps_of(curve) == [
        (0, "development"), (1, "train"), (2, "train"), (2, "development"), (3, "train"), (4, "train"), (4, "development")
    ]  # fmt: skip
    assert_same(curve, resumed)
    assert {"train_divergence", "train_gradient_norm", "development_effective_samples"} <= tracker.names
    assert train(fresh(), groups, held_out, METHOD, 7, tmp_path / "cut", quiet) == resumed, (
        "what is done is not done again"
    )


def test_the_learning_rate_rises_to_its_height_in_the_warm_up(tmp_path: Path) -> None:
    """AdamW's first step moves each weight by the learning rate, whatever the gradient."""
    for warmup, rate in ((0, 3e-3), (3, 1e-3)):
        model = llama(0, 9)
        before = torch.cat([p.detach().flatten() for p in model.parameters()])
        method = METHOD.model_copy(update={"epochs": 1, "warmup_steps": warmup})
        train(model, [group_of(n) for n in range(2)], [], method, 0, tmp_path / str(warmup), quiet)
        moved = torch.cat([p.detach().flatten() for p in model.parameters()]) - before
        assert float(moved.abs().max()) == pytest.approx(rate, rel=1e-3)


def test_the_order_of_prompts_is_by_seed_and_epoch_alone() -> None:
    steps = plan(7, 3, 2, 4)
    assert [len(step) for step in steps] == [3, 3, 1, 3, 3, 1]
    epochs = [np.concatenate(steps[:3]).tolist(), np.concatenate(steps[3:]).tolist()]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(7))
    assert epochs[0] != epochs[1]
    assert np.concatenate(plan(7, 7, 2, 4)).tolist() == epochs[0] + epochs[1]
    with pytest.raises(ValueError, match="no prompt has two samples"):
        train(llama(0), [], [], METHOD, 0, Path("none"), quiet)


# ------------------------------------------------------------------------------------------------------------------------ three tokens


PROMPTS = ([0], [1], [2, 0])
RATED = {0: [2.4, 1.6], 1: [3.0, 2.4], 2: [3.4, 2.9]}
"""What the reward model predicts of each of the three tokens."""
ASKED = (4, 2)


def token_probabilities(model: Any, prompt: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([prompt])).logits[0, -1].double().softmax(-1)


def drawn_group(policy: Any, prior: Any, prompt: list[int], samples: int, seed: int) -> Group:
    """Responses of one token, drawn from a policy at temperature 1, and their log-probabilities."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.multinomial(token_probabilities(policy, prompt), samples, replacement=True, generator=generator)
    examples = [Example([*prompt, int(token)], [False] * len(prompt) + [True]) for token in drawn]
    rated = np.array([RATED[int(token)] for token in drawn])
    logs = (
        attribute_log_probs(rated, ASKED, 24),
        response_log_probs(prior, examples),
        response_log_probs(policy, examples),
    )
    return Group(examples, *map(torch.tensor, logs))


def distance(policy: Any, prior: Any) -> float:
    """Largest total variation distance, over prompts, of a policy from P(a|x,y) P(y|x) / Z by enumeration."""
    likely = np.exp(attribute_log_probs(np.array([RATED[token] for token in range(3)]), ASKED, 24))
    found = []
    for prompt in PROMPTS:
        posterior = likely * token_probabilities(prior, prompt).numpy()
        found.append(0.5 * np.abs(token_probabilities(policy, prompt).numpy() - posterior / posterior.sum()).sum())
    return max(found)


def test_a_policy_over_three_tokens_approaches_the_enumerated_posterior(tmp_path: Path) -> None:
    prior, policy = llama(1), llama(2)
    groups = [drawn_group(policy, prior, prompt, 200, n) for n, prompt in enumerate(PROMPTS)]
    assert distance(policy, prior) > 0.3
    method = METHOD.model_copy(
        update={"learning_rate": 2e-2, "batch_size": 3, "epochs": 80, "micro_batch_tokens": 4096}
    )
    curve = train(policy, groups, groups, method, 0, tmp_path, quiet)
    assert distance(policy, prior) < 0.05
    told = [row["divergence"] for row in curve if row["part"] == "development"]
    assert told[-1] < 1e-3 < told[0]


# ------------------------------------------------------------------------------------------------------------------------------ samples


def test_samples_are_read_with_and_without_levels_and_only_whole_ones_end() -> None:
    tokenizer = tokenizer_of(LAYOUTS["qwen_2_5"])
    asks, target = [{"role": "user", "content": "one two"}], {"helpfulness": 4}
    row = {"prompt_id": "p", "messages": asks, "response": "three four", "ended": True}
    table = pa.Table.from_pylist(
        [row, row | {"ended": False}, row | {"response": "a " * 200}, row | {"response": "", "ended": False}]
    )
    whole, cut, long, nothing = encode_samples(table, tokenizer, target, 150)  # type: ignore[arg-type]
    assert (long, nothing) == (None, None)
    assert whole is not None
    assert cut is not None
    before = prompt_ids(tokenizer, conditioned(asks, target))  # type: ignore[arg-type]
    assert whole.ids[: whole.prompt] == before
    assert whole.ids[whole.prompt :] == response_ids(
        tokenizer, "three four", tokenizer.convert_tokens_to_ids("<|im_end|>")
    )
    assert cut.ids == whole.ids[:-1]
    plain = encode_samples(table, tokenizer, {}, 150)[0]
    assert plain is not None
    assert plain.ids[: plain.prompt] == prompt_ids(tokenizer, asks)
    assert plain.ids[plain.prompt :] == whole.ids[whole.prompt :]


def test_groups_leave_out_what_has_no_weight_and_prompts_of_one_sample() -> None:
    table = pa.table(
        {
            "prompt_id": ["p", "q", "p", "r", "r", "r"],
            "helpfulness": [4.0, 3.0, 2.0, None, 1.0, 0.5],
            "verbosity": [2.0] * 6,
        }
    )
    examples: list[Example | None] = [Example([n, n], [False, True]) for n in range(6)]
    logs = -np.arange(6.0)
    groups = groups_of(table, {"helpfulness": 4, "verbosity": 2}, 24, examples, logs, 2 * logs)
    assert [[example.ids[0] for example in group.examples] for group in groups] == [[0, 2], [4, 5]]
    np.testing.assert_allclose(
        groups[0].attributes, attribute_log_probs(np.array([[4.0, 2.0], [2.0, 2.0]]), [4, 2], 24)
    )
    assert groups[0].prior.tolist() == [0, -2]
    assert groups[0].proposal.tolist() == [0, -4]
    examples[4], logs[0] = None, np.nan
    assert groups_of(table, {"helpfulness": 4}, 24, examples, logs, logs) == []
