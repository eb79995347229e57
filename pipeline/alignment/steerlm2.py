"""SteerLM 2.0: a policy approaches P(y|a,x), which is proportional to P(a|x,y) P(y|x) (HelpSteer2, arXiv 2406.08673, section 4 and appendix H).

x is a prompt, y a response, a the attribute levels that are asked for. P(a|x,y) comes from the reward model, P(y|x) is a policy that is
asked for no levels, Q'(y|a,x) the one that samples are drawn from and training starts from, Q(y|a,x) the one that is trained. As published,
Q' has the probabilities at temperature 1 of all tokens, also where samples are drawn at another temperature, or with top-p.
Imported only by workers.
"""

import math
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from jinja2 import TemplateError

from pipeline.alignment.encoding import Example, end_of_turn, prompt_ids, response_ids
from pipeline.alignment.policies import log_probs, padded, token_log_probs
from pipeline.alignment.resuming import Checkpoints, Curve, noted
from pipeline.alignment.steerlm import LEVELS, Floats, conditioned, finite
from pipeline.alignment.tuning import BETAS, LARGEST_NORM
from pipeline.alignment.watching import Watch
from pipeline.models.batching import TOKENS_A_BATCH, batches
from pipeline.models.precision import precision_of
from pipeline.models.scoring import autocast
from pipeline.settings.alignment import SteerLm2
from pipeline.vocabulary import Attribute
from pipeline.worker import Log, Progress

CLIP = 1e-3
"""How near a rating, scaled to 0 to 1, comes to either end: at an end itself there is no Beta distribution. It is .004 of a level."""
LEAST = float(np.finfo(np.float64).tiny)
"""The least probability of a level, about 1e-308: what is less likely still has a logarithm."""
SMALL = 1e-8
"""Is added to every weight where their divergence is monitored (NeMo-Aligner)."""


# -------------------------------------------------------------------------------------------------------------------------- P(a | x, y)


def level_log_probs(predictions: Floats, concentration: float) -> Floats:
    """Log-probability of each level 0 to 4 given a predicted rating: shape (..., 5) for predictions of shape (...).

    A rating r, divided by 4 and clipped to CLIP to 1 - CLIP, has the distribution Beta(c r, c - c r) with c = concentration, so that its mean
    is r; level n has the mass between n/5 and (n + 1)/5 (HelpSteer2, appendix H, which has c = 24; five equal bins are our reading). The five sum
    to 1, to rounding; none is less than LEAST. Raises ValueError where a prediction is no finite number.
    """
    from scipy.special import betainc, betaincc

    finite(predictions)
    share = np.clip(predictions / (LEVELS - 1), CLIP, 1 - CLIP)[..., None]
    alpha, beta = concentration * share, concentration * (1 - share)
    edges = np.arange(LEVELS + 1) / LEVELS
    below, above = np.diff(betainc(alpha, beta, edges)), -np.diff(betaincc(alpha, beta, edges))
    # each bin by the tail that it lies in: a small mass is no difference of two numbers near 1
    mass = np.where(edges[1:] <= share, below, above)
    return np.log(np.maximum(mass, LEAST))


def attribute_log_probs(predictions: Floats, levels: Sequence[int], concentration: float) -> Floats:
    """The log P(a|x,y) of responses, shape (responses,). predictions: shape (responses, attributes); levels: asked of each attribute.

    Attributes are independent given the response: their log-probabilities add up (HelpSteer2, appendix H). Raises ValueError as
    `level_log_probs` does.
    """
    asked = np.asarray(levels, dtype=np.int64)
    found = level_log_probs(predictions, concentration)
    return np.take_along_axis(found, np.broadcast_to(asked, predictions.shape)[..., None], -1)[..., 0].sum(axis=-1)


# ------------------------------------------------------------------------------------------------------------------------------ samples


def encode_samples(
    samples: pa.Table, tokenizer: Any, levels: Mapping[Attribute, int], max_tokens: int
) -> list[Example | None]:
    """Samples as a policy reads them that is asked for levels, none of which may be given; the response alone is trained.

    samples: columns messages, response, ended. None where one takes more than `max_tokens`, or the template refuses it. A response that was
    cut off has no end of turn: its probability is that of all responses that begin so.
    """
    end, found = end_of_turn(tokenizer), list[Example | None]()
    for row in samples.select(["messages", "response", "ended"]).to_pylist():
        try:
            before = prompt_ids(tokenizer, conditioned(row["messages"], levels))
        except TemplateError:
            found.append(None)
            continue
        after = response_ids(tokenizer, row["response"], end)[: None if row["ended"] else -1]
        example = Example([*before, *after], [False] * len(before) + [True] * len(after))
        found.append(example if after and len(example.ids) <= max_tokens else None)
    return found


