"""Partitions: the ways in which assets are cut into parts that are made one at a time, and the stretch of the chain that each cuts.

A stage with a partition of its own adds a row to `chain`: its job and the demo's part of it follow from that (see
`pipeline.automation.jobs`).
"""

from typing import NamedTuple

import dagster as dg

from pipeline.settings import Profile

DELIVERIES = dg.DynamicPartitionsDefinition(name="delivery")
"""One partition a batch of tasks that is sent to annotators."""


def recipes(profile: Profile) -> dg.StaticPartitionsDefinition:
    """One partition a recipe of the profile."""
    return dg.StaticPartitionsDefinition(list(profile.recipes))


class Stretch(NamedTuple):
    """A stretch of the chain, which one job makes: its partitions (None: none), its stage, or the assets that stand apart from every other job."""

    job: str
    description: str
    partitions: dg.PartitionsDefinition | None = None
    apart: tuple[str, ...] = ()
    stage: str | None = None  # whose assets without partitions it makes


POOL = "build_pool"
DELIVERY = "collect_delivery"
RECIPE = "train_and_evaluate"
PUSH = "push_dataset"
ALIGN = "align"


def chain(profile: Profile) -> list[Stretch]:
    """The stretches of a profile's chain, in the order in which a first delivery needs them. The first has what nothing partitioned precedes."""
    push = profile.dataset.push
    return [
        Stretch(POOL, "Reads the sources and builds the pool of candidate prompts. Has no partitions."),
        Stretch(
            DELIVERY,
            "Draws the prompts of a delivery, has them answered and rated, and publishes the data set. Partitioned by delivery.",
            DELIVERIES,
        ),
        Stretch(
            RECIPE,
            "Prepares the training data of a recipe, trains its reward model and scores the benchmarks. Partitioned by recipe.",
            recipes(profile),
        ),
        *_alignment(profile),
        *(
            [  # data leaves the store when somebody says so, never as a part of a delivery
                Stretch(
                    PUSH,
                    f"Uploads the published data set to {push.repo} on the Hugging Face hub. Has no partitions.",
                    apart=("hub_dataset",),
                )
            ]
            if push
            else []
        ),
    ]


def _alignment(profile: Profile) -> list[Stretch]:
    """The stretch of the policies, where a profile has any."""
    says = (
        "Tunes the policies of the profile's methods with the rewards, and compares their rewards. Has no partitions."
    )
    return [Stretch(ALIGN, says, stage="alignment")] if profile.alignment else []
