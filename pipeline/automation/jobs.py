"""When things run: jobs and the weekly schedule. What runs is defined in `assets`."""

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from pipeline.partitions import DELIVERIES, recipes
from pipeline.settings import Profile

POOL = "build_pool"
DELIVERY = "collect_delivery"
RECIPE = "train_and_evaluate"
PUSH = "push_dataset"


def jobs(profile: Profile) -> list[UnresolvedAssetJobDefinition]:
    """The jobs, in the order in which a first delivery needs them; one that pushes the data set where the profile says where to.

    A profile whose texts are recorded has no pool to build.
    """
    keys = [] if profile.recorded else ["conversations", "candidate_prompts", "prompt_topics", "prompt_complexity"]
    pool = dg.AssetSelection.assets(*keys)
    recipe = dg.AssetSelection.assets(
        "training_data", "reward_model", "attribute_weights", "benchmark_scores", "exported_model", "leaderboard"
    )
    build_pool = dg.define_asset_job(
        POOL, pool, description="Read the sources and build the pool of candidate prompts. No partition."
    )
    delivery, push = dg.AssetSelection.all() - pool - recipe, []
    if profile.dataset.push:  # never part of a delivery: data leaves the store when somebody says so
        delivery -= dg.AssetSelection.assets("hub_dataset")
        says = f"Upload the published data set to {profile.dataset.push.repo} on the Hugging Face hub. No partition."
        push = [dg.define_asset_job(PUSH, dg.AssetSelection.assets("hub_dataset"), description=says)]
    return [
        *([build_pool] if keys else []),
        dg.define_asset_job(
            DELIVERY,
            delivery,
            description="One delivery: draw prompts, answer them, have them rated, publish the data set. Partition: the delivery.",
            partitions_def=DELIVERIES,
        ),
        dg.define_asset_job(
            RECIPE,
            recipe,
            description="One recipe: prepare its training data, train its reward model, score the benchmarks. Partition: the recipe.",
            partitions_def=recipes(profile),
        ),
        *push,
    ]
