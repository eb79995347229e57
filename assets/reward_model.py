"""What a recipe trains on, its reward model, and that model with one output."""

import json
from collections.abc import Iterator
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc
from safetensors import safe_open

from assets import code_version, count_table, options, ratings_of, sample_table
from pipeline import gate, partitions, plots
from pipeline.benchmarks import loading
from pipeline.reward_model import expectations, schema, sources, summary, training_data
from pipeline.settings import COLLECTED, ENGINE_POOL, Profile
from pipeline.store import DATA, NotPublishedError, local_path, read_table
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
    collected = all(recipe.data == COLLECTED for recipe in profile.recipes.values())
    note = f" {profile.ratings_note}".rstrip() if collected else ""
    recipes = partitions.recipes(profile)

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
        recipe, (by, said) = profile.recipes[name], ratings_of(store, profile, name)
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
            "rated_by": by,
            "ratings_note": said,
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
                "rated by": said or by,
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
            "evaluation",
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
        recipe, (by, said) = profile.recipes[name], ratings_of(store, profile, name)
        weights = store.read("attribute_weights", name).to_pylist()
        scores = store.read("benchmark_scores", name, "summary.parquet").to_pylist()
        given = store.manifest("training_data", name)
        if given is None:
            raise NotPublishedError(f"training_data of {name} is not in the store: materialize it first")
        spec = {
            "model": str(local_path(store.path("reward_model", name))),
            "weights": {row["attribute"]: row["weight"] for row in weights},
            "rated": str(store.path("training_data", name, DATA)),
            "preferred": str(store.path("training_data", name, "preferred.parquet")),
            "max_tokens": recipe.max_tokens,
            "name": name,
            "licences": [profile.checkpoints[recipe.base].licence, given.info["licence"]],
            "scores": [row for row in scores if (row["level"], row["measure"]) == ("overall", "accuracy")],
            "rated_by": by,
            "ratings_note": said,
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
            metadata={**figures, "rated by": said or by},
            info=figures,
        )

    return [_training_data(profile), reward_model, exported_model]


def _training_data(profile: Profile) -> dg.AssetsDefinition:
    named = {recipe.data for recipe in profile.recipes.values()} - {COLLECTED}
    parts = [value for r in profile.recipes.values() for value in (r.data, r.labels, r.development_share)]
    parts += [profile.training_data[name] for name in sorted(named)]
    parts += [profile.decontamination, *profile.benchmarks, *profile.benchmarks.values()]

    @dg.asset(
        **options(
            "training_data",
            "reward_model",
            expectations.TRAINING_DATA,
            code_version("1", *parts, *map(loading.content, profile.benchmarks.values())),
            deps=["helpsteer_dataset"],
        ),
        partitions_def=partitions.recipes(profile),
    )
    def training_data_of_recipe(context: dg.AssetExecutionContext, storage: Storage) -> Iterator[gate.Event]:
        """What a recipe trains on: ratings and preferences, without the prompts of benchmarks, with development prompts held out."""
        store, name = storage.store(), context.partition_key
        recipe, (by, said) = profile.recipes[name], ratings_of(store, profile, name)
        data = store.read("helpsteer_dataset", columns=sources.COLUMNS)
        if recipe.data == COLLECTED:
            source = sources.collected(data, recipe.labels, profile.dataset.licence)
        else:
            source = sources.read(recipe.data, profile.training_data[recipe.data], recipe.labels)
        against = {
            n: b for n, b in profile.benchmarks.items() if b.kind != "collected"
        }  # that one is our validation split
        texts = {name: loading.load(name, b, data).items["messages"] for name, b in against.items()}
        made = training_data.prepare(source, recipe, data, texts, profile.decontamination)
        aside = source.quarantine.table()
        yield from gate.publish(
            context,
            store,
            "training_data",
            made.rated,
            schema.RATED,
            expectations.TRAINING_DATA,
            views=expectations.training_views(
                made.rated, made.preferred, made.dropped, data, recipe.ratings, recipe.pairs
            ),
            side_tables={
                "preferred.parquet": made.preferred,
                "dropped.parquet": made.dropped,
                "quarantine.parquet": aside,
            },
            metadata={
                **made.counts,
                "data": recipe.data,
                "licence": source.licence,
                "rated by": said or by,
                "counts": sample_table(training_data.counts_of(made)),
                "dropped by benchmark": sample_table(
                    training_data.dropped_by_benchmark(made.dropped, list(against)), rows=60
                ),
                "set aside": count_table(aside["reason"], "reason"),
                "ratings": sample_table(made.rated),
                "preferences": sample_table(made.preferred),
                "dropped": sample_table(made.dropped),
            },
            info={"data": recipe.data, "licence": source.licence, **made.counts},
        )

    return training_data_of_recipe


def _head(folder: Any) -> int:
    """Outputs of the head in a model's folder; a large model's weights are in several files, which an index names."""
    probe, index = folder / "probe.safetensors", folder / "model.safetensors.index.json"
    file, name = ("probe.safetensors", "weight") if probe.exists() else ("model.safetensors", "score.weight")
    if index.exists():
        file = json.loads(index.read_text())["weight_map"][name]
    with safe_open(folder / file, "np") as weights:
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
            words = name.replace("_", " ")
            shown[f"speed: {words}"] = plots.line_chart(at, {words: speed[name]}, words.capitalize(), "step", "")
    return {name: dg.MetadataValue.md(plot) for name, plot in shown.items()}