def response_log_probs(
    model: Any, examples: Sequence[Example | None], precision: str = "float32", tokens: int = TOKENS_A_BATCH
) -> Floats:
    """Log-probability of each example's response, in nats, summed over its tokens in float64; NaN where there is no example.

    All of a training are to be computed in the precision that it trains in: else weights differ by rounding over hundreds of tokens.
    """
    there = [example for example in examples if example]
    model.eval()
    with autocast(model.device, precision):
        sums = iter([float(values.double().sum()) for values in log_probs(model, there, tokens)])
    return np.array([next(sums) if example else math.nan for example in examples], dtype=np.float64)


class Group(NamedTuple):
    """Samples of one prompt, as the policy that is trained reads them, and of each log P(a|x,y), log P(y|x) and log Q'(y|a,x), in nats."""

    examples: list[Example]
    attributes: torch.Tensor
    prior: torch.Tensor
    proposal: torch.Tensor

    @property
    def weights(self) -> torch.Tensor:
        """w, see `importance`."""
        return importance(self.attributes, self.prior, self.proposal)


def groups_of(
    samples: pa.Table,
    asked: Mapping[Attribute, int],
    concentration: float,
    examples: Sequence[Example | None],
    prior: Floats,
    proposal: Floats,
) -> list[Group]:
    """Samples in groups of a prompt, in the order in which prompts come; one without an example, a rating or a log-probability is left out.

    samples: columns prompt_id and those of the asked attributes, predictions; examples: of the conditioned policy; prior, proposal: their
    `response_log_probs` under P(y|x) and Q'(y|a,x). A prompt with fewer than two samples is left out: its one weight is 1 whatever it is.
    """
    predictions = np.stack([np.asarray(samples[name], dtype=np.float64) for name in asked], axis=1)
    known = np.isfinite(np.column_stack([predictions, prior, proposal]).sum(axis=1))
    attributes = np.full(len(samples), np.nan)
    attributes[known] = attribute_log_probs(predictions[known], list(asked.values()), concentration)
    rows = dict[str, list[int]]()
    for n, prompt in enumerate(samples["prompt_id"].to_pylist()):
        if known[n] and examples[n]:
            rows.setdefault(prompt, []).append(n)
    return [
        Group([e for n in mine if (e := examples[n])], *(torch.tensor(x[mine]) for x in (attributes, prior, proposal)))
        for mine in rows.values()
        if len(mine) > 1
    ]


# ----------------------------------------------------------------------------------------------------------------------------- the loss


def importance(attributes: torch.Tensor, prior: torch.Tensor, proposal: torch.Tensor) -> torch.Tensor:
    """The weights w = softmax(log P(a|x,y) + log P(y|x) - log Q'(y|a,x)) over a prompt's samples: each one's share of P(y|a,x)."""
    return torch.softmax(attributes + prior - proposal, dim=-1)


def baseline(log_q: torch.Tensor, proposal: torch.Tensor) -> torch.Tensor:
    """The weights b = softmax(log Q(y|a,x) - log Q'(y|a,x)) over a prompt's samples: each one's share of Q(y|a,x); no gradient."""
    return torch.softmax(log_q.detach() - proposal, dim=-1)


