"""PPO: its parts against hand-worked cases, plain loops and TRL's numbers; the loop; policies over three tokens against enumerated optima."""

import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, PreTrainedTokenizerFast

from pipeline.alignment import ppo
from pipeline.alignment.encoding import end_of_turn, prompt_ids, response_ids
from pipeline.alignment.goodness import Standard
from pipeline.alignment.policies import token_log_probs
from pipeline.alignment.ppo import Learner, Values, drawn_prompts, train
from pipeline.alignment.sampler import Sample, sample
from pipeline.alignment.sampler import drawn as drawn_tokens
from pipeline.models.classifier import keep_outputs, load_model
from pipeline.models.encoding import prepare_tokenizer
from pipeline.models.probe import Probe
from pipeline.models.scoring import score
from pipeline.settings.alignment import Ppo
from tests.alignment.cutting import CutOffError, Tracker, assert_same
from tests.evaluation.models import save_reward_model
from tests.helpers import quiet
from tests.models.families import LAYOUTS, tokenizer_of
from tests.reward_model.small import small_tokenizer

WEIGHTS = {"helpfulness": 0.65, "correctness": 0.8, "coherence": 0.45}
OUTPUTS = ("helpfulness", "correctness", "coherence", "complexity")
METHOD = Ppo(
    kind="ppo", start="a", steps=4, learning_rate=3e-3, value_learning_rate=3e-3, batch_size=4, micro_batch_tokens=64, evaluations=2,
    precision="float32", warmup_steps=3, max_new_tokens=5, passes=2, kl=0.05, entropy=0.01,
)  # fmt: skip


def of(**changes: Any) -> Ppo:
    return METHOD.model_copy(update=changes)


# ------------------------------------------------------------------------------------------------------------------- rewards, advantages


def mask_of(lengths: Sequence[int]) -> torch.Tensor:
    return torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)


def drawn(seed: int, lengths: Sequence[int], count: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """A mask, and quantities of tokens that are not 0 where there is padding."""
    generator = torch.Generator().manual_seed(seed)
    mask = mask_of(lengths)
    return mask, [torch.randn(mask.shape, dtype=torch.float64, generator=generator) for _ in range(count)]


lengths_of = st.lists(st.integers(1, 7), min_size=1, max_size=5)
seeds = st.integers(0, 2**31)


def test_rewards_of_a_case_by_hand() -> None:
    log_probs = torch.tensor([[-1.0, -2.0, -0.5], [-1.0, 9.0, 9.0]])
    reference = torch.tensor([[-1.5, -1.0, -0.5], [-3.0, -9.0, -9.0]])
    found = ppo.token_rewards(log_probs, reference, mask_of([3, 1]), torch.tensor([2.0, -1.0]), 0.1)
    assert torch.allclose(found, torch.tensor([[-0.05, 0.1, 2.0], [-1.2, 0.0, 0.0]]))


def test_advantages_of_a_case_by_hand() -> None:
    rewards, values = torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([[0.5, 0.4, 0.2]])
    mask = mask_of([3])
    found, returns = ppo.advantages(rewards, values, mask, 1.0, 0.95)
    errors = (-0.1, -0.2, 0.8)
    wanted = [errors[0] + 0.95 * errors[1] + 0.95**2 * errors[2], errors[1] + 0.95 * errors[2], errors[2]]
    assert found[0].tolist() == pytest.approx(wanted)
    assert returns[0].tolist() == pytest.approx([0.5 + wanted[0], 0.4 + wanted[1], 1.0])
    assert ppo.advantages(rewards, values, mask, 1.0, 1.0)[1][0].tolist() == pytest.approx([1, 1, 1])
    assert ppo.advantages(rewards, values, mask, 0.9, 0.0)[0][0].tolist() == pytest.approx([-0.14, -0.22, 0.8])


@settings(max_examples=60, deadline=None)
@given(lengths_of, seeds, st.floats(0, 1), st.floats(0, 1), st.floats(0, 2))
def test_rewards_and_advantages_are_those_of_a_plain_loop(
    lengths: list[int], seed: int, gamma: float, lam: float, kl: float
) -> None:
    mask, (log_probs, reference, values) = drawn(seed, lengths, 3)
    scores = torch.arange(len(lengths)).double() - 1.3
    rewards = ppo.token_rewards(log_probs, reference, mask, scores, kl)
    found, returns = ppo.advantages(rewards, values, mask, gamma, lam)
    for n, length in enumerate(lengths):
        r = [-kl * float(log_probs[n, t] - reference[n, t]) for t in range(length)]
        r[-1] += float(scores[n])
        v = [*values[n, :length].tolist(), 0.0]
        errors = [r[t] + gamma * v[t + 1] - v[t] for t in range(length)]
        sums = [sum((gamma * lam) ** k * errors[t + k] for k in range(length - t)) for t in range(length)]
        assert rewards[n, :length].tolist() == pytest.approx(r)
        assert found[n, :length].tolist() == pytest.approx(sums)
        assert returns[n, :length].tolist() == pytest.approx([a + b for a, b in zip(sums, v[:-1], strict=True)])
    for quantity in (rewards, found, returns):
        assert (quantity[~mask] == 0).all()


@settings(max_examples=60, deadline=None)
@given(lengths_of, seeds)
def test_advantages_are_normalised_over_the_tokens_of_the_whole_batch(lengths: list[int], seed: int) -> None:
    mask, (values,) = drawn(seed, lengths, 1)
    found = ppo.normalised(5 * values + 3, mask)
    assert (found[~mask] == 0).all()
    assert float(found[mask].mean()) == pytest.approx(0, abs=1e-9)
    assert float(found[mask].std(correction=0)) == pytest.approx(1 if sum(lengths) > 1 else 0, abs=1e-6)
    if len(lengths) > 1:
        alone = ppo.normalised((5 * values + 3)[:1], mask[:1])
        assert not torch.allclose(found[:1], alone), "a response isn't normalised by itself"


# -------------------------------------------------------------------------------------------------------------------- losses, divergence


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "cut"),
    [(1, 2, -2, False), (1.5, 2, -2.4, True), (0.5, 2, -1, False), (1.5, -2, 3, False), (0.5, -2, 1.6, True), (1.2, 1, -1.2, False)],
)  # fmt: skip
def test_policy_losses_by_hand(ratio: float, advantage: float, loss: float, cut: bool) -> None:
    log_probs = torch.tensor([math.log(ratio) - 1], dtype=torch.float64, requires_grad=True)
    given = log_probs, torch.tensor([-1.0], dtype=torch.float64), torch.tensor([float(advantage)]).double(), 0.2
    found = ppo.policy_losses(*given)
    assert found.item() == pytest.approx(loss)
    assert ppo.clipped(*given).tolist() == [cut]
    found.sum().backward()
    if ratio != 1.2:  # where the bound itself is, either is right
        assert log_probs.grad is not None
        assert log_probs.grad.item() == pytest.approx(0 if cut else -advantage * ratio)


