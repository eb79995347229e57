"""RLOO: a round against plain loops over the published formula; the reference; the loop; a policy over three tokens against its optimum."""

import copy
import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel

from pipeline.alignment import rloo
from pipeline.alignment.encoding import end_of_turn, prompt_ids
from pipeline.alignment.ppo import drawn_prompts, entropies, k3, log_probs_of, response_logits
from pipeline.alignment.rloo import train, trainer_of
from pipeline.alignment.sampler import Sample, sample
from pipeline.alignment.tuning import KEPT, borrowed
from pipeline.alignment.watching import Watch
from pipeline.settings.alignment import Rloo
from tests.alignment.cutting import CutOffError, Tracker, assert_same
from tests.alignment.test_ppo import ASKS, adapted, distance, gradients, lengths, llama, three_tokens, weights_of
from tests.helpers import quiet
from tests.reward_model.small import small_tokenizer

METHOD = Rloo(
    kind="rloo", start="a", steps=4, learning_rate=3e-3, batch_size=2, responses=3, micro_batch_tokens=64, evaluations=2,
    precision="float32", warmup_steps=3, max_new_tokens=5, passes=2, kl=0.05,
)  # fmt: skip
TOKENIZER = three_tokens()
NONE = math.nan


def of(**changes: Any) -> Rloo:
    return METHOD.model_copy(update=changes)


# -------------------------------------------------------------------------------------------------------------------------- a round


class Round:
    """A round of a trainer whose samples and scores are given: its loss, figures, and gradients, which are not cut down."""

    def __init__(
        self, policy: Any, reference: Any, samples: Sequence[Sample], scores: Sequence[float], method: Rloo, rate: float = 0.0
    ) -> None:  # fmt: skip
        """rate: of the plain steps by the gradients between passes."""
        prompts = len(samples) // method.responses
        method = method.model_copy(update={"batch_size": prompts})
        with TemporaryDirectory() as work, pytest.MonkeyPatch.context() as patch:
            patch.setattr(rloo, "sample", lambda *_: list(samples))
            patch.setattr(rloo, "scored", lambda *_: np.array(scores, dtype=np.float64))
            patch.setattr(rloo, "LARGEST_NORM", 1e9)
            self.said = list[str]()
            given = TOKENIZER, [([], [1])] * prompts, 2, lengths, method, 0, Path(work), self.said.append
            with borrowed(policy), borrowed(reference or policy):
                self.trainer = trainer_of(policy, reference, *given)
                self.trainer.optimizer = torch.optim.SGD(policy.parameters(), lr=rate)
                self.loss = float(self.trainer.training_step(policy, {}))
        self.gradients = gradients_of(policy)
        self.figures = {name: values[-1] for name, values in self.trainer._metrics["train"].items()}


def gradients_of(policy: Any) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None])


def samples_of(seed: int, prompts: int, responses: int, vocabulary: int = 9) -> list[Sample]:
    generator = np.random.default_rng(seed)
    found = []
    for n in range(prompts):
        prompt = generator.integers(vocabulary, size=n % 3 + 1).tolist()
        for size in generator.integers(1, 7, responses):
            found.append(Sample(prompt, generator.integers(vocabulary, size=size).tolist(), bool(size % 2)))
    return found


def log_prob(model: Any, one: Sample, temperature: float) -> torch.Tensor:
    """Of a response, token by token, without padding."""
    logits, sums = model(torch.tensor([[*one.prompt, *one.response]])).logits[0], []
    for n, token in enumerate(one.response):
        sums.append((logits[len(one.prompt) + n - 1] / temperature).log_softmax(-1)[token])
    return torch.stack(sums)


