"""A recipe's reward model."""

from collections.abc import Iterator

import dagster as dg
from safetensors import safe_open

from assets import code_version, options, sample_table
from pipeline import gate, plots
from pipeline.reward_model import expectations, summary
from pipeline.settings import ENGINE_POOL, Profile
from pipeline.store import local_path, read_table
from resources.compute import Compute
from resources.storage import Storage

TABLES = (
    "training_curve",
    "training_steps",
    "development_predictions",
    "development_preferences",
    "training_prompts",
)


def build(profile: Profile) -> list[dg.AssetsDefinition]:
    """The stage's asset for a profile."""
    used = {recipe.base: profile.checkpoints[recipe.base].core for recipe in profile.recipes.values()}
    note = f" {profile.ratings_note}".rstrip()

    @dg.asset(
        **options(
            "reward_model",
            "reward_model",
            expectations.REWARD_MODEL,
            code_version("3", *profile.recipes.values(), *used.values(), profile.seed),
            deps=["helpsteer_dataset"],
            kinds=["pytorch", "huggingface"],
            table=False,
        ),
        description=f"A recipe's reward model in Hugging Face format: five ratings of a conversation's last response.{note}",
        partitions_def=dg.StaticPartitionsDefinition(list(profile.recipes)),
        pool=ENGINE_POOL,
    )
    def reward_model(context: dg.AssetExecutionContext, storage: Storage, compute: Compute) -> Iterator[gate.Event]:
        store, name = storage.store(), context.partition_key
        recipe = profile.recipes[name]
        data, work = store.manifest("helpsteer_dataset"), store.work("reward_model", name)
        spec = {
            "input": str(store.path("helpsteer_dataset", None, "data.parquet")),
            "data_version": data.version if data else "",
            "work": str(local_path(work)),
            "cache": str(store.cache()),
            "checkpoint": profile.checkpoints[recipe.base].model_dump(mode="json"),
            "recipe": recipe.model_dump(mode="json"),
            "recipe_name": name,
            "seed": profile.seed,
            "rated_by": profile.rated_by,
            "ratings_note": profile.ratings_note,
        }
        out = store.staging("reward_model", name)
        figures = compute.run(context, "pipeline.reward_model.worker", spec, out)
        curve, predictions, trained_on = (read_table(out / f"{table}.parquet") for table in TABLES)
        with safe_open(local_path(out / "model.safetensors"), "np") as weights:
            outputs = weights.get_slice("score.weight").get_shape()[0]
        table = store.read("helpsteer_dataset", columns=["split", "prompt_id", "response_id", "messages", "response"])
        mean_mse, baseline = figures.pop("mean_baseline_mse"), figures["mean_baseline_loss"]
        losses = {"development": curve["development_loss"].to_pylist(), "training": curve["train_loss"].to_pandas()}
        yield from gate.publish_folder(
            context,
            store,
            "reward_model",
            out,
            expectations.REWARD_MODEL,
            views=expectations.model_views(curve, predictions, trained_on, table, outputs, baseline),
            rows=figures["train_responses"],
            metadata={
                **figures,
                "rated by": profile.ratings_note or profile.rated_by,
                "training curve": dg.MetadataValue.md(
                    plots.line_chart(curve["step"].to_pylist(), losses, "Training", "step", "loss")
                ),
                "development": sample_table(summary.attribute_figures(curve, mean_mse)),
                "highest and lowest": sample_table(summary.best_and_worst(predictions, table)),
            },
            info=figures,
        )
        work.fs.rm(str(work), recursive=True)  # published: nothing is left to go on from

    return [reward_model]
