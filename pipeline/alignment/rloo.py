"""RLOO: REINFORCE whose baseline is the mean reward of the other responses to a prompt (arXiv 2402.14740), with TRL's RLOOTrainer.

A whole response is one action. Of the k responses y_1 ... y_k to a prompt x, with r the standardised reward, pi_old the policy that they
were drawn from, and pi the one that is trained,

    R_i = r(x, y_i) - kl * (log pi_old(y_i|x) - log ref(y_i|x))
    A_i = R_i - the mean of the other R_j
    loss_i = -min(q_i A_i, clipped q_i A_i),  q_i = pi(y_i|x) / pi_old(y_i|x), clipped to 1 - clip to 1 + clip

and a step's loss is the mean over the responses of a round. In a round's first pass each q is 1, and the gradient is the published one,
-A_i grad log pi(y_i|x); clipped ratios, which later passes have, are TRL's. What is approached is PPO's optimum,
reference(y|x) exp(r(x, y) / kl) / Z(x). Where another temperature than 1 is sampled at, policy and reference are the distributions at
that temperature.

TRL 1.16 (trl/trainer/rloo_trainer.py) has the KL in the reward, before the baseline, and no gradient through it: log pi_old - log ref
(`k1`, with its sign), summed over a response's tokens. That is as published. As it is set here, it neither normalises advantages nor
clips rewards, and adds nothing to the loss for the balance of experts. TRL's are the advantages, the loss, the language-model head, which
gives log-probabilities and keeps no logits, and the loop with its checkpoints. Ours is what would be something else:

    tokens       TRL writes prompts and samples responses itself, and each of several tokens ends one
    reference    TRL reads it from the path that the policy's configuration names, whatever weights the policy has
    passes       TRL cuts a round into passes of equally many responses, however long, pads prompts on the left, and leaves positions
                 where the padding puts them
    no reward    TRL counts such a response in the loss' mean, with the advantage 0, and one that has no other beside it then
    cut off      within a round TRL goes on with new responses; here a checkpoint stands between rounds

Imported only by workers.
"""

import copy
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader

from pipeline.alignment.encoding import end_of_turn
from pipeline.alignment.ppo import Floats, drawn_prompts, fitting, k1, k3, refuse_itself, scored
from pipeline.alignment.resuming import Curve
from pipeline.alignment.sampler import Sample, sample
from pipeline.alignment.steerlm2 import means
from pipeline.alignment.tuning import LARGEST_NORM, StepTrainer, arguments_of, borrowed, run
from pipeline.alignment.watching import Messages, Reward, Watch
from pipeline.models.batching import batches
from pipeline.models.precision import precision_of
from pipeline.settings.alignment import Rloo
from pipeline.worker import Log

NAMES = {name: name for name in ("reward", "kl", "kl_token", "entropy", "tokens", "unended", "clip_fraction")}
"""Figures of a round, over the responses that are learned from. `reward` is the standardised one, before the KL; in nats, `kl` is the mean
over responses of their `k1`, `kl_token` that over tokens of `k3`, `entropy` that over tokens, all of the policy before the round; `tokens`
is the mean number of a response, `unended` the share that doesn't end, `clip_fraction` the share whose clipped loss is the larger, in the
mean of the passes."""


def train(
    policy: Any,
    reference: Any,
    tokenizer: Any,
    prompts: Sequence[Messages],
    reward: Reward,
    method: Rloo,
    seed: int,
    work: Path,
    log: Log,
    tracker: Any = None,
    watch: Watch | None = None,
) -> Curve:
    """Train a policy, in place, by `method.steps` rounds: the curve, a row of which is a round's figures (NAMES), loss and seconds.

    reference: what the policy is held to, or None where it has adapters, that were put on the policy that it starts from: then it is the
    policy without them. prompts: conversations that end with the user's message; one that leaves no room for a response in `max_tokens`,
    or that the template refuses, is left out. A response that doesn't end in `max_new_tokens` isn't shown to `reward`, but has the reward
    `unended`. One that gets no number is neither learned from nor in a baseline, nor is one learned from that has no other beside it then;
    the log counts both. Losses and gradient norms are means over the passes of a round. Checkpoints are kept in `work`, as often as there
    are `evaluations`; a later call with the same arguments, and so the same weights to start from, goes on from the last whole one, and
    ends with the same weights. watch: looks at the policy before the first round, and as often as it is kept. Raises ValueError where no
    prompt is left, where no prompt of a round has two responses that get a number, or where a policy without adapters has no reference.
    """
    refuse_itself(policy, reference)
    end, asked = end_of_turn(tokenizer), fitting(tokenizer, prompts, method.max_tokens - method.max_new_tokens, log)
    with borrowed(policy), nullcontext() if reference is None else borrowed(reference):
        trainer = trainer_of(policy, reference, tokenizer, asked, end, reward, method, seed, work, log)
        return run(trainer, work, log, tracker, watch)


