"""What a recipe trains on, its reward model, and that model with one output."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc
from safetensors import safe_open

from assets import code_version, count_table, options, sample_table
from pipeline import gate, plots
from pipeline.reward_model import data, expectations, schema, summary
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
    recipes = dg.StaticPartitionsDefinition(list(profile.recipes))

    @dg.asset(
        **options(
            "training_data",
            "reward_model",
            expectations.TRAINING_DATA,
            code_version("1", *profile.recipes.values()),
            deps=["helpsteer_dataset"],
        ),
        partitions_def=recipes,
    )
    def training_data(context: dg.AssetExecutionContext, storage: Storage) -> Iterator[gate.Event]:
        """What a recipe trains on: ratings, preferences between responses, and which prompts pick the checkpoint instead."""
        store, recipe = storage.store(), profile.recipes[context.partition_key]
        dataset = store.read("helpsteer_dataset", columns=data.COLLECTED)
        rated, preferred = data.collected(dataset, recipe)
        yield from gate.publish(
            context,
            store,
            "training_data",
            rated,
            schema.RATED,
            expectations.TRAINING_DATA,
            views=expectations.data_views(rated, preferred, dataset, recipe),
            side_tables={"preferred.parquet": preferred},
            metadata={
                "ratings": count_table(rated["split"], "split"),
                "preferences": count_table(preferred["split"], "split"),
                "ties dropped": data.ties_of(rated),
                "strengths": count_table(pc.round(preferred["strength"], 2), "strength"),
                "sample": sample_table(rated),
                "sample of preferences": sample_table(preferred),
                "rated by": profile.ratings_note or profile.rated_by,
            },
        )

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
        partitions_def=recipes,
        pool=ENGINE_POOL,
    )
    def reward_model(
        context: dg.AssetExecutionContext, storage: Storage, compute: Compute, tracking: TensorBoard
    ) -> Iterator[gate.Event]:
        store, name = storage.store(), context.partition_key
        recipe = profile.recipes[name]
        given, work = store.manifest("training_data", name), store.work("reward_model", name)
        spec = {
            "rated": str(store.path("training_data", name, DATA)),
            "preferred": str(store.path("training_data", name, "preferred.parquet")),
            "data_version": given.version if given else "",
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

    @dg.asset(
        **options(
            "exported_model",
            "reward_model",
            expectations.EXPORTED_MODEL,
            code_version("1"),
            deps=["reward_model", "training_data", "attribute_weights", "benchmark_scores"],
            kinds=["pytorch", "huggingface"],
            table=False,
        ),
        description="The reward model with one output, attribute weights times ratings, for any scorer: TRL, OpenRLHF, vLLM, rewardbench."
        f" With a card. A probe's is read by this project alone.{note}",
        partitions_def=recipes,
        pool=ENGINE_POOL,
    )
    def exported_model(context: dg.AssetExecutionContext, storage: Storage, compute: Compute) -> Iterator[gate.Event]:
        store, name = storage.store(), context.partition_key
        recipe = profile.recipes[name]
        weights = store.read("attribute_weights", name).to_pylist()
        scores = store.read("benchmark_scores", name, "summary.parquet").to_pylist()
        spec = {
            "model": str(local_path(store.path("reward_model", name))),
            "weights": {row["attribute"]: row["weight"] for row in weights},
            "conversations": str(store.path("training_data", name, DATA)),
            "max_tokens": recipe.max_tokens,
            "name": name,
            "licences": [profile.checkpoints[recipe.base].licence, profile.dataset.licence],
            "scores": [row for row in scores if row["level"] == "overall"],
            "rated_by": profile.rated_by,
            "ratings_note": profile.ratings_note,
        }
        out = store.staging("exported_model", name)
        figures = compute.run(context, "pipeline.reward_model.export", spec, out)
        yield from gate.publish_folder(
            context,
            store,
            "exported_model",
            out,
            expectations.EXPORTED_MODEL,
            views={"totals": pa.Table.from_pylist([figures])},
            metadata={**figures, "rated by": profile.ratings_note or profile.rated_by},
            info=figures,
        )

    return [training_data, reward_model, exported_model]


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
        evaluated, made = (t.filter(pc.equal(t["stage"], stage)).to_pandas() for t in (curve, steps))
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