@pytest.mark.parametrize(
    ("value", "target", "loss"), [(1.1, 2, 0.405), (1.5, 2, 0.32), (1.5, 1, 0.125), (0.3, 2, 1.445), (0.3, 0, 0.32)]
)
def test_value_losses_by_hand(value: float, target: float, loss: float) -> None:
    """The old value is 1, and values count at most .2 from it."""
    found = ppo.value_losses(torch.tensor([value]), torch.tensor([1.0]), torch.tensor([float(target)]), 0.2)
    assert found.item() == pytest.approx(loss)


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(2, 9))
def test_estimators_have_the_divergence_as_their_mean_and_entropy_is_the_enumerated_one(seed: int, tokens: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits, other = torch.randn(2, tokens, dtype=torch.float64, generator=generator)
    log_pi, log_ref = logits.log_softmax(-1), other.log_softmax(-1)
    pi = log_pi.exp()
    divergence = sum(float(pi[n] * (log_pi[n] - log_ref[n])) for n in range(tokens))
    assert float((pi * ppo.k1(log_pi, log_ref)).sum()) == pytest.approx(divergence)
    assert float((pi * ppo.k3(log_pi, log_ref)).sum()) == pytest.approx(divergence)
    assert (ppo.k3(log_pi, log_ref) >= -1e-12).all()
    assert (ppo.k3(log_pi, log_pi) == 0).all()
    assert float(ppo.entropies(logits)) == pytest.approx(-sum(float(p) * math.log(float(p)) for p in pi))


def test_explained_variance() -> None:
    returns = torch.tensor([1.0, 2.0, 4.0])
    assert ppo.explained_variance(returns - 3, returns) == pytest.approx(1)
    assert ppo.explained_variance(torch.ones(3), returns) == pytest.approx(0)
    assert ppo.explained_variance(-returns, returns) == pytest.approx(-3)
    assert ppo.explained_variance(returns, torch.ones(3)) == 0


def test_numbers_are_those_of_trl() -> None:
    """What the lines of TRL 1.12.0's `PPOTrainer` (trl/experimental/ppo/ppo_trainer.py, steps 4 to 6, and its losses) give for the same numbers.

    Its score is put on the last token of a response here, where TRL puts it one later if there is padding. Settings: KL .3, gamma .97,
    lambda .9, clips .2. TRL's standard deviation is that of a sample, ours that of a population.
    """

    def three(*rows: list[float]) -> torch.Tensor:
        return torch.tensor([[*row, *[7.0] * (3 - len(row))] for row in rows], dtype=torch.float64)

    mask = mask_of([3, 1, 2])
    log_probs = three([-0.12573, -0.132105, -0.640423], [-0.1049], [-1.304, -0.947081])
    reference = three([-1.265421, -0.623274, -0.041326], [-2.325031], [-0.732267, -0.544259])
    values = three([0.411631, 1.042513, -0.128535], [1.366463], [0.90347, 0.094012])
    scores = torch.tensor([-0.921725, -0.457726, 0.220195], dtype=torch.float64)
    now = three([-0.428616, -0.194858, -0.68819], [0.057354], [-1.500149, -0.985965])
    values_now = three([0.85966, 0.664794, 0.325642], [1.770226], [0.809293, 0.531419])
    rewards = ppo.token_rewards(log_probs, reference, mask, scores, 0.3)
    advantage, returns = ppo.advantages(rewards, values, mask, 0.97, 0.9)
    scaled = ppo.normalised(advantage, mask) * math.sqrt(5 / 6)
    for found, wanted in (
        (rewards, [-0.341907, -0.147351, -0.741996, -1.123765, 0.17152, 0.341042]),
        (advantage, [-1.357433, -1.850095, -0.613462, -2.490228, -0.425102, 0.247029]),
        (returns, [-0.945802, -0.807582, -0.741996, -1.123765, 0.478368, 0.341042]),
        (scaled, [-0.274073, -0.763501, 0.465014, -1.399432, 0.652137, 1.319856]),
    ):
        assert found[mask].tolist() == pytest.approx(wanted, abs=5e-6)
    assert float(ppo.policy_losses(now, log_probs, scaled, 0.2)[mask].mean()) == pytest.approx(0.055574, abs=5e-6)
    assert float(ppo.value_losses(values_now, values, returns, 0.2)[mask].mean()) == pytest.approx(1.303608, abs=5e-6)
    assert float(ppo.clipped(now, log_probs, scaled, 0.2)[mask].double().mean()) == pytest.approx(1 / 6)


# ------------------------------------------------------------------------------------------------------------------------------- models


def llama(seed: int, vocabulary: int = 9, width: int = 16) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=vocabulary, hidden_size=width, intermediate_size=width, num_hidden_layers=1, num_attention_heads=2,
                    initializer_range=0.5)
    ).eval()  # fmt: skip