def loss_of(log_q: torch.Tensor, weights: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
    """A number whose gradient is -sum_i (w_i - b_i) grad log Q(y_i|a,x) (HelpSteer2, appendix H); all of shape (samples,).

    That is the gradient of the divergence of w from the policy's own weights b. log Q is summed over a response's tokens, as published;
    NeMo-Aligner divides the loss of a prompt by the mean number of tokens of its samples, so that prompts with long responses count less
    beside others than here.
    """
    return -((weights - base) * log_q).sum()


def divergence(weights: torch.Tensor, base: torch.Tensor) -> float:
    """sum_i (w_i + 1e-8) log((w_i + 1e-8) / (b_i + 1e-8)): what is monitored (NeMo-Aligner); about 0 where the policy has the weights w."""
    w, b = weights + SMALL, base + SMALL
    return float((w * (w / b).log()).sum())


def figures_of(group: Group, log_q: torch.Tensor) -> dict[str, float]:
    """Figures of a prompt: divergence, entropies of w and b in nats, effective sample size of w (1 to samples), mean tokens of a response."""
    w, b = group.weights, baseline(log_q, group.proposal)
    return {
        "divergence": divergence(w, b),
        "weight_entropy": float(torch.special.entr(w).sum()),
        "baseline_entropy": float(torch.special.entr(b).sum()),
        "effective_samples": float(1 / w.square().sum()),
        "tokens": float(np.mean([sum(example.trained) for example in group.examples])),
    }


# ------------------------------------------------------------------------------------------------------------------------------ training


class Policy(NamedTuple):
    """A policy that is trained: its passes are of at most so many tokens, in a precision."""

    model: Any
    tokens: int
    precision: str

    def log_q(self, groups: Sequence[Group]) -> list[torch.Tensor]:
        """The log Q(y|a,x) of the samples of each group, float64, without gradient."""
        examples = [example for group in groups for example in group.examples]
        found = torch.tensor(response_log_probs(self.model, examples, self.precision, self.tokens))
        return list(found.split([len(group.examples) for group in groups]))

    def add_gradients(self, examples: Sequence[Example], weights: torch.Tensor, base: torch.Tensor) -> None:
        """Add to the policy's gradients those of `loss_of`, however it is cut into passes; weights and base of each example."""
        self.model.train()
        for batch in batches([len(example.ids) for example in examples], self.tokens):
            rows = batch.tolist()
            ids, mask, trained = padded([examples[n] for n in rows])
            with autocast(self.model.device, self.precision):
                values = token_log_probs(self.model, ids, mask)
            log_q = (values * trained.to(values.device)).sum(dim=1)
            loss_of(log_q, weights[rows].to(log_q), base[rows].to(log_q)).backward()

    def figures(self, groups: Sequence[Group]) -> dict[str, float]:
        """Means over groups of `figures_of`."""
        return means([figures_of(*pair) for pair in zip(groups, self.log_q(groups), strict=True)])

    def step(self, groups: Sequence[Group]) -> dict[str, float]:
        """Gradients of the mean over groups of `loss_of`: b first, without gradient or dropout, then the log-probabilities; `figures`."""
        log_q = self.log_q(groups)
        weights = torch.cat([group.weights for group in groups]) / len(groups)
        base = torch.cat([baseline(q, group.proposal) for q, group in zip(log_q, groups, strict=True)]) / len(groups)
        self.add_gradients([example for group in groups for example in group.examples], weights, base)
        return means([figures_of(*pair) for pair in zip(groups, log_q, strict=True)])


def means(figures: Sequence[dict[str, float]]) -> dict[str, float]:
    """Mean of each figure."""
    return {name: float(np.mean([one[name] for one in figures])) for name in figures[0]}


def plan(groups: int, batch_size: int, epochs: int, seed: int) -> list[npt.NDArray[np.int64]]:
    """Groups of each optimiser step: every epoch has all, in an order of its own that depends on seed and epoch alone."""
    orders = [np.random.default_rng([seed, epoch]).permutation(groups) for epoch in range(epochs)]
    return [order[start : start + batch_size] for order in orders for start in range(0, groups, batch_size)]


def train(
    model: Any,
    groups: Sequence[Group],
    development: Sequence[Group],
    method: SteerLm2,
    seed: int,
    work: Path,
    log: Log,
    tracker: Any = None,
    watch: Watch | None = None,
) -> Curve:
    """Train a policy, in place, on the samples of prompts: its curve. It starts from the weights that it has, those of Q'.

    development: groups of held-out prompts, looked at before the first step and at every evaluation; may be none. watch: looks at the
    policy as often. Rows of the curve are steps (`part` train) and evaluations (development), with the figures of `figures_of` and
    seconds, and what the watch sees (watched). Checkpoints are kept in `work`; a
    later call with the same arguments goes on from the last whole one, and ends with the same weights. Adapters are the caller's to put on.
    Raises ValueError without groups.
    """
    if not groups:
        raise ValueError("no prompt has two samples that can be weighed, so there is nothing to train on")
    steps = plan(len(groups), method.batch_size, method.epochs, seed)
    every = -(-len(steps) // method.evaluations)
    if method.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    policy = Policy(model, method.micro_batch_tokens, precision_of(method.precision, model.device.type))
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, method.learning_rate, BETAS, weight_decay=method.weight_decay)
    checkpoints = Checkpoints(work, {"policy": model}, {"policy": optimiser})
    done, curve = checkpoints.last()
    if done:
        log(f"Training goes on from step {done}")
    note = partial(noted, curve, tracker)
    progress = Progress(log, "training steps", len(steps))

    def evaluate(step: int) -> None:
        if development:
            begun = time.perf_counter()
            figures = policy.figures(development)
            log(f"step {step}: development divergence {figures['divergence']:.4f}")
            note(step, "development", figures, begun)
        begun = time.perf_counter()
        if watch and (seen := watch.look(step, model)):
            note(step, "watched", seen, begun)

    if not done:
        evaluate(0)
    for step in range(done + 1, len(steps) + 1):
        begun = time.perf_counter()
        torch.manual_seed(int(np.random.default_rng([seed, step]).integers(2**62)))  # of adapters' dropout
        figures = policy.step([groups[n] for n in steps[step - 1]])
        figures["gradient_norm"] = float(torch.nn.utils.clip_grad_norm_(trained, LARGEST_NORM))
        for of in optimiser.param_groups:
            of["lr"] = method.learning_rate * min(1.0, step / max(1, method.warmup_steps))
        optimiser.step()
        optimiser.zero_grad()
        note(step, "train", figures, begun)
        progress.update(step, note=f"divergence {figures['divergence']:.3f}")
        if step % every == 0 or step == len(steps):
            evaluate(step)
            checkpoints.save(step, curve)
    model.eval()
    return curve