def trainer_of(
    policy: Any,
    reference: Any,
    tokenizer: Any,
    asked: Sequence[tuple[Messages, list[int]]],
    end: int,
    reward: Reward,
    method: Rloo,
    seed: int,
    work: Path,
    log: Log,
) -> Any:
    """TRL's trainer with our rounds: see `train`. asked: prompts with their token ids.

    It leaves other forward passes in policy and reference: see `borrowed`.
    """
    from datasets import Dataset
    from trl import RLOOConfig, RLOOTrainer
    from trl.trainer.utils import add_fused_lm_head

    class Rounds(RLOOTrainer):
        """A step of its loop is a round: responses are drawn once, and trained on `passes` times, each time with an optimiser step.

        The policy is in evaluation mode where anything is computed, without dropout: of one that has learned nothing from a round,
        each ratio is 1.
        """

        names = NAMES
        lr_scheduler: Any
        create_scheduler = StepTrainer.create_scheduler
        create_model_card = StepTrainer.create_model_card
        _send_telemetry = StepTrainer._send_telemetry

        def __init__(self, **arguments: Any) -> None:
            super().__init__(**arguments)
            self.seen = list[tuple[torch.Tensor, torch.Tensor]]()
            if "ref" in getattr(self.model, "peft_config", {}):
                self.model.delete_adapter("ref")  # TRL's copy of the adapters: the reference has none
            self.beta = method.kl
            if reference is not None:
                add_fused_lm_head(reference.eval(), temperature=method.temperature)
                self.ref_model = self.accelerator.prepare_model(reference, evaluation_mode=True)

        def get_train_dataloader(self) -> Any:
            """The rounds: what is in one depends on the seed and on how many there were, and on nothing that is loaded."""
            return DataLoader(self.train_dataset, batch_size=1, shuffle=False, collate_fn=lambda rounds: rounds[0])

        def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
            """A round, but for the optimiser step after its last pass, which is the loop's; the mean loss of its passes."""
            begun, learned = time.perf_counter(), list[dict[str, float]]()
            model.eval()
            batch, figures = self.drawn()
            for n in range(method.passes):
                if n:
                    self.optimizer.step()
                    self.optimizer.zero_grad()
                learned.append(self.add_gradients(model, batch))
            figures |= means(learned)
            loss = torch.tensor(figures.pop("loss"), device=self.args.device)
            self._metrics["eval"].clear()  # TRL's own figures, of single passes
            for name, value in (figures | {"seconds": time.perf_counter() - begun}).items():
                self._metrics["train"][name].append(value)  # is logged with the step
            model.train()  # so that TRL takes figures for those of training
            return loss

        def drawn(self) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
            """A round's responses that are learned from, as TRL's loss takes them, and their figures.

            Raises ValueError where there are none.
            """
            step = self.state.global_step + 1
            places = drawn_prompts(len(asked), method.batch_size, seed, step)
            chosen = [asked[n] for n in places for _ in range(method.responses)]
            precision = precision_of(method.precision, self.model.device.type)
            ids = [prompt for _, prompt in chosen]
            samples = sample(self.model, ids, end, method.max_new_tokens, (seed, step), method.temperature, precision)
            scores = scored(tokenizer, [messages for messages, _ in chosen], samples, reward, method.unended)
            scores[~np.isfinite(scores)] = np.nan
            kept = learned_from(scores, method.responses)
            lost = int(np.isnan(scores).sum())
            if not len(kept):
                raise ValueError(
                    f"step {step}: no prompt has two responses that get a reward from the reward model, so there is nothing to learn"
                )
            if lost:
                alone = len(scores) - lost - len(kept)
                log(
                    f"step {step}: {lost} responses get no reward, and are left out, as are {alone} that have no other beside them then"
                )
            self.seen.clear()
            whole = self._generate_and_score_completions(
                [{"prompt": one, "score": score} for one, score in zip(samples, scores, strict=True)]
            )
            if not self.beta:
                self._see_reference(whole)  # TRL doesn't
            batch = {name: values[kept] for name, values in whole.items()}
            (log_probs, entropies), (held_to, _) = ((one[kept], other[kept]) for one, other in self.seen)
            mask = batch["completion_mask"].bool()
            return batch, {
                "reward": float(scores[kept].mean()),
                "kl": float(k1(log_probs, held_to).sum(dim=1).mean()),
                "kl_token": float(k3(log_probs, held_to)[mask].mean()),
                "entropy": float(entropies[mask].mean()),
                "tokens": float(mask.sum(dim=1).float().mean()),
                "unended": float(np.mean([not samples[n].ended for n in kept])),
            }

        def add_gradients(self, model: Any, batch: dict[str, torch.Tensor]) -> dict[str, float]:
            """Add the gradients of TRL's loss, the mean over responses, cut down to LARGEST_NORM: loss, norm, share that is clipped."""
            lengths = (batch["prompt_mask"].sum(dim=1) + batch["completion_mask"].sum(dim=1)).cpu().numpy()
            loss, cut = 0.0, 0.0
            for rows in batches(lengths, method.micro_batch_tokens):
                share = len(rows) / len(lengths)
                with self.compute_loss_context_manager():
                    part = share * self.compute_loss(model, {name: of[rows.tolist()] for name, of in batch.items()})
                self.accelerator.backward(part)
                loss += float(part.detach())
                cut += share * self._metrics["eval"]["clip_ratio/region_mean"][-1]
            norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), LARGEST_NORM))
            return {"loss": loss, "grad_norm": norm, "clip_fraction": cut}

        def _generate(self, prompts: list[Sample]) -> tuple[list[list[int]], list[list[int]], list[Sample]]:
            """What is sampled already."""
            return [one.prompt for one in prompts], [one.response for one in prompts], prompts

        def _calculate_rewards(self, inputs: Sequence[dict[str, Any]], *_: Any, **__: Any) -> torch.Tensor:
            """What is scored already, shape (responses, 1)."""
            return torch.tensor([[row["score"]] for row in inputs], dtype=torch.float32, device=self.args.device)

        def _get_per_token_logps_and_entropies(
            self, model: Any, input_ids: Any, attention_mask: Any, logits_to_keep: int, *_: Any, **__: Any
        ) -> tuple[torch.Tensor, torch.Tensor, None]:
            """Log-probabilities and entropies, in nats, of responses' tokens, shape (responses, longest), 0 on padding; no loss of experts.

            Conversations are padded on the right, in passes of at most `micro_batch_tokens`. The reference's entropies are 0. What is
            computed without gradients is kept in `seen`.
            """
            there = attention_mask.bool()
            responses = torch.arange(there.shape[1], device=there.device) >= there.shape[1] - logits_to_keep
            order = (~there).byte().argsort(dim=1, stable=True)  # what is there first
            parts = [part.gather(1, order) for part in (input_ids, attention_mask, there & responses)]
            lengths, held = there.sum(dim=1).cpu().numpy(), there[:, -logits_to_keep:]
            log_probs = torch.zeros(held.shape, device=there.device)
            entropies = torch.zeros_like(log_probs)
            for units in batches(lengths, method.micro_batch_tokens):
                rows, longest = units.tolist(), int(lengths[units].max())
                ids, mask, trained = (part[rows][:, :longest] for part in parts)
                with self.accelerator.autocast():
                    outputs = model(
                        input_ids=ids, attention_mask=mask, labels=ids.masked_fill(~trained, -100), fused_lm_head=True
                    )
                empty = torch.zeros_like(log_probs[rows])
                log_probs[rows] = empty.masked_scatter(held[rows], outputs.log_probs[trained[:, 1:]])
                if outputs.entropy is not None:
                    entropies[rows] = empty.masked_scatter(held[rows], outputs.entropy.detach()[trained[:, 1:]])
            if not torch.is_grad_enabled():
                self.seen.append((log_probs, entropies))
            return log_probs, entropies, None

        @torch.no_grad()
        def _see_reference(self, batch: dict[str, torch.Tensor]) -> None:
            """Keep the reference's log-probabilities in `seen`."""
            ids, mask = (torch.cat([batch[f"prompt_{of}"], batch[f"completion_{of}"]], dim=1) for of in ("ids", "mask"))
            with nullcontext() if self.ref_model is not None else self.model.disable_adapter():
                self._get_per_token_logps_and_entropies(
                    self.ref_model or self.model, ids, mask, batch["completion_ids"].shape[1]
                )

    shared = arguments_of(method, seed, method.steps, False, work)
    del shared["max_length"]  # prompts that don't fit are left out before
    arguments = RLOOConfig(
        **shared
        | {
            "max_grad_norm": 0.0,  # a round's passes cut gradients down themselves
            "beta": 0.0,  # until there is a reference
            "epsilon": method.clip,
            "temperature": method.temperature,
            "num_generations": method.responses,
            "generation_batch_size": method.batch_size * method.responses,
            "max_completion_length": method.max_new_tokens,
            "normalize_advantages": False,
            "reward_clip_range": None,
            "mask_truncated_completions": False,
            "router_aux_loss_coef": 0.0,
        }
    )
    marked = copy.deepcopy(tokenizer)
    marked.pad_token = marked.pad_token or tokenizer.convert_ids_to_tokens(end)
    return Rounds(
        model=policy,
        reward_funcs=reward,
        args=arguments,
        train_dataset=Dataset.from_dict({"round": list(range(1, method.steps + 1))}),
        processing_class=marked,
    )


def learned_from(scores: Floats, responses: int) -> npt.NDArray[np.int64]:
    """Places of the responses that are learned from: those with a score, which is not NaN, beside another with one to the same prompt.

    scores: shape (prompts x responses,), those to a prompt one after the other.
    """
    there = np.isfinite(scores).reshape(-1, responses)
    return np.flatnonzero(there & (there.sum(axis=1, keepdims=True) > 1))