def values_of(seed: int, vocabulary: int = 9, width: int = 16) -> Values:
    from transformers import LlamaForSequenceClassification

    torch.manual_seed(seed)
    config = LlamaConfig(vocab_size=vocabulary, hidden_size=width, intermediate_size=width, num_hidden_layers=1, num_attention_heads=2,
                         num_labels=1, pad_token_id=0, initializer_range=0.5)  # fmt: skip
    return Values(LlamaForSequenceClassification(config), None, Standard(0.3, 2.0))


def gradients(model: Any) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def weights_of(model: Any) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def samples_of(seed: int, count: int = 5, vocabulary: int = 9) -> list[Sample]:
    generator = np.random.default_rng(seed)
    return [
        Sample(generator.integers(vocabulary, size=n % 3 + 1).tolist(), generator.integers(vocabulary, size=size).tolist(), n % 2 == 0)
        for n, size in enumerate(generator.integers(1, 7, count))
    ]  # fmt: skip


def test_a_value_at_the_end_of_a_response_is_the_standardised_reward(tmp_path: Path) -> None:
    folder, standard = save_reward_model(tmp_path / "four", OUTPUTS), Standard(0.3, 0.2)
    tokenizer = prepare_tokenizer(PreTrainedTokenizerFast.from_pretrained(folder))
    end = end_of_turn(tokenizer)
    asks = [{"role": "user", "content": "one two"}]
    encoded = [
        [*prompt_ids(tokenizer, asks), *response_ids(tokenizer, text, end)] for text in ("good", "bad six yes no a")
    ]
    goodness = score(load_model(folder), encoded) @ [0.65, 0.8, 0.45, 0]
    values = Values(load_model(folder), WEIGHTS, standard)
    ids, mask = torch.zeros(2, len(encoded[1]), dtype=torch.long), torch.zeros(2, len(encoded[1]), dtype=torch.long)
    for n, row in enumerate(encoded):
        ids[n, : len(row)], mask[n, : len(row)] = torch.tensor(row), 1
    with torch.no_grad():
        found = values(ids, mask)
        assert found.shape == ids.shape
        lasts = [float(found[n, len(row) - 1]) for n, row in enumerate(encoded)]
        assert lasts == pytest.approx(standard.of(goodness).tolist(), abs=1e-4)
        model = load_model(folder)
        keep_outputs(model, [[0.65, 0.8, 0.45, 0]], ("goodness",))
        assert torch.allclose(Values(model, None, standard)(ids, mask), found, atol=1e-4)
        samples = [Sample(row[:3], row[3:], True) for row in encoded]
        before = ppo.response_values(values, samples)
        wanted = torch.cat([found[n, 2 : len(row) - 1] for n, row in enumerate(encoded)])
        assert torch.allclose(before, wanted), "a token's value is of what stands before it"
    assert len(list(values.parameters())) > 2
    with pytest.raises(ValueError, match="weights are needed"):
        Values(load_model(folder), None, standard)


