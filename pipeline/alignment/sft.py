"""Supervised fine-tuning on TRL's SFTTrainer, with our tokens: prompts are masked, and a response's end is learned once.

The loss is the mean over the trained tokens of a whole optimiser step. The weights at the end are the last ones: the original picks its
checkpoints by MT-Bench (method H), which no training has at hand. Imported only by workers.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.alignment.encoding import Example
from pipeline.alignment.resuming import Curve
from pipeline.alignment.tuning import arguments, run
from pipeline.settings.alignment import Sft, SteerLm
from pipeline.worker import Log

NOT_LEARNED = -100
"""The label of a token that isn't trained, PyTorch's."""


def train(
    model: Any,
    tokenizer: Any,
    examples: Sequence[Example],
    held_out: Sequence[Example],
    method: Sft | SteerLm,
    seed: int,
    work: Path,
    log: Log,
    tracker: Any = None,
) -> Curve:
    """Train a policy in place; its curve, with the loss on held-out examples at every evaluation.

    Checkpoints are kept in `work`; a later call with the same arguments goes on from the last whole one. Raises ValueError without examples
    on either side.
    """
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    if not examples or not held_out:
        raise ValueError(
            f"there are {len(examples)} conversations to train on and {len(held_out)} held out; both are needed"
        )
    longest = max(len(example.ids) for example in (*examples, *held_out))
    config = SFTConfig(
        **arguments(method, len(examples), longest, method.epochs, seed, work, model.device.type),
        dataset_kwargs={"skip_prepare_dataset": True},
        packing=False,
        eos_token=None,
        shuffle_dataset=False,
    )
    trainer = SFTTrainer(
        model=model,
        args=config,
        train_dataset=Dataset.from_list([row_of(example) for example in examples]),
        eval_dataset=Dataset.from_list([row_of(example) for example in held_out]),
        processing_class=tokenizer,
    )
    return run(trainer, work, log, tracker)


def row_of(example: Example) -> dict[str, list[int]]:
    """An example as the trainer takes it: token ids, and labels, NOT_LEARNED where a token isn't trained."""
    labels = [token if trained else NOT_LEARNED for token, trained in zip(example.ids, example.trained, strict=True)]
    return {"input_ids": example.ids, "labels": labels}
