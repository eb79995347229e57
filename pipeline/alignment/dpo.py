"""Direct preference optimisation of a policy on pairs of responses (arXiv 2305.18290), with TRL's DPOTrainer. Imported only by workers.

Tokens are ours. The reference is the policy as it is given: its log-probabilities of all pairs are computed before the first step, so that no
second model is kept, and adapters that it already has are part of it.
"""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from jinja2 import TemplateError

from pipeline.alignment.encoding import end_of_turn, prompt_ids, response_ids
from pipeline.alignment.resuming import Curve
from pipeline.alignment.tuning import Rows, StepTrainer, arguments_of, borrowed, run, steps_in
from pipeline.alignment.watching import Watch
from pipeline.models.batching import batches
from pipeline.settings.alignment import Dpo, IterativeDpo
from pipeline.worker import Log

NAMES = {
    "rewards/margins": "margin",
    "rewards/accuracies": "accuracy",
    "rewards/chosen": "chosen_reward",
    "rewards/rejected": "rejected_reward",
    "logps/chosen": "chosen_log_prob",
    "logps/rejected": "rejected_log_prob",
}
"""Means over pairs. A reward is beta (log pi - log ref); a margin the chosen one's less the rejected one's; accuracy the share of margins above
0; log-probabilities are those of whole responses, in nats."""


# -------------------------------------------------------------------------------------------------------------------------------- pairs


class Pair(NamedTuple):
    """Token ids of a prompt, and of two responses to it, each with the end of its turn."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]

    @property
    def longest(self) -> int:
        """How many tokens the prompt takes with the longer response."""
        return len(self.prompt) + max(len(self.chosen), len(self.rejected))


class Pairs(NamedTuple):
    """Pairs by their places in the table, and how many were left out: too long, of equal responses, or refused by the chat template, by reason."""

    pairs: dict[int, Pair]
    too_long: int
    equal: int
    refused: dict[str, int]


def pairs_of(table: pa.Table, tokenizer: Any, max_tokens: int) -> Pairs:
    """Pairs whose prompt and either response take at most `max_tokens` tokens together. Nothing is cut.

    table: columns messages, which end with the user's, chosen and rejected. A pair without room for its responses, or of equal ones, has the
    loss ln 2 whatever the policy: it is left out. Raises ValueError where the template has no end of turn.
    """
    end, pairs = end_of_turn(tokenizer), dict[int, Pair]()
    too_long, equal, refused = 0, 0, dict[str, int]()
    for n, row in enumerate(table.select(["messages", "chosen", "rejected"]).to_pylist()):
        try:
            prompt = prompt_ids(tokenizer, row["messages"])
        except TemplateError as error:
            refused[str(error)] = refused.get(str(error), 0) + 1
            continue
        pair = Pair(prompt, *(response_ids(tokenizer, row[which], end) for which in ("chosen", "rejected")))
        if pair.chosen == pair.rejected:
            equal += 1
        elif pair.longest > max_tokens:
            too_long += 1
        else:
            pairs[n] = pair
    return Pairs(pairs, too_long, equal, refused)


def rows_of(pairs: Sequence[Pair]) -> Rows:
    """Pairs as TRL's collator takes them; both responses are in one pass, and each pair counts the same."""
    rows = [{"prompt_ids": p.prompt, "chosen_ids": p.chosen, "rejected_ids": p.rejected} for p in pairs]
    lengths = np.array([2 * pair.longest for pair in pairs], dtype=np.int64)
    return Rows(rows, lengths, np.ones(len(pairs), dtype=np.int64))


# ----------------------------------------------------------------------------------------------------------------------------- training


def train(
    model: Any,
    tokenizer: Any,
    pairs: Sequence[Pair],
    development: Sequence[Pair],
    method: Dpo | IterativeDpo,
    seed: int,
    work: Path,
    log: Log,
    tracker: Any = None,
    watch: Watch | None = None,
) -> Curve:
    """Train a policy, in place, on pairs, with itself as it is given for reference: its curve. Adapters are the caller's to put on.

    The loss is a mean over the pairs of an optimiser step: -log sigmoid(beta ((log pi - log ref)(chosen) - (log pi - log ref)(rejected))),
    equation 7 of the paper, or the sum of `method.losses`. Of a response that is longer than the other, the tokens beyond the other's length
    count `method.beyond` in log pi and log ref. Two losses depend on how a step is cut into passes: `aot` compares the pairs of a pass with
    each other, `sft` averages over the tokens of a pass.
    Dropout is off, and stays off, in the adapters too: else the policy would differ from the reference before the first step.
    development: held-out pairs, looked at before the first step and at every evaluation; may be none. Rows of the curve are steps (`part`
    train) and evaluations (development), with the figures of NAMES. Checkpoints are kept in `work`; a later call with the same arguments,
    and so the same weights to start from, goes on from the last whole one, and ends with the same weights. Raises ValueError without pairs.
    """
    if not pairs:
        raise ValueError("no pair fits, so there is nothing to train on")
    from trl import DPOConfig

    steps = steps_in(len(pairs), method)
    arguments = DPOConfig(
        **arguments_of(method, seed, steps, bool(development), work),
        beta=method.beta,
        loss_type=list(method.losses),
        ld_alpha=method.beyond if method.beyond < 1 else None,
        precompute_ref_log_probs=True,
    )
    with borrowed(model):
        trainer = _trainer()(
            rows_of(pairs),
            rows_of(development),
            method,
            seed,
            model=model,
            args=arguments,
            processing_class=copy.deepcopy(tokenizer),
        )
        return run(trainer, work, log, tracker, watch)


def _trainer() -> type[Any]:
    """TRL's trainer with our steps, tokens and reference. TRL 1.16 takes texts alone, and tokenises them itself."""
    from trl import DPOTrainer

    class Steps(StepTrainer, DPOTrainer):
        names = NAMES

        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            """The rows as they are."""
            return dataset

        @torch.no_grad()
        def _precompute_ref_logps(self, dataset: Any, name: str, *_: Any, **__: Any) -> Any:
            """The rows with their log-probabilities under the policy as it is now: TRL calls this before a checkpoint is read."""
            self.model.eval()
            found = np.zeros((len(dataset), 2))
            for units in batches(self._of[name].lengths, self._tokens):
                inputs = self._prepare_inputs(self.data_collator([dataset[int(n)] for n in units]))
                both = self.compute_ref_log_probs(self.model, inputs)
                found[units] = torch.stack(both, dim=1).float().cpu().numpy()
            for column, values in zip(("ref_chosen_logps", "ref_rejected_logps"), found.T, strict=True):
                dataset = dataset.add_column(column, values.tolist())
            return dataset

        def train(self, *arguments: Any, **options: Any) -> Any:
            """Train without the copy of the adapters that TRL makes for the reference, which is known by now."""
            if "ref" in getattr(self.model, "peft_config", {}):
                self.model.delete_adapter("ref")
            return super().train(*arguments, **options)

    return Steps