@pytest.mark.parametrize("poolings", [("last",), ("mean",), ("last", "mean")])
def test_a_probes_value_after_a_token_is_its_reward_of_what_stands_until_there(poolings: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    backbone = LlamaForCausalLM(
        LlamaConfig(vocab_size=9, hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2)
    ).model
    probe = Probe(backbone, (1, 3), poolings, OUTPUTS).eval()
    ids, mask = torch.randint(9, (2, 6)), torch.tensor([[1] * 6, [1] * 4 + [0] * 2])
    standard = Standard(0.3, 0.2)
    with torch.no_grad():
        rewards = [
            [
                standard.of(probe(row[None, : n + 1], m[None, : n + 1]).logits[0].numpy() @ [0.65, 0.8, 0.45, 0])
                for n in range(int(m.sum()))
            ]
            for row, m in zip(ids, mask, strict=True)
        ]
        values = Values(probe, WEIGHTS, standard)(ids, mask)
    for n, row in enumerate(rewards):
        assert values[n, : len(row)].tolist() == pytest.approx([float(r) for r in row], abs=1e-5)
    assert {name.split(".")[0] for name, _ in Values(probe, WEIGHTS, standard).named_parameters()} == {
        "backbone",
        "head",
    }


def test_values_are_of_a_causal_model_that_reads_the_policys_tokens() -> None:
    from transformers import BertConfig, BertForSequenceClassification

    encoder = BertForSequenceClassification(
        BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, num_labels=1)
    )
    with pytest.raises(ValueError, match="causal base model"):
        Values(encoder, None, Standard(0, 1))
    one, other = tokenizer_of(LAYOUTS["qwen_2_5"]), tokenizer_of(LAYOUTS["llama_3"])
    ppo.refuse_other_tokens(one, one)
    with pytest.raises(ValueError, match="another tokenizer"):
        ppo.refuse_other_tokens(one, other)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_log_probabilities_are_the_policys(temperature: float) -> None:
    model, samples = llama(1), samples_of(3)
    with torch.no_grad():
        found = ppo.log_probs_of(*ppo.response_logits(model, samples, temperature))
        wanted = []
        for one in samples:
            ids = torch.tensor([one.example.ids])
            wanted.append(
                token_log_probs(model, ids, torch.ones_like(ids), temperature)[0, torch.tensor(one.example.trained)]
            )
    assert torch.allclose(found, torch.cat(wanted), atol=1e-5)


# -------------------------------------------------------------------------------------------------------------------------- a round


class Caught(torch.optim.SGD):
    """Changes nothing, and keeps the gradients that it was to go by."""

    def __init__(self, model: Any) -> None:
        super().__init__(model.parameters(), lr=0.0)
        self.model, self.seen = model, list[torch.Tensor]()

    def step(self, closure: Any = None) -> None:
        del closure
        self.seen.append(gradients(self.model).clone())


def caught(samples: Sequence[Sample], scores: Sequence[float], method: Ppo) -> tuple[dict[str, float], list[Caught]]:
    """Figures of a round, and the gradients of policy and value model, uncut."""
    learner = Learner(llama(1), llama(2), values_of(3), method)
    catching = {name: Caught(model) for name, model in learner.models.items()}
    learner.optimisers.clear()
    learner.optimisers.update(catching)
    return learner.learn(samples, np.array(scores, dtype=np.float64)), list(catching.values())


@pytest.fixture
def uncut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ppo, "LARGEST_NORM", 1e9)


