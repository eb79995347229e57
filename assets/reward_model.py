"""A recipe's training data and reward model."""

from collections.abc import Iterator

import dagster as dg
from safetensors import safe_open

from assets import code_version, count_table, options, sample_table
from pipeline import gate, plots
from pipeline.evaluation import benchmarks
from pipeline.reward_model import expectations, schema, sources, summary, training_data
from pipeline.settings import COLLECTED, ENGINE_POOL, Profile
from pipeline.store import local_path, read_table
from resources.compute import Compute
from resources.storage import Storage

TABLES = ("training_curve", "development_predictions", "training_prompts")


def build(profile: Profile) -> list[dg.AssetsDefinition]:
    """The stage's assets for a profile."""
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

    return [_training_data(profile), reward_model]


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
            code_version("1", *parts, *map(benchmarks.content, profile.benchmarks.values())),
            deps=["helpsteer_dataset"],
        ),
        partitions_def=dg.StaticPartitionsDefinition(list(profile.recipes)),
    )
    def training_data_of_recipe(context: dg.AssetExecutionContext, storage: Storage) -> Iterator[gate.Event]:
        """What a recipe trains on: ratings and preferences, without the prompts of benchmarks, with development prompts held out."""
        store, recipe = storage.store(), profile.recipes[context.partition_key]
        data = store.read("helpsteer_dataset", columns=sources.COLUMNS)
        if recipe.data == COLLECTED:
            source = sources.collected(data, recipe.labels, profile.dataset.licence)
        else:
            source = sources.read(recipe.data, profile.training_data[recipe.data], recipe.labels)
        against = {
            n: b for n, b in profile.benchmarks.items() if b.kind != "collected"
        }  # that one is our validation split
        texts = {name: benchmarks.load(name, b, data).pairs["messages"] for name, b in against.items()}
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
