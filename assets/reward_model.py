"""What a recipe trains on, its reward model, and that model with one output."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pyarrow as pa
from safetensors import safe_open

from assets import code_version, options, sample_table
from pipeline import gate, plots
from pipeline.reward_model import expectations, summary
from pipeline.settings import ENGINE_POOL, Profile
from pipeline.store import DATA, local_path, read_table
from resources.compute import Compute
from resources.storage import Storage
from resources.tracking import TensorBoard

TABLES = (
    "training_curve",
    "training_steps",
    "development_predictions",
    "development_preferences",
    "training_prompts",
)


def build(profile: Profile) -> list[dg.AssetsDefinition]:
    """The stage's assets for a profile."""
    used = {recipe.base: profile.checkpoints[recipe.base].core for recipe in profile.recipes.values()}
    note = f" {profile.ratings_note}".rstrip()

    @dg.asset(
        **options(
            "reward_model",
            "reward_model",
            expectations.REWARD_MODEL,
            code_version("4", *profile.recipes.values(), *used.values(), profile.seed),
            deps=["training_data", "helpsteer_dataset"],
            kinds=["pytorch", "huggingface"],
            table=False,
        ),
        description=f"A recipe's reward model in Hugging Face format: ratings, or a reward, of a conversation's last response.{note}",
        partitions_def=dg.StaticPartitionsDefinition(list(profile.recipes)),
        pool=ENGINE_POOL,
    )
    def reward_model(
        context: dg.AssetExecutionContext, storage: Storage, compute: Compute, tracking: TensorBoard
    ) -> Iterator[gate.Event]:
        store, name = storage.store(), context.partition_key
        recipe = profile.recipes[name]
        data, work = store.manifest("training_data", name), store.work("reward_model", name)
        spec = {
            "rated": str(store.path("training_data", name, DATA)),
            "preferred": str(store.path("training_data", name, "preferred.parquet")),
            "data_version": data.version if data else "",
            "work": str(local_path(work)),
            "cache": str(store.cache()),
            "checkpoint": profile.checkpoints[recipe.base].model_dump(mode="json"),
            "recipe": recipe.model_dump(mode="json"),
            "recipe_name": name,
            "seed": profile.seed,
            "processes": profile.compute.processes,
            "tracking": tracking.place(name, context.run.run_id),
            "rated_by": profile.rated_by,
            "ratings_note": profile.ratings_note,
        }
        out = store.staging("reward_model", name)
        figures = compute.run(context, "pipeline.reward_model.worker", spec, out)
        tables = {table: read_table(out / f"{table}.parquet") for table in TABLES}
        split = store.read("helpsteer_dataset", columns=["split", "prompt_id"])
        speed, baseline = figures.pop("speed", {}), figures.pop("baseline_mse")
        texts = store.read("training_data", name, columns=["response_id", "messages", "response"])
        yield from gate.publish_folder(
            context,
            store,
            "reward_model",
            out,
            expectations.REWARD_MODEL,
            views=expectations.model_views(tables, split, recipe.outputs, _head(local_path(out)), figures),
            rows=figures["train_responses"],
            metadata={
                **figures,
                "rated by": profile.ratings_note or profile.rated_by,
                "TensorBoard": spec["tracking"] or "nothing is tracked: the profile names no folder",
                **_curves(tables["training_curve"], tables["training_steps"], speed),
                "development": sample_table(summary.attribute_figures(tables["training_curve"], baseline)),
                "highest and lowest": sample_table(summary.best_and_worst(tables["development_predictions"], texts)),
            },
            info=figures,
        )
        work.fs.rm(str(work), recursive=True)  # published: nothing is left to go on from

    return [reward_model]


def _head(folder: Any) -> int:
    """Outputs of the head in a model's folder."""
    file, name = ("probe", "weight") if (folder / "probe.safetensors").exists() else ("model", "score.weight")
    with safe_open(folder / f"{file}.safetensors", "np") as weights:
        outputs: int = weights.get_slice(name).get_shape()[0]
    return outputs


def _curves(curve: pa.Table, steps: pa.Table, speed: dict[str, list[float]]) -> dict[str, dg.MarkdownMetadataValue]:
    """Plots over the steps of each stage; none for a probe, which has no steps."""
    shown = {}
    for stage in dict.fromkeys(steps["stage"].to_pylist()):
        evaluated, made = (table.to_pandas().query("stage == @stage") for table in (curve, steps))
        measured = [c for c in evaluated if c.endswith("_pearson") or c == "pair_accuracy"]
        figures = {name.removesuffix("_pearson"): evaluated[name] for name in measured if evaluated[name].notna().any()}
        losses = {"development": evaluated["development_loss"], "training": evaluated["train_loss"]}
        at = evaluated["step"].tolist()
        shown |= {
            f"{stage}: loss": plots.line_chart(at, losses, f"Loss ({stage})", "step", "loss"),
            f"{stage}: development": plots.line_chart(at, figures, "Pearson, and pair accuracy", "step", ""),
            f"{stage}: learning rate": plots.line_chart(
                made["step"].tolist(), {"learning rate": made["learning_rate"]}, "Learning rate", "step", ""
            ),
        }
    if speed:
        at = list(range(1, len(speed["step"]) + 1))
        for name in ("tokens_per_second", "share_of_peak"):
            shown[name] = plots.line_chart(at, {name: speed[name]}, name.replace("_", " "), "step", "")
    return {name: dg.MetadataValue.md(plot) for name, plot in shown.items()}