@pytest.mark.usefixtures("uncut")
@pytest.mark.parametrize("tokens", [1, 13, 30, 4096])
def test_however_a_round_is_cut_into_passes_gradients_and_figures_are_those_of_one_response_after_the_other(
    tokens: int,
) -> None:
    samples, scores, method = (
        samples_of(0),
        [1.0, -1.0, 0.5, -1.0, 2.0],
        of(passes=1, micro_batch_tokens=tokens, temperature=0.8),
    )
    figures, (policy, values) = caught(samples, scores, method)
    model, reference, critic = llama(1), llama(2), values_of(3)
    count, log_probs, refs, befores, entropy = sum(len(one.response) for one in samples), [], [], [], []
    for one in samples:
        ids, at = torch.tensor([[*one.prompt, *one.response]]), len(one.prompt)
        logits = model(ids).logits[0, at - 1 : -1] / 0.8
        tokens_of = torch.tensor(one.response).unsqueeze(1)
        log_probs.append(logits.log_softmax(-1).gather(1, tokens_of)[:, 0])
        entropy.append(torch.distributions.Categorical(logits=logits).entropy().sum())
        refs.append((reference(ids).logits[0, at - 1 : -1] / 0.8).log_softmax(-1).gather(1, tokens_of)[:, 0].detach())
        befores.append(critic(ids, torch.ones_like(ids))[0, at - 1 : -1])
    found = []
    for lp, ref, v, s in zip(log_probs, refs, befores, scores, strict=True):
        mask = torch.ones(1, len(lp), dtype=torch.bool)
        rewards = ppo.token_rewards(lp.detach()[None], ref[None], mask, torch.tensor([s]), method.kl)
        found.append([x[0] for x in ppo.advantages(rewards, v.detach()[None], mask, method.gamma, method.gae_lambda)])
    whole = torch.cat([a for a, _ in found])
    scaled = (whole - whole.mean()) / whole.std(correction=0)
    ratio = (torch.cat(log_probs) - torch.cat(log_probs).detach()).exp()
    loss = (-scaled * ratio).sum() / count
    (loss - method.entropy * torch.stack(entropy).sum() / count).backward()
    off = 0.5 * (torch.cat(befores) - torch.cat([r for _, r in found])).square().sum() / count
    off.backward()
    assert torch.allclose(policy.seen[0], gradients(model), atol=1e-5)
    assert torch.allclose(values.seen[0], gradients(critic), atol=1e-5)
    k1s = [float((lp - ref).detach().sum()) for lp, ref in zip(log_probs, refs, strict=True)]
    assert figures == pytest.approx(
        {
            "kl": np.mean(k1s),
            "kl_token": float(torch.cat([ppo.k3(*x) for x in zip(log_probs, refs, strict=True)]).detach().mean()),
            "entropy": float(torch.stack(entropy).detach().sum()) / count,
            "tokens": count / 5,
            "unended": 0.4,
            "explained_variance": ppo.explained_variance(torch.cat(befores).detach(), torch.cat([r for _, r in found])),
            "reward": 0.3,
            "policy_loss": loss.item(),
            "clip_fraction": 0.0,
            "policy_gradient_norm": float(gradients(model).norm()),
            "value_loss": off.item(),
            "value_gradient_norm": float(gradients(critic).norm()),
        },
        abs=1e-4,
    )


@pytest.mark.usefixtures("uncut")
def test_padding_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    samples, scores = samples_of(4), [1.0, 0.0, 0.5, -1.0, 2.0]
    plain = caught(samples, scores, of(micro_batch_tokens=4096, passes=1))
    own = ppo.padded
    monkeypatch.setattr(ppo, "padded", lambda rows: own(rows, 8))
    filled = caught(samples, scores, of(micro_batch_tokens=4096, passes=1))
    assert filled[0] == pytest.approx(plain[0], abs=1e-6)
    for one, other in zip(plain[1], filled[1], strict=True):
        assert torch.allclose(one.seen[0], other.seen[0], atol=1e-6)


def test_the_second_pass_has_the_first_ones_advantages_and_ratios_that_are_not_1() -> None:
    learner = Learner(llama(1), llama(2), values_of(3), of(passes=1, learning_rate=0.02))
    samples, scores = samples_of(1, 30), np.linspace(-1, 1, 30)
    first = learner.learn(samples, scores)
    assert first["clip_fraction"] == 0
    assert first["policy_loss"] == pytest.approx(0, abs=1e-5), "normalised advantages sum to 0"
    more = Learner(llama(1), llama(2), values_of(3), of(passes=6, learning_rate=0.02)).learn(samples, scores)
    assert more["clip_fraction"] > 0
    assert more["policy_loss"] < -0.01
    assert more["kl"] == pytest.approx(first["kl"]), "what the policy was before the round"


def test_in_bfloat16_a_policy_that_has_learned_nothing_has_ratios_of_1() -> None:
    samples, scores = samples_of(1, 30), np.linspace(-1, 1, 30)
    found = Learner(llama(1), llama(1), values_of(3), of(passes=1, precision="bfloat16")).learn(samples, scores)
    assert found["clip_fraction"] == found["kl"] == 0
    assert found["policy_loss"] == pytest.approx(0, abs=1e-5)
    assert all(math.isfinite(value) for value in found.values())


def test_the_learning_rates_are_their_own_and_rise_in_the_warm_up() -> None:
    """AdamW's first step moves each weight by the learning rate, whatever the gradient."""
    for warm in (1.0, 1 / 3):
        policy, values = llama(1), values_of(3)
        before = weights_of(policy), weights_of(values)
        learner = Learner(policy, llama(2), values, of(passes=1, learning_rate=3e-4, value_learning_rate=6e-4))
        learner.learn(samples_of(0), np.arange(5.0), warm)
        for model, start, rate in ((policy, before[0], 3e-4), (values, before[1], 6e-4)):
            assert float((weights_of(model) - start).abs().max()) == pytest.approx(rate * warm, rel=1e-2)


def adapted(model: Any) -> Any:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(5)
    return get_peft_model(
        model, LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj", "v_proj"], lora_dropout=0.2)
    )


