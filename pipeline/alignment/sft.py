"""Supervised fine-tuning of a policy on conversations, with TRL's SFTTrainer; SteerLM's too, whose prompts ask for levels. Imported only by workers.

Tokens and labels are ours: what is trained is what an example says, with the end of each turn, whatever the tokenizer pads with.
"""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.alignment.encoding import Example
from pipeline.alignment.resuming import Curve
from pipeline.alignment.tuning import Rows, StepTrainer, arguments_of, borrowed, run, steps_in
from pipeline.alignment.watching import Watch
from pipeline.settings.alignment import Sft, SteerLm
from pipeline.worker import Log

IGNORED = -100
"""The label of a token that is not trained (torch's cross entropy, and so transformers and TRL)."""
NAMES = {"mean_token_accuracy": "token_accuracy", "entropy": "entropy"}
"""Figures over trained tokens: the share that is the likeliest one, and the mean entropy of the prediction in nats."""


def rows_of(examples: Sequence[Example]) -> Rows:
    """Examples as TRL takes them; one counts by its trained tokens, without a first one, which nothing comes before."""
    rows = [
        {
            "input_ids": ids,
            "labels": [token if learned else IGNORED for token, learned in zip(ids, trained, strict=True)],
        }
        for ids, trained in examples
    ]
    lengths = np.array([len(example.ids) for example in examples], dtype=np.int64)
    return Rows(rows, lengths, np.array([sum(example.trained[1:]) for example in examples], dtype=np.int64))


def train(
    model: Any,
    tokenizer: Any,
    examples: Sequence[Example],
    development: Sequence[Example],
    method: Sft | SteerLm,
    seed: int,
    work: Path,
    log: Log,
    tracker: Any = None,
    watch: Watch | None = None,
) -> Curve:
    """Train a policy, in place, on conversations: its curve. Adapters are the caller's to put on.

    The loss is the mean negative log-likelihood, in nats, of the trained tokens of a whole optimiser step, however it is cut into passes.
    development: held-out conversations, looked at before the first step and at every evaluation; may be none. Rows of the curve are steps
    (`part` train) and evaluations (development). Checkpoints are kept in `work`; a later call with the same arguments, and so the same
    weights to start from, goes on from the last whole one, and ends with the same weights. Raises ValueError without conversations.
    """
    if not examples:
        raise ValueError("no conversation fits, so there is nothing to train on")
    from trl import SFTConfig, SFTTrainer

    class Steps(StepTrainer, SFTTrainer):
        names = NAMES

    steps = steps_in(len(examples), method)
    arguments = SFTConfig(
        **arguments_of(method, seed, steps, bool(development), work),
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    with borrowed(model):
        trainer = Steps(
            rows_of(examples),
            rows_of(development),
            method,
            seed,
            model=model,
            args=arguments,
            processing_class=copy.deepcopy(tokenizer),
        )
        return run(trainer, work, log, tracker, watch)