class Plain:
    """The published formula in plain loops: advantages, and losses of passes between which there are plain steps by the gradients."""

    def __init__(
        self, policy: Any, reference: Any, samples: Sequence[Sample], scores: Sequence[float], method: Rloo, rate: float = 0.0
    ) -> None:  # fmt: skip
        k, t = method.responses, method.temperature
        with torch.no_grad():
            self.old = [log_prob(policy, one, t) for one in samples]
            self.held_to = [log_prob(reference, one, t) for one in samples]
        rewards = [
            score - method.kl * float((old - ref).sum())
            for score, old, ref in zip(scores, self.old, self.held_to, strict=True)
        ]
        self.advantages = dict[int, float]()
        for n, mine in enumerate(rewards):
            group = range(n // k * k, n // k * k + k)
            others = [rewards[m] for m in group if m != n and not math.isnan(rewards[m])]
            if others and not math.isnan(mine):
                self.advantages[n] = mine - sum(others) / len(others)
        self.losses, self.clipped = list[float](), list[float]()
        for p in range(method.passes):
            if p:
                with torch.no_grad():
                    for weight in policy.parameters():
                        weight -= rate * weight.grad
                policy.zero_grad()
            loss, clipped = 0 * log_prob(policy, samples[0], t).sum(), 0  # gradients of 0 where all are clipped
            for n, a in self.advantages.items():
                q = (log_prob(policy, samples[n], t).sum() - self.old[n].sum()).exp()
                if (a > 0 and float(q) > 1 + method.clip) or (a < 0 and float(q) < 1 - method.clip):
                    loss, clipped = loss - a * (1 + method.clip if a > 0 else 1 - method.clip), clipped + 1
                else:
                    loss = loss - a * q
            loss = loss / len(self.advantages)
            loss.backward()
            self.losses.append(float(loss.detach()))
            self.clipped.append(clipped / len(self.advantages))


@st.composite
def scored_groups(draw: st.DrawFn) -> tuple[int, list[Sample], list[float]]:
    """Responses to a prompt, samples and their scores, some of them none, but so that something can be learned."""
    prompts, k = draw(st.integers(1, 3)), draw(st.integers(2, 4))
    scores = draw(st.lists(st.one_of(st.floats(-2, 2), st.just(NONE)), min_size=prompts * k, max_size=prompts * k))
    scores[:2] = [0.0 if math.isnan(s) else s for s in scores[:2]]
    return k, samples_of(draw(st.integers(0, 2**31)), prompts, k), scores


@settings(max_examples=20, deadline=None, derandomize=True)
@given(scored_groups(), st.sampled_from([1, 13, 30, 4096]), st.floats(0, 1), st.sampled_from([1.0, 0.6]))
def test_a_rounds_loss_and_gradients_are_those_of_the_published_formula_however_it_is_cut(
    groups: tuple[int, list[Sample], list[float]], tokens: int, kl: float, temperature: float
) -> None:
    """One pass: the gradient is that of -A log pi, which the formula's ratio has where it is 1."""
    k, samples, scores = groups
    method = of(responses=k, passes=1, micro_batch_tokens=tokens, kl=kl, temperature=temperature)
    found = Round(llama(1), llama(2), samples, scores, method)
    model = llama(1)
    wanted = Plain(llama(1), llama(2), samples, scores, method)
    terms = [-a * log_prob(model, samples[n], temperature).sum() for n, a in wanted.advantages.items()]
    (torch.stack(terms).sum() / len(terms)).backward()
    expected = gradients(model)
    largest = max(
        1.0, float(expected.abs().max())
    )  # small ones are differences of large ones, where the policies differ by hundreds of nats
    assert torch.allclose(found.gradients, expected, atol=2e-5 * largest)
    assert found.loss == pytest.approx(wanted.losses[0], rel=1e-5, abs=1e-5 * largest)
    kept = list(wanted.advantages)
    old, held_to = ([of_all[n] for n in kept] for of_all in (wanted.old, wanted.held_to))
    with torch.no_grad():
        logits = [response_logits(model, [samples[n]], temperature)[0] for n in kept]
    figures = {
        "reward": np.mean([scores[n] for n in kept]),
        "kl": np.mean([float((one - ref).sum()) for one, ref in zip(old, held_to, strict=True)]),
        "kl_token": float(torch.cat([k3(one, ref) for one, ref in zip(old, held_to, strict=True)]).mean()),
        "entropy": float(torch.cat([entropies(one) for one in logits]).mean()),
        "tokens": np.mean([len(samples[n].response) for n in kept]),
        "unended": np.mean([not samples[n].ended for n in kept]),
        "clip_fraction": 0.0,
        "grad_norm": float(gradients(model).norm()),
    }
    assert found.figures | {"seconds": 0} == pytest.approx(figures | {"seconds": 0}, rel=1e-5, abs=1e-4)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(scored_groups(), st.sampled_from([13, 4096]), st.sampled_from([0.02, 0.3]))
def test_later_passes_have_the_first_ones_advantages_and_clipped_ratios(
    groups: tuple[int, list[Sample], list[float]], tokens: int, rate: float
) -> None:
    k, samples, scores = groups
    method = of(responses=k, passes=3, micro_batch_tokens=tokens, kl=0.3)
    policy = llama(1)
    found = Round(llama(1), llama(2), samples, scores, method, rate)
    wanted = Plain(policy, llama(2), samples, scores, method, rate)
    assert found.loss == pytest.approx(np.mean(wanted.losses), rel=1e-3, abs=1e-4)
    assert found.figures["clip_fraction"] == pytest.approx(np.mean(wanted.clipped), abs=1e-6)
    assert torch.allclose(found.gradients, gradients(policy), atol=1e-3)


def test_large_steps_are_clipped() -> None:
    """That the test above sees clipped ratios, and others."""
    samples, scores = samples_of(1, 4, 3), np.linspace(-1, 1, 12).tolist()
    one, more = (Round(llama(1), llama(2), samples, scores, of(passes=n), 0.3).figures for n in (1, 3))
    assert one["clip_fraction"] == 0
    assert 0 < more["clip_fraction"] < 1
    assert more["kl"] == pytest.approx(one["kl"]), "what the policy was before the round"


def test_a_response_without_a_reward_is_in_no_baseline_and_no_mean_nor_is_one_that_is_then_alone() -> None:
    samples = samples_of(3, 3, 3)
    scores = [1.0, NONE, -1.0, NONE, 5.0, NONE, 0.5, 0.0, 1.0]
    found = Round(llama(1), llama(1), samples, scores, of(kl=0.0))
    assert found.said == [
        "step 1: 3 responses get no reward, and are left out, as are 1 that have no other beside them then"
    ]
    assert rloo.learned_from(np.array(scores), 3).tolist() == [0, 2, 6, 7, 8]
    model, advantages = llama(1), {0: 2.0, 2: -2.0, 6: 0.0, 7: -0.75, 8: 0.75}
    (sum(-a * log_prob(model, samples[n], 1.0).sum() for n, a in advantages.items()) / 5).backward()
    assert torch.allclose(found.gradients, gradients(model), atol=1e-5)
    assert found.figures["reward"] == pytest.approx(0.3)
    whole = [samples[n] for n in (6, 7, 8)]
    alone = Round(llama(1), llama(1), whole, [0.5, NONE, 1.0], of(kl=0.0))
    both = Round(llama(1), llama(1), whole[::2], [0.5, 1.0], of(kl=0.0, responses=2))
    assert torch.allclose(alone.gradients, both.gradients, atol=1e-6)
    with pytest.raises(ValueError, match="step 1: no prompt has two responses that get a reward"):
        Round(llama(1), llama(1), samples[:6], [1.0, NONE, NONE, NONE, 2.0, NONE], METHOD)


def test_no_pass_has_more_tokens_than_it_may() -> None:
    policy, reference, seen = llama(1), llama(2), list[int]()
    for model in (policy, reference):
        model.model.register_forward_pre_hook(
            lambda _, __, given: seen.append(given["input_ids"].numel()), with_kwargs=True
        )
    samples = samples_of(0, 4, 3)
    longest = max(len(one.prompt) + len(one.response) for one in samples)
    Round(policy, reference, samples, list(range(12)), of(micro_batch_tokens=20))
    assert longest < max(seen) <= 20
    assert sum(seen) < 20 * len(seen)


def test_in_bfloat16_a_policy_that_has_learned_nothing_has_ratios_of_1() -> None:
    samples, scores = samples_of(1, 6, 3), np.linspace(-1, 1, 18).tolist()
    found = Round(llama(1), llama(1), samples, scores, of(passes=1, precision="bfloat16", micro_batch_tokens=30))
    assert found.figures["clip_fraction"] == found.figures["kl"] == found.figures["kl_token"] == 0
    assert found.loss == pytest.approx(0, abs=1e-5), "advantages of a prompt sum to 0"
    assert all(math.isfinite(value) for value in found.figures.values())
    exact = Round(llama(1), llama(1), samples, scores, of(passes=1))
    assert found.gradients.norm() > 0
    assert not torch.equal(found.gradients, exact.gradients)
    assert torch.nn.functional.cosine_similarity(found.gradients, exact.gradients, dim=0) > 0.99


def test_where_a_prompt_is_padded_changes_nothing_for_a_model_with_a_place_of_its_own_for_each_position() -> None:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=9, n_embd=16, n_layer=1, n_head=2, n_positions=32, initializer_range=0.5)
    policy, samples = GPT2LMHeadModel(config).eval(), samples_of(0, 3, 2)
    found = Round(copy.deepcopy(policy), llama(1), samples, list(range(6)), of(responses=2, micro_batch_tokens=4096))
    (log_probs, _), _ = found.trainer.seen
    for n, one in enumerate(samples):
        with torch.no_grad():
            assert torch.allclose(log_probs[n, : len(one.response)], log_prob(policy, one, 1.0), atol=1e-5)