def test_a_policy_with_adapters_is_held_to_itself_without_them() -> None:
    samples, scores = samples_of(0), np.arange(5.0)
    policy = adapted(llama(1))
    learner = Learner(policy, None, values_of(3), of(passes=1, learning_rate=0.05))
    start = learner.learn(samples, scores)
    assert start["kl"] == pytest.approx(0, abs=1e-6)
    found = learner.learn(samples, scores)
    learner = Learner(policy, llama(1), values_of(3), of(passes=1))
    own = Learner(policy, None, values_of(3), of(passes=1))
    one, other = own._look(samples, scores)[1], learner._look(samples, scores)[1]
    assert one == pytest.approx(other, abs=1e-5)
    assert abs(found["kl"]) > 1e-3
    with pytest.raises(ValueError, match="needs a reference of its own"):
        Learner(llama(1), None, values_of(3), METHOD)


# ----------------------------------------------------------------------------------------------------------------------------- sampling


def test_samples_depend_on_seed_and_place_alone_not_on_passes() -> None:
    model, prompts = llama(1), [[1], [2, 3, 4], [5, 6], [7, 8, 1, 2, 3], [1]]
    whole = sample(model, prompts, 0, 8, (3, 1))
    assert [one.prompt for one in whole] == prompts
    for tokens in (1, 25):
        assert sample(model, prompts, 0, 8, (3, 1), tokens=tokens) == whole
    assert sample(model, prompts[:2], 0, 8, (3, 1)) == whole[:2]
    assert sample(model, prompts, 0, 8, (3, 2)) != whole
    for one in whole:
        assert one.ended == (one.response[-1] == 0)
        assert one.ended or len(one.response) == 8
        assert 0 not in one.response[:-1]
    assert {one.ended for one in sample(model, prompts * 8, 0, 8, (3, 1))} == {True, False}


def windowed(seed: int) -> MistralForCausalLM:
    torch.manual_seed(seed)
    return MistralForCausalLM(
        MistralConfig(vocab_size=9, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
                      num_key_value_heads=2, sliding_window=3, initializer_range=0.5)
    ).eval()  # fmt: skip


@pytest.mark.parametrize(("kind", "temperature"), [(llama, 1.0), (llama, 0.5), (windowed, 1.0)])
def test_left_padding_and_the_cache_change_no_probability(kind: Callable[[int], Any], temperature: float) -> None:
    """Each token is the one that its number picks from the probabilities of a plain pass over what stands before it."""
    model, prompts = kind(1), [[1], [2, 3, 4], [5, 6]]
    found = sample(model, prompts, 0, 6, (9,), temperature)
    numbers = np.random.default_rng([9]).random((3, 6))
    for one, row in zip(found, numbers, strict=True):
        for n, token in enumerate(one.response):
            with torch.no_grad():
                logits = model(torch.tensor([[*one.prompt, *one.response[:n]]])).logits[0, -1].double()
            upto = (logits / temperature).softmax(-1).cumsum(-1)
            assert token == int((upto <= row[n]).sum())
    method = of(temperature=temperature, max_new_tokens=6)
    assert Learner(model, kind(2), values_of(3), method).samples(prompts, 0, (9,)) == found


def test_the_rarest_token_can_be_drawn_and_one_without_probability_never() -> None:
    logits = torch.tensor([[0.0, -40.0, -torch.inf]] * 3)
    numbers = torch.tensor([0.0, 0.5, 1 - 2**-53], dtype=torch.float64)
    assert drawn_tokens(logits, numbers, 1.0).tolist() == [0, 0, 0]
    assert drawn_tokens(logits, numbers, 2.0).tolist() == [0, 0, 1]


def test_tokens_are_drawn_at_their_probabilities() -> None:
    model = llama(1, 3)
    with torch.no_grad():
        wanted = model(torch.tensor([[1]])).logits[0, -1].softmax(-1)
    found = [one.response[0] for one in sample(model, [[1]] * 4000, 2, 1, (0,))]
    assert (np.bincount(found, minlength=3) / 4000).tolist() == pytest.approx(wanted.tolist(), abs=0.025)


# -------------------------------------------------------------------------------------------------------------------- three tokens


def three_tokens() -> PreTrainedTokenizerFast:
    """Words a and b, and the end of a turn; a prompt is the words of the user."""
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1, "<end>": 2}, unk_token="b"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>", additional_special_tokens=["<end>"],
        chat_template="{% for m in messages %}{{ m['content'] }}{% if m['role'] == 'assistant' %}{{ '<end>' }}{% endif %}{% endfor %}",
    )  # fmt: skip


def probability(model: Any, prompt: Sequence[int], response: Sequence[int]) -> float:
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *response]])).logits[0, len(prompt) - 1 : -1].double()
    return float(logits.log_softmax(-1).gather(1, torch.tensor(response).unsqueeze(1)).sum().exp())


