"""PPO: a policy learns to write what the reward model rates highly, and is held to a reference (arXiv 1707.06347; for language 1909.08593).

Of a prompt x and a response y, which ends with the end of its turn, tokens are the actions: a response's standardised reward r comes with its
last token, and each token costs `kl` times what the policy's log-probability of it is above the reference's. What is approached, summed
over a response with gamma 1, is the most of E[r(x, y)] - kl * KL(policy, reference): the policy reference(y|x) exp(r(x, y) / kl) / Z(x).
Where another temperature than 1 is sampled at, policy and reference are the distributions at that temperature.

Quantities of a round have the shape (responses, longest response), padded on the right, beside a mask of the responses' tokens. Imported
only by workers.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from jinja2 import TemplateError
from torch.nn.utils.rnn import pad_sequence

from pipeline.alignment.encoding import end_of_turn, prompt_ids
from pipeline.alignment.goodness import Standard
from pipeline.alignment.policies import padded
from pipeline.alignment.resuming import Checkpoints, Curve, noted
from pipeline.alignment.sampler import Sample, sample
from pipeline.alignment.steerlm2 import means
from pipeline.alignment.tuning import BETAS, LARGEST_NORM
from pipeline.alignment.watching import Messages, Reward, Watch
from pipeline.evaluation.scoring import factors_of
from pipeline.models.batching import batches
from pipeline.models.classifier import FullPrecisionHead, head_name, head_of, outputs_of
from pipeline.models.precision import precision_of
from pipeline.models.probe import Probe, picked, pooled_until_each
from pipeline.models.scoring import autocast
from pipeline.settings.alignment import Ppo
from pipeline.worker import Log, Progress

Floats = npt.NDArray[np.float64]
SMALL = 1e-8
"""Is added to a standard deviation that is divided by."""


# ------------------------------------------------------------------------------------------------------------------- rewards, advantages


def k1(log_probs: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """The logarithm of pi/ref, in nats: of tokens drawn from pi its mean is KL(pi, ref), without bias (joschu.net/blog/kl-approx.html)."""
    return log_probs - reference


def k3(log_probs: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """ref/pi - 1 - log(ref/pi), in nats: the same mean as `k1`, never below 0, and of less variance (joschu.net/blog/kl-approx.html)."""
    ratio = reference - log_probs
    return ratio.exp() - 1 - ratio


def token_rewards(
    log_probs: torch.Tensor, reference: torch.Tensor, mask: torch.Tensor, scores: torch.Tensor, kl: float
) -> torch.Tensor:
    """Reward of each token: -kl * (log pi_old - log ref), and on the response's last one its score besides; 0 on padding.

    log_probs, reference, mask: shape (responses, longest); scores: shape (responses,), standardised. `k1` is taken with its sign, as in
    arXiv 1909.08593: NeMo-Aligner takes its absolute value by default, for which the optimum is another.
    """
    rewards = torch.where(mask, -kl * k1(log_probs, reference), 0.0)
    rewards[torch.arange(len(mask)), mask.sum(dim=1) - 1] += scores
    return rewards


def advantages(
    rewards: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, gamma: float, gae_lambda: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Advantages and returns of tokens, 0 on padding; all of shape (responses, longest).

    values: of what stands before each token; after the last there is nothing more to come. With d_t = r_t + gamma V_(t+1) - V_t, an
    advantage is sum_k (gamma lambda)^k d_(t+k) (arXiv 1506.02438, equation 16), a return that and the value.
    """
    values, rewards = torch.where(mask, values, 0.0), torch.where(mask, rewards, 0.0)
    following = torch.nn.functional.pad(values[:, 1:], (0, 1))
    errors = rewards + gamma * following - values
    found, later = torch.zeros_like(values), torch.zeros_like(values[:, 0])
    for t in reversed(range(values.shape[1])):
        found[:, t] = later = errors[:, t] + gamma * gae_lambda * later
    return found, found + values