# -------------------------------------------------------------------------------------------------------------------------- reference


def moved(policy: Any) -> Any:
    """A policy whose adapters do something."""
    for name, p in policy.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, std=0.5)
    return policy


@pytest.mark.parametrize("kl", [0.0, 0.2])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("adapters", [False, True])
def test_the_reference_is_the_given_model_or_the_policy_without_its_adapters(
    adapters: bool, temperature: float, kl: float
) -> None:
    samples, method = samples_of(0, 2, 3), of(temperature=temperature, kl=kl)
    policy = moved(adapted(llama(1))) if adapters else llama(2)
    start = copy.deepcopy(policy).eval()
    found = Round(policy, None if adapters else llama(1), samples, list(range(6)), method)
    (mine, _), (its, _) = found.trainer.seen
    with torch.no_grad():
        wanted, before = (
            log_probs_of(*response_logits(model, samples, temperature)).split([len(one.response) for one in samples])
            for model in (llama(1), start)
        )
    for n, one in enumerate(samples):
        assert torch.allclose(its[n, : len(one.response)], wanted[n], atol=1e-5)
        assert torch.allclose(mine[n, : len(one.response)], before[n], atol=1e-5)
    assert found.figures["kl"] == pytest.approx(
        np.mean([float((a - b).sum()) for a, b in zip(before, wanted, strict=True)]), abs=1e-5
    )
    assert abs(found.figures["kl"]) > 0.1
    assert list(getattr(policy, "peft_config", {"default": 0})) == ["default"]