def distance(
    policy: Any, reference: Any, prompt: Sequence[int], rewards: dict[tuple[int, ...], float], kl: float
) -> float:
    """Total variation distance from reference * exp(reward / kl) / Z, whose responses are all enumerated in `rewards`."""
    weights = np.array([probability(reference, prompt, y) * math.exp(r / kl) for y, r in rewards.items()])
    mine = np.array([probability(policy, prompt, y) for y in rewards])
    assert mine.sum() == pytest.approx(1, abs=1e-6)
    return float(0.5 * np.abs(mine - weights / weights.sum()).sum())


def test_a_policy_over_three_tokens_approaches_the_enumerated_optimum() -> None:
    rewards, kl, prompts = {(0,): 0.4, (1,): -0.3, (2,): 0.1}, 0.5, ([0], [1], [1, 0])
    policy, reference = llama(1, 3), llama(1, 3)
    method = of(learning_rate=1e-2, value_learning_rate=1e-2, kl=kl, passes=2, entropy=0, max_new_tokens=1, micro_batch_tokens=9999)  # fmt: skip
    learner = Learner(policy, reference, values_of(3, 3), method)
    start = max(distance(policy, reference, prompt, rewards, kl) for prompt in prompts)
    for step in range(60):
        samples = learner.samples([*prompts] * 100, 2, (0, step))
        scores = np.array([rewards[tuple(one.response)] for one in samples])
        learner.learn(samples, scores, 1 - step / 60)
    found = max(distance(policy, reference, prompt, rewards, kl) for prompt in prompts)
    assert start > 0.15
    assert found < 0.04


def test_so_does_one_that_ends_or_is_cut_off(tmp_path: Path) -> None:
    """All seven responses of at most two tokens, of which four don't end: the score stands on the last token, `unended` instead of it.

    No prompt is another one's with the beginning of a response: a policy over both would have to compromise.
    """
    tokenizer, kl, prompts = three_tokens(), 0.5, ([1], [0, 0, 1])
    texts = {"": 0.2, "a": 0.6, "b": -0.2}
    rewards = {(2,): 0.2, (0, 2): 0.6, (1, 2): -0.2} | dict.fromkeys(itertools.product((0, 1), repeat=2), -0.5)
    policy, reference, values = llama(2, 3), llama(2, 3), values_of(3, 3)
    asks = [[{"role": "user", "content": text}] for text in ("b", "a a b")]
    asked: list[str] = []

    def reward(conversations: Sequence[Any], responses: Sequence[str]) -> list[float]:
        assert all(messages in asks for messages in conversations)
        asked.extend(responses)
        return [texts[text] for text in responses]

    start = max(distance(policy, reference, prompt, rewards, kl) for prompt in prompts)
    unended = []
    for rate in (1e-2, 3e-3, 1e-3):
        method = of(
            steps=30, learning_rate=rate, value_learning_rate=2 * rate, kl=kl, entropy=0, max_new_tokens=2, micro_batch_tokens=9999,
            batch_size=300, evaluations=1, unended=-0.5, gae_lambda=1.0, value_clip=10.0,
        )  # fmt: skip
        curve = train(policy, reference, values, tokenizer, asks, reward, method, 0, tmp_path / str(rate), quiet)
        unended += [row["unended"] for row in curve]
    found = max(distance(policy, reference, prompt, rewards, kl) for prompt in prompts)
    assert start > 0.4
    assert found < 0.05
    assert set(asked) == set(texts)
    assert unended[-1] < unended[0] / 1.5


# ------------------------------------------------------------------------------------------------------------------------------ training


ASKS = [[{"role": "user", "content": text}] for text in ("one", "two three", "four", "five one", "three")]


def lengths(_: Sequence[Any], responses: Sequence[str]) -> list[float]:
    return [len(text) / 10 for text in responses]


@pytest.mark.parametrize("adapters", [False, True])
def test_a_training_that_is_cut_off_goes_on_and_ends_with_the_same_weights(tmp_path: Path, adapters: bool) -> None:
    tokenizer = three_tokens()
    asks = [[{"role": "user", "content": text}] for text in ("a", "b", "b a", "a a", "a b a")]

    def run(name: str, tracker: Any = None, log: Any = quiet) -> tuple[Any, Values, list[dict[str, Any]]]:
        policy = adapted(llama(1, 3)) if adapters else llama(1, 3)
        values, reference = values_of(3, 3), None if adapters else llama(1, 3)
        return policy, values, train(policy, reference, values, tokenizer, asks, lengths, METHOD, 7, tmp_path / name, log, tracker)  # fmt: skip

    tracker, said = Tracker(), list[str]()
    whole, values, curve = run("whole", tracker)
    with pytest.raises(CutOffError):
        run("cut", Tracker(3))
    again, values_again, resumed = run("cut", log=said.append)
    assert "Training goes on from step 2" in said
    start = adapted(llama(1, 3)) if adapters else llama(1, 3)
    for (name, one), other, before in zip(whole.named_parameters(), again.parameters(), start.parameters(), strict=True):  # fmt: skip
        assert torch.allclose(one, other, atol=1e-6), name
        assert torch.equal(one, before) == (adapters and "lora" not in name), name
    assert torch.allclose(weights_of(values), weights_of(values_again), atol=1e-6)
    assert not torch.allclose(weights_of(values), weights_of(values_of(3, 3)), atol=1e-4)
    assert [(row["step"], row["part"]) for row in resumed] == [(n, "train") for n in range(1, 5)]
    assert_same(curve, resumed)
    assert {"train_reward", "train_kl", "train_unended", "train_explained_variance"} <= tracker.names
    assert curve[0]["kl"] == pytest.approx(0, abs=1e-5)
    assert run("cut")[2] == resumed, "what is done is not done again"