def normalised(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Values with mean 0 and (population) standard deviation 1 over all that the mask has, of the whole batch; 0 on padding."""
    there = values[mask].double()
    scaled = (values.double() - there.mean()) / (there.std(correction=0) + SMALL)
    return torch.where(mask, scaled, 0.0).to(values.dtype)


# ------------------------------------------------------------------------------------------------------------------------------- losses


def policy_losses(log_probs: torch.Tensor, old: torch.Tensor, advantage: torch.Tensor, clip: float) -> torch.Tensor:
    """-min(q A, clipped q A) of each token, q = pi / pi_old, clipped to 1 - clip to 1 + clip (arXiv 1707.06347, equation 7); any one shape."""
    ratio = (log_probs - old).exp()
    return torch.maximum(-advantage * ratio, -advantage * ratio.clamp(1 - clip, 1 + clip))


def clipped(log_probs: torch.Tensor, old: torch.Tensor, advantage: torch.Tensor, clip: float) -> torch.Tensor:
    """Of each token whether its clipped loss is the larger, so that it has no gradient."""
    ratio = (log_probs - old).exp()
    return -advantage * ratio.clamp(1 - clip, 1 + clip) > -advantage * ratio


def value_losses(values: torch.Tensor, old: torch.Tensor, returns: torch.Tensor, clip: float) -> torch.Tensor:
    """Half the larger squared error of each value, and of it clipped to at most `clip` from the old one; any one shape.

    As OpenAI's baselines (ppo2) and TRL have it.
    """
    near = old + (values - old).clamp(-clip, clip)
    return 0.5 * torch.maximum((values - returns).square(), (near - returns).square())


def entropies(logits: torch.Tensor) -> torch.Tensor:
    """Entropy in nats of each row's distribution; logits: shape (..., vocabulary)."""
    log_probs = logits.log_softmax(dim=-1)
    return -(log_probs.exp() * log_probs).sum(dim=-1)


def explained_variance(values: torch.Tensor, returns: torch.Tensor) -> float:
    """1 - Var(returns - values) / Var(returns): 1 where values foretell returns but for a constant; 0 where returns don't differ."""
    whole = float(returns.double().var(correction=0))
    return 1 - float((returns - values).double().var(correction=0)) / whole if whole else 0.0


# -------------------------------------------------------------------------------------------------------------------------- value model


class Values(torch.nn.Module):
    """A reward model that gives a value after each token: the standardised reward that it gives to what it has read until then.

    So the value at the end of a response is the response's reward from the start. Its backbone is the reward model's own, its head the
    weighted sum of the outputs', less the mean and divided by the standard deviation; all is trained. A probe's value after a token pools what
    stands until then. It reads the policy's tokens: both must come of one tokenizer, see `refuse_other_tokens`. Raises ValueError for
    weights that don't fit, or a model that isn't read by the token (an encoder).
    """

    def __init__(self, model: Any, weights: Mapping[str, float] | None, standard: Standard) -> None:
        """model: a sequence classifier or a probe; weights: of its outputs (`attribute_weights`), where it has several."""
        super().__init__()
        probed = isinstance(model, Probe)
        self._reads = (model.layers, model.poolings) if probed else None
        if not probed and head_name(model) != "score":
            raise ValueError(
                f"{type(model).__name__}: gives one score to a whole conversation, so that no value model can start from it; take a reward "
                "model with a causal base model"
            )
        factors = factors_of(outputs_of(model.config), weights, "the reward model")
        old = model.score if probed else head_of(model)
        bias = 0.0 if old.bias is None else factors @ old.bias.detach().double().cpu().numpy()
        row = factors @ old.weight.detach().double().cpu().numpy() / standard.sd
        self.backbone = getattr(model, model.base_model_prefix)
        self.head = FullPrecisionHead(old.in_features, 1).to(old.weight.device)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor(row).unsqueeze(0))
            self.head.bias.fill_((bias - standard.mean) / standard.sd)

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        found: torch.device = self.head.weight.device
        return found

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Values after each token, shape (rows, length), float32."""
        ids, mask = ids.to(self.device), mask.to(self.device)
        if self._reads:
            layers, poolings = self._reads
            states = picked(pooled_until_each(self.backbone, layers, ids, mask), poolings)
        else:
            states = self.backbone(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        return self.head(states).squeeze(-1)


def refuse_other_tokens(policys: Any, rewards: Any) -> None:
    """Raise ValueError where the policy's tokenizer and the reward model's give tokens other numbers: values would be of another text."""
    if policys.get_vocab() != rewards.get_vocab():
        raise ValueError(
            "the reward model has another tokenizer than the policy, so that no value model that reads the policy's tokens can start from it; take "
            "a reward model of the policy's family"
        )


# ------------------------------------------------------------------------------------------------------------------------------- models


def refuse_itself(policy: Any, reference: Any) -> None:
    """Raise ValueError where a policy has neither a reference nor adapters, without which it would be one: it would be held to itself."""
    if reference is None and not hasattr(policy, "disable_adapter"):
        raise ValueError("a policy without adapters needs a reference of its own: it would be held to itself")


def response_logits(model: Any, samples: Sequence[Sample], temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits at a temperature of the tokens of responses, one response after the other, and those tokens.

    Shapes (tokens, vocabulary), float32, and (tokens,). Only responses are taken to float32: prompts are often longer.
    """
    ids, mask, trained = (part.to(model.device) for part in padded([one.example for one in samples]))
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]
    return logits[trained[:, 1:]].float() / temperature, ids[:, 1:][trained[:, 1:]]