def test_a_policy_with_adapters_may_be_held_to_another_reference_and_one_without_needs_one(tmp_path: Path) -> None:
    samples, scores = samples_of(0, 2, 3), list(range(6))
    found = Round(moved(adapted(llama(1))), llama(2), samples, scores, METHOD)
    with torch.no_grad():
        assert torch.allclose(
            found.trainer.seen[1][0][0, : len(samples[0].response)], log_prob(llama(2), samples[0], 1.0), atol=1e-5
        )
    with pytest.raises(ValueError, match="needs a reference of its own"):
        train(llama(1, 3), None, TOKENIZER, asks("a"), lengths, METHOD, 0, tmp_path, quiet)


# ------------------------------------------------------------------------------------------------------------------------------ training


def asks(*texts: str) -> list[list[dict[str, str]]]:
    return [[{"role": "user", "content": text}] for text in texts]


def test_a_policy_over_three_tokens_approaches_the_enumerated_optimum(tmp_path: Path) -> None:
    """All seven responses of at most two tokens, of which four don't end and have `unended`: to .05 in total variation distance.

    The tokenizer pads with the end of a turn. No prompt is another one's with the beginning of a response: a policy over both would have
    to compromise.
    """
    kl, prompts = 0.5, ([1], [0, 0, 1])
    texts = {"": 0.2, "a": 0.6, "b": -0.2}
    rewards = {(2,): 0.2, (0, 2): 0.6, (1, 2): -0.2} | dict.fromkeys(itertools.product((0, 1), repeat=2), -0.5)
    policy, reference = llama(2, 3), llama(2, 3)
    asked = list[str]()

    def reward(conversations: Sequence[Any], responses: Sequence[str]) -> list[float]:
        assert all(messages in asks("b", "a a b") for messages in conversations)
        asked.extend(responses)
        return [texts[text] for text in responses]

    start = max(distance(policy, reference, prompt, rewards, kl) for prompt in prompts)
    unended = []
    for rate in (2e-2, 5e-3, 1e-3):
        method = of(
            steps=15, learning_rate=rate, kl=kl, unended=-0.5, max_new_tokens=2, batch_size=2, responses=60, micro_batch_tokens=9999,
            evaluations=1,
        )  # fmt: skip
        curve = train(policy, reference, TOKENIZER, asks("b", "a a b"), reward, method, 0, tmp_path / str(rate), quiet)
        unended += [row["unended"] for row in curve]
    found = max(distance(policy, reference, prompt, rewards, kl) for prompt in prompts)
    assert start > 0.4
    assert found < 0.05
    assert set(asked) == set(texts), "what doesn't end isn't shown to the reward model"
    assert unended[-1] < unended[0] / 1.5
    assert torch.equal(weights_of(reference), weights_of(llama(2, 3)))