def test_a_policy_that_is_rewarded_for_a_word_writes_it_more_often(tmp_path: Path) -> None:
    tokenizer = small_tokenizer()
    count = len(tokenizer)
    policy, reference, values = llama(2, count), llama(2, count), values_of(3, count)

    def share(_: Sequence[Any], responses: Sequence[str]) -> list[float]:
        return [text.split().count("two") / max(1, len(text.split())) for text in responses]

    method = of(
        steps=30, batch_size=128, max_new_tokens=6, value_learning_rate=1e-2, passes=3, kl=0.02, unended=-0.1, micro_batch_tokens=4096,
        evaluations=1, entropy=0.0,
    )  # fmt: skip
    curve = train(policy, reference, values, tokenizer, ASKS, share, method, 0, tmp_path, quiet)
    first, last = (float(np.mean([row["reward"] for row in part])) for part in (curve[:5], curve[-5:]))
    assert first < 0.1
    assert last > 0.8
    assert curve[-1]["kl"] > curve[0]["kl"]
    assert curve[-1]["unended"] < curve[0]["unended"]


def test_unended_responses_have_their_own_reward_and_what_gets_no_number_is_left_out(tmp_path: Path) -> None:
    tokenizer, end = three_tokens(), 2
    samples = [Sample([0], [1, 0], False), Sample([0], [1, end], True), Sample([1], [end], True)]
    asked: list[Any] = []

    def reward(conversations: Sequence[Any], responses: Sequence[str]) -> list[float]:
        asked.append((list(conversations), list(responses)))
        return [math.nan if text == "" else 3.0 for text in responses]

    found = ppo.scored(tokenizer, ["x", "y", "z"], samples, reward, -1.5)  # type: ignore[list-item]
    assert asked == [(["y", "z"], ["b", ""])]
    assert found[:2].tolist() == [-1.5, 3.0]
    assert np.isnan(found[2])
    assert ppo.scored(tokenizer, ["x"], samples[:1], reward, -1.5).tolist() == [-1.5]  # type: ignore[list-item]
    assert len(asked) == 1
    said: list[str] = []
    asks = [[{"role": "user", "content": "a"}]]
    method = of(steps=2, batch_size=20, max_new_tokens=2)
    given = llama(1, 3), llama(1, 3), values_of(3, 3), tokenizer, asks
    train(*given, reward, method, 0, tmp_path / "some", said.append)
    assert any("get no reward, and are left out" in line for line in said)
    with pytest.raises(ValueError, match="step 1: no response gets a reward"):
        train(*given, lambda _, r: [math.nan] * len(r), of(max_new_tokens=2, unended=math.nan), 0, tmp_path / "none", quiet)  # fmt: skip


def test_prompts_without_room_for_a_response_or_that_are_refused_are_left_out() -> None:
    tokenizer, said = tokenizer_of(LAYOUTS["gemma_2"]), list[str]()
    asks: list[Any] = [[{"role": "user", "content": text}] for text in ("one", "one " * 50)]
    asks.append([{"role": "assistant", "content": "one"}, {"role": "user", "content": "two"}])
    found = ppo.fitting(tokenizer, asks, 40, said.append)
    assert found == [(asks[0], prompt_ids(tokenizer, asks[0]))]
    assert said == ["1 prompts are left out because they are too long, 1 because the chat template refuses them"]
    with pytest.raises(ValueError, match=r"no prompt is left.*3 of 3 have more than the -2 tokens"):
        ppo.fitting(tokenizer, [asks[0]] * 3, -2, quiet)


def test_prompts_are_drawn_by_seed_and_step_alone() -> None:
    steps = [drawn_prompts(7, 3, 4, step) for step in range(1, 8)]
    flat = list(itertools.chain.from_iterable(steps))
    orders = [flat[n : n + 7] for n in (0, 7, 14)]
    assert all(sorted(order) == list(range(7)) for order in orders)
    assert orders[0] != orders[1]
    assert drawn_prompts(7, 21, 4, 1) == flat
    assert drawn_prompts(7, 3, 5, 1) != steps[0]