def log_probs_of(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Natural log-probability of each token, shape (tokens,)."""
    return logits.log_softmax(dim=-1).gather(-1, tokens.unsqueeze(-1)).squeeze(-1)


def response_values(values: Values, samples: Sequence[Sample]) -> torch.Tensor:
    """Value of what stands before each token of responses, one response after the other, shape (tokens,)."""
    ids, mask, trained = padded([one.example for one in samples])
    return values(ids, mask)[:, :-1][trained[:, 1:].to(values.device)]


def passes(samples: Sequence[Sample], tokens: int) -> Iterator[list[int]]:
    """Samples that go through a model together, of like length, at most so many tokens with their padding."""
    for rows in batches([len(one.prompt) + len(one.response) for one in samples], tokens):
        yield rows.tolist()


class Experience(NamedTuple):
    """A round's samples; of their tokens (responses, longest) which are there, and what the models before the round make of them."""

    samples: Sequence[Sample]
    mask: torch.Tensor
    log_probs: torch.Tensor
    values: torch.Tensor
    advantages: torch.Tensor
    returns: torch.Tensor

    def of(self, rows: Sequence[int], on: torch.device) -> Iterator[torch.Tensor]:
        """Of the tokens of some responses, one response after the other: old log-probabilities and values, advantages, returns."""
        for quantity in self[2:]:
            yield quantity[rows][self.mask[rows]].to(on)


class Learner:
    """Policy, reference and value model of a training, and their optimisers.

    No dropout anywhere: of a policy that has learned nothing from a round, each token's probability ratio is 1.
    """

    def __init__(self, policy: Any, reference: Any, values: Values, method: Ppo) -> None:
        """reference: None where it is the policy without its adapters. Raises ValueError where there are none to leave out."""
        refuse_itself(policy, reference)
        self._policy, self._reference, self._values, self._method = policy, reference, values, method
        self._precision = precision_of(method.precision, policy.device.type)
        self.models = {"policy": policy, "values": values}
        self._rates = {"policy": method.learning_rate, "values": method.value_learning_rate}
        self._trained = {name: [p for p in m.parameters() if p.requires_grad] for name, m in self.models.items()}
        self.optimisers = {
            name: torch.optim.AdamW(self._trained[name], rate, BETAS, weight_decay=method.weight_decay)
            for name, rate in self._rates.items()
        }
        for model in (policy, reference, values):
            if model is not None:
                model.eval()

    def samples(self, prompts: Sequence[Sequence[int]], end: int, seed: Sequence[int]) -> list[Sample]:
        """See `sample`: a response of the policy to each prompt."""
        method = self._method
        return sample(self._policy, prompts, end, method.max_new_tokens, seed, method.temperature, self._precision)

    def learn(self, samples: Sequence[Sample], scores: Floats, warm: float = 1.0) -> dict[str, float]:
        """Learn from a round of responses and their scores, `passes` times: its figures.

        scores: standardised rewards, `unended` of what doesn't end; warm: factor of the learning rates. In nats: `kl` is the mean over
        responses of their `k1`, `kl_token` that over tokens of `k3`, `entropy` that over tokens.
        """
        for name, optimiser in self.optimisers.items():
            for of in optimiser.param_groups:
                of["lr"] = self._rates[name] * warm
        experience, figures = self._look(samples, scores)
        figures["reward"] = float(scores.mean())
        learned = []
        for _ in range(self._method.passes):
            learned.append(self._improve_policy(experience) | self._improve_values(experience))
        return figures | means(learned)

    def _look(self, samples: Sequence[Sample], scores: Floats) -> tuple[Experience, dict[str, float]]:
        """What the models make of samples, without gradients, and figures of it."""
        method = self._method
        log_probs, entropy = self._per_token(samples, self._log_probs_and_entropies).unbind(dim=-1)
        values = self._per_token(samples, lambda some: response_values(self._values, some))
        with self._held_to() as model:
            reference = self._per_token(samples, lambda some: self._log_probs(model, some))
        mask = pad_sequence([torch.ones(len(one.response), dtype=torch.bool) for one in samples], batch_first=True)
        rewards = token_rewards(log_probs, reference, mask, torch.tensor(scores).to(log_probs), method.kl)
        advantage, returns = advantages(rewards, values, mask, method.gamma, method.gae_lambda)
        figures = {
            "kl": float(k1(log_probs, reference).sum(dim=1).mean()),
            "kl_token": float(k3(log_probs, reference)[mask].mean()),
            "entropy": float(entropy[mask].mean()),
            "tokens": float(mask.sum(dim=1).float().mean()),
            "unended": float(np.mean([not one.ended for one in samples])),
            "explained_variance": explained_variance(values[mask], returns[mask]),
        }
        return Experience(samples, mask, log_probs, values, normalised(advantage, mask), returns), figures

    @contextmanager
    def _held_to(self) -> Iterator[Any]:
        if self._reference is not None:
            yield self._reference
            return
        with self._policy.disable_adapter():
            yield self._policy

    @torch.no_grad()
    def _per_token(
        self, samples: Sequence[Sample], compute: Callable[[Sequence[Sample]], torch.Tensor]
    ) -> torch.Tensor:
        """What `compute` gives for the tokens of responses, one after the other: shape (responses, longest, ...), on the CPU; 0 on padding."""
        found = [torch.zeros(0)] * len(samples)
        for rows in passes(samples, self._method.micro_batch_tokens):
            with autocast(self._policy.device, self._precision):
                flat = compute([samples[n] for n in rows]).cpu()
            for n, part in zip(rows, flat.split([len(samples[n].response) for n in rows]), strict=True):
                found[n] = part
        return pad_sequence(found, batch_first=True)

    def _log_probs(self, model: Any, samples: Sequence[Sample]) -> torch.Tensor:
        return log_probs_of(*response_logits(model, samples, self._method.temperature))

    def _log_probs_and_entropies(self, samples: Sequence[Sample]) -> torch.Tensor:
        logits, tokens = response_logits(self._policy, samples, self._method.temperature)
        return torch.stack([log_probs_of(logits, tokens), entropies(logits)], dim=-1)

    def _improve_policy(self, experience: Experience) -> dict[str, float]:
        """An optimiser step on the mean over all tokens of `policy_losses`, less the weighted entropy."""
        method, count, loss, cut = self._method, int(experience.mask.sum()), 0.0, 0
        for rows in passes(experience.samples, method.micro_batch_tokens):
            with autocast(self._policy.device, self._precision):
                logits, tokens = response_logits(
                    self._policy, [experience.samples[n] for n in rows], method.temperature
                )
            log_probs = log_probs_of(logits, tokens)
            old, _, advantage, _ = experience.of(rows, log_probs.device)
            losses = policy_losses(log_probs, old, advantage, method.clip)
            whole = losses.sum() - method.entropy * entropies(logits).sum() if method.entropy else losses.sum()
            (whole / count).backward()
            loss += float(losses.detach().sum()) / count
            cut += int(clipped(log_probs.detach(), old, advantage, method.clip).sum())
        return {"policy_loss": loss, "clip_fraction": cut / count, "policy_gradient_norm": self._step("policy")}

    def _improve_values(self, experience: Experience) -> dict[str, float]:
        """An optimiser step on the mean over all tokens of `value_losses`."""
        method, count, loss = self._method, int(experience.mask.sum()), 0.0
        for rows in passes(experience.samples, method.micro_batch_tokens):
            with autocast(self._values.device, self._precision):
                values = response_values(self._values, [experience.samples[n] for n in rows])
            _, old, _, returns = experience.of(rows, values.device)
            mean = value_losses(values, old, returns, method.value_clip).sum() / count
            mean.backward()
            loss += float(mean.detach())
        return {"value_loss": loss, "value_gradient_norm": self._step("values")}

    def _step(self, name: str) -> float:
        norm = float(torch.nn.utils.clip_grad_norm_(self._trained[name], LARGEST_NORM))
        self.optimisers[name].step()
        self.optimisers[name].zero_grad()
        return norm


# ----------------------------------------------------------------------------------------------------------------------------- training


def train(
    policy: Any,
    reference: Any,
    values: Values,
    tokenizer: Any,
    prompts: Sequence[Messages],
    reward: Reward,
    method: Ppo,
    seed: int,
    work: Path,
    log: Log,
    tracker: Any = None,
    watch: Watch | None = None,
) -> Curve:
    """Train a policy and its value model, in place, by `method.steps` rounds: the curve, a row of which is a round's figures and seconds.

    reference: what the policy is held to, or None where it has adapters, that were put on the policy that it starts from: then it is the
    policy without them. prompts: conversations that end with the user's message; one that leaves no room for a response in `max_tokens`,
    or that the template refuses, is left out. A response that doesn't end in `max_new_tokens` isn't shown to `reward`, but has the reward
    `unended`; one that gets no number isn't learned from. Checkpoints are kept in `work`, as often as there are `evaluations`; a later call
    with the same arguments goes on from the last whole one, and ends with the same weights. watch: looks at the policy before the first
    round, and as often as it is kept; then the curve has rows of the part `watched` too. Raises ValueError where no prompt is left, or
    no response of a round gets a number, or as `Learner` does.
    """
    end, asked = end_of_turn(tokenizer), fitting(tokenizer, prompts, method.max_tokens - method.max_new_tokens, log)
    every = -(-method.steps // method.evaluations)
    learner = Learner(policy, reference, values, method)
    checkpoints = Checkpoints(work, learner.models, learner.optimisers)
    done, curve = checkpoints.last()
    if done:
        log(f"Training goes on from step {done}")
    note = partial(noted, curve, tracker)
    progress = Progress(log, "training steps", method.steps)

    def look(step: int) -> None:
        begun = time.perf_counter()
        if watch and (seen := watch.look(step, policy)):
            note(step, "watched", seen, begun)

    if not done:
        look(0)
    for step in range(done + 1, method.steps + 1):
        begun = time.perf_counter()
        chosen = [asked[n] for n in drawn_prompts(len(asked), method.batch_size, seed, step)]
        samples = learner.samples([ids for _, ids in chosen], end, (seed, step))
        scores = scored(tokenizer, [messages for messages, _ in chosen], samples, reward, method.unended)
        kept = np.flatnonzero(np.isfinite(scores))
        if not len(kept):
            raise ValueError(
                f"step {step}: no response gets a reward from the reward model, so there is nothing to learn"
            )
        if len(kept) < len(samples):
            log(f"step {step}: {len(samples) - len(kept)} responses get no reward, and are left out")
        warm = min(1.0, step / max(1, method.warmup_steps))
        figures = learner.learn([samples[n] for n in kept], scores[kept], warm)
        note(step, "train", figures, begun)
        progress.update(step, note=f"reward {figures['reward']:.3f}, KL {figures['kl']:.3f}")
        if step % every == 0 or step == method.steps:
            look(step)
            checkpoints.save(step, curve)
    return curve


def fitting(tokenizer: Any, prompts: Sequence[Messages], most: int, log: Log) -> list[tuple[Messages, list[int]]]:
    """Prompts and their token ids, of those that the template takes and that have at most so many tokens. Raises ValueError without any."""
    found, refused = [], 0
    for messages in prompts:
        try:
            ids = prompt_ids(tokenizer, messages)
        except TemplateError:
            refused += 1
            continue
        if len(ids) <= most:
            found.append((messages, ids))
    too_long = len(prompts) - len(found) - refused
    if not found:
        raise ValueError(
            f"no prompt is left to sample responses to: {too_long} of {len(prompts)} have more than the {most} tokens that `max_tokens` leaves "
            f"beside `max_new_tokens`, and the chat template refuses {refused}"
        )
    if len(found) < len(prompts):
        log(
            f"{too_long} prompts are left out because they are too long, {refused} because the chat template refuses them"
        )
    return found


def drawn_prompts(prompts: int, batch_size: int, seed: int, step: int) -> list[int]:
    """Places of the prompts of a step (from 1): all come, in an order drawn by `seed`, before any comes again, in another one."""
    places = range((step - 1) * batch_size, step * batch_size)
    # the 1 keeps these draws apart from those of responses
    orders = {e: np.random.default_rng([seed, e, 1]).permutation(prompts) for e in {p // prompts for p in places}}
    return [int(orders[place // prompts][place % prompts]) for place in places]


def scored(
    tokenizer: Any, conversations: Sequence[Messages], samples: Sequence[Sample], reward: Reward, unended: float
) -> Floats:
    """Scores of samples: what `reward` gives to the texts of those that end, without control tokens, `unended` of the others."""
    scores, ended = np.full(len(samples), unended), [n for n, one in enumerate(samples) if one.ended]
    if ended:
        texts = [tokenizer.decode(samples[n].response, skip_special_tokens=True) for n in ended]
        scores[ended] = reward([conversations[n] for n in ended], texts)
    return scores