def test_a_policy_that_is_rewarded_for_a_word_writes_it_more_often(tmp_path: Path) -> None:
    tokenizer = small_tokenizer()
    policy, reference = llama(2, len(tokenizer)), llama(2, len(tokenizer))

    def share(_: Sequence[Any], responses: Sequence[str]) -> list[float]:
        return [text.split().count("two") / max(1, len(text.split())) for text in responses]

    method = of(
        steps=18, batch_size=32, responses=4, max_new_tokens=6, learning_rate=1e-2, passes=3, kl=0.02, unended=-0.1, evaluations=1,
        micro_batch_tokens=4096,
    )  # fmt: skip
    curve = train(policy, reference, tokenizer, ASKS, share, method, 0, tmp_path, quiet)
    first, last = (float(np.mean([row["reward"] for row in part])) for part in (curve[:5], curve[-5:]))
    assert first < 0.15
    assert last > 0.8
    assert curve[-1]["kl"] > curve[0]["kl"]
    assert curve[-1]["unended"] < curve[0]["unended"]


def test_what_is_trained_on_is_what_was_sampled_and_a_response_ends_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer, drawn, seen = small_tokenizer(), list[Any](), list[list[int]]()
    end, policy = end_of_turn(tokenizer), llama(2, len(tokenizer))

    def draw(*arguments: Any) -> list[Sample]:
        drawn.append((arguments[1:5], sample(*arguments)))
        return drawn[-1][1]

    def see(_: Any, __: Any, given: dict[str, Any]) -> None:
        if torch.is_grad_enabled():
            rows = zip(given["input_ids"], given["attention_mask"].bool(), strict=True)
            seen.extend(ids[there].tolist() for ids, there in rows)

    monkeypatch.setattr(rloo, "sample", draw)
    policy.model.register_forward_pre_hook(see, with_kwargs=True)
    method = of(steps=2, passes=1, batch_size=3, responses=8)
    train(policy, llama(2, len(tokenizer)), tokenizer, ASKS, lengths, method, 7, tmp_path, quiet)
    for step, ((prompts, *others), _) in enumerate(drawn, 1):
        assert others == [end, 5, (7, step)]
        asked = [prompt_ids(tokenizer, ASKS[n]) for n in drawn_prompts(5, 3, 7, step)]
        assert prompts == [ids for ids in asked for _ in range(8)]
    samples = [one for _, some in drawn for one in some]
    assert sorted(seen) == sorted([*one.prompt, *one.response] for one in samples)
    assert all(one.response.count(end) == one.ended for one in samples)
    assert {one.ended for one in samples} == {True, False}


@pytest.mark.parametrize("adapters", [False, True])
def test_a_training_that_is_cut_off_goes_on_and_ends_with_the_same_weights(tmp_path: Path, adapters: bool) -> None:
    def run(name: str, tracker: Any = None, log: Any = quiet) -> tuple[Any, list[dict[str, Any]]]:
        policy = adapted(llama(1, 3)) if adapters else llama(1, 3)
        reference = None if adapters else llama(1, 3)
        prompts = asks("a", "b", "b a", "a a", "a b a")
        return policy, train(policy, reference, TOKENIZER, prompts, lengths, METHOD, 7, tmp_path / name, log, tracker)

    tracker, said = Tracker(), list[str]()
    whole, curve = run("whole", tracker)
    with pytest.raises(CutOffError):
        run("cut", Tracker(3))
    torch.manual_seed(99)
    again, resumed = run("cut", log=said.append)
    assert "Training goes on from step 2" in said
    start = adapted(llama(1, 3)) if adapters else llama(1, 3)
    for (name, one), other, before in zip(whole.named_parameters(), again.parameters(), start.parameters(), strict=True):  # fmt: skip
        assert torch.allclose(one, other, atol=1e-6), name
        assert torch.equal(one, before) == (adapters and "lora" not in name), name
    assert [(row["step"], row["part"]) for row in resumed] == [(n, "train") for n in range(1, 5)]
    assert_same(curve, resumed)
    figures = {"reward", "kl", "kl_token", "entropy", "tokens", "unended", "clip_fraction", "loss", "gradient_norm", "seconds"}  # fmt: skip
    assert set(curve[0]) == figures | {"step", "part", "learning_rate"}
    assert {f"train_{name}" for name in figures} <= tracker.names
    assert curve[0]["kl"] == pytest.approx(0, abs=1e-5)
    assert abs(curve[-1]["kl"]) > 1e-3
    assert [row["learning_rate"] for row in curve] == pytest.approx([1e-3, 2e-3, 3e-3, 3e-3])
    assert run("cut")[1] == resumed, "what is done is not done again"


def special_tokens(model: Any) -> list[Any]:
    return [getattr(of, name, None) for of in (model.config, model.generation_config) for name in KEPT]


def test_what_it_is_padded_with_changes_nothing_and_models_are_given_back_as_they_were(tmp_path: Path) -> None:
    found = []
    for n, pad in enumerate(("<|im_end|>", "<|endoftext|>", None)):
        tokenizer = small_tokenizer()
        tokenizer.pad_token = pad
        policy, reference = llama(2, len(tokenizer)), llama(3, len(tokenizer))
        before = [special_tokens(model) for model in (policy, reference)]
        curve = train(policy, reference, tokenizer, ASKS, lengths, of(steps=2), 0, tmp_path / str(n), quiet)
        assert [special_tokens(model) for model in (policy, reference)] == before
        assert not any("forward" in model.__dict__ for model in (policy, reference))
        assert not policy.training
        assert tokenizer.pad_token == pad
        found.append((policy, curve))
    assert any(row["unended"] not in (0, 1) for row in found[0][1])
    for policy, curve in found[1:]:
        assert torch.allclose(weights_of(policy), weights_of(found[0][0]), atol=1e-6)
        assert_same(found[0][1], curve)


def test_the_learning_rate_rises_in_the_warm_up_and_gradients_are_cut_down(tmp_path: Path) -> None:
    """AdamW's first step moves each weight by the learning rate, whatever the gradient."""
    policy = llama(1, 3)
    method = of(steps=1, learning_rate=3e-4, passes=1, warmup_steps=3)
    (row,) = train(policy, llama(2, 3), TOKENIZER, asks("a", "b"), lengths, method, 0, tmp_path, quiet)
    assert float((weights_of(policy) - weights_of(llama(1, 3))).abs().max()) == pytest.approx(1e-4, rel=1e-2)
    moments = torch.load(tmp_path / "checkpoint-1" / "optimizer.pt")["state"].values()
    norm = math.sqrt(sum(float((of["exp_avg"] / 0.1).square().sum()) for of in moments))
    assert norm == pytest.approx(min(1.0, row["gradient_norm"]), rel=1e-3)


def test_it_is_watched_as_often_as_it_is_kept_and_that_changes_nothing(tmp_path: Path) -> None:
    found = []
    for name in ("watched", "alone"):
        place, policy, tracker = tmp_path / name, llama(1, 3), Tracker()
        watch = Watch(TOKENIZER, asks("a b"), lengths, 0, place, "float32") if name == "watched" else None
        curve = train(policy, llama(1, 3), TOKENIZER, asks("a", "b"), lengths, METHOD, 7, place, quiet, tracker, watch)
        found.append((policy, [row for row in curve if row["part"] == "train"]))
        assert [row["step"] for row in curve if row["part"] == "watched"] == ([0, 2, 4] if watch else [])
        assert ("watched_reward" in tracker.names) == (watch is not None)
    assert torch.allclose(weights_of(found[0][0]), weights_of(found[1][0]), atol=1e-6)
    assert_same(found[0][1], found[1][1])


def test_responses_that_get_no_number_are_left_out_of_a_training_and_counted(tmp_path: Path) -> None:
    said = list[str]()

    def reward(_: Sequence[Any], responses: Sequence[str]) -> list[float]:
        return [math.nan if text == "" else 3.0 for text in responses]

    method = of(steps=2, batch_size=1, responses=20, max_new_tokens=2, passes=1, kl=0.0)
    curve = train(llama(1, 3), llama(1, 3), TOKENIZER, asks("a"), reward, method, 0, tmp_path / "some", said.append)
    assert sum("get no reward, and are left out" in line for line in said) == 2
    for row in curve:
        assert row["reward"] == pytest.approx(3 - 4 * row["unended"]), "3, or -1 where one doesn't end"
    method, given = of(max_new_tokens=2, unended=NONE), (llama(1, 3), llama(1, 3), TOKENIZER, asks("a"))
    with pytest.raises(ValueError, match="step 1: no prompt has two responses that get a reward"):
        train(*given, lambda _, texts: [NONE] * len(texts), method, 0, tmp_path / "none", quiet)
