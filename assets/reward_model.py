"""What a recipe trains on, and its reward model."""

import shutil
from functools import partial
from typing import cast

import dagster as dg

from assets.published import Published
from pipeline.benchmarks import loading
from pipeline.dataset.raters import raters_of
from pipeline.gate import Made
from pipeline.models.outputs import outputs_in
from pipeline.partitions import recipes
from pipeline.reward_model import expectations, schema, shown, sources, training_data
from pipeline.reward_model.schema import TABLES
from pipeline.reward_model.spec import TrainingSpec
from pipeline.settings import COLLECTED, ENGINE_POOL, Profile
from pipeline.store import DATA, Store, local_path, read_table
from resources.compute import Compute
from resources.storage import Storage
from resources.tracking import TensorBoard

STAGE = "reward_model"
PREFERRED = "preferred.parquet"
"""File beside the ratings: preferences."""


def build(profile: Profile) -> list[dg.AssetsDefinition]:
    """The stage's assets for a profile."""
    return [_training_data(profile), _reward_model(profile)]


def _training_data(profile: Profile) -> dg.AssetsDefinition:
    named = {recipe.data for recipe in profile.recipes.values()} - {COLLECTED}
    # the collected one is our validation split
    against = {name: b for name, b in profile.benchmarks.items() if b.kind != "collected"}

    @Published(
        "training_data",
        STAGE,
        schema.RATED,
        expectations.TRAINING_DATA,
        "2",
        modules=("pipeline.reward_model.training_data", "pipeline.benchmarks.loading"),
        parts=(
            *(value for r in profile.recipes.values() for value in (r.data, r.labels, r.development_share)),
            *(profile.training_data[name] for name in sorted(named)),
            *(profile.decontamination, *profile.benchmarks, *profile.benchmarks.values()),
            *map(loading.content, profile.benchmarks.values()),
        ),
        deps=("helpsteer_dataset",),
        partitions=recipes(profile),
    ).asset
    def training_data_of_recipe(context: dg.AssetExecutionContext, storage: Storage) -> Made:
        """Ratings and preferences that a recipe trains on, without prompts that are in a benchmark; development prompts are held out."""
        store, name = storage.store(), context.partition_key
        recipe, data = profile.recipes[name], store.read("helpsteer_dataset", columns=sources.COLUMNS)
        source = sources.source_of(recipe, profile, data)
        texts = {n: loading.load(n, b, data).items["messages"] for n, b in against.items()}
        made, aside = (
            training_data.prepare(source, recipe, data, texts, profile.decontamination),
            source.quarantine.table(),
        )
        return Made(
            made.rated,
            views=expectations.training_views(
                made.rated, made.preferred, made.dropped, data, recipe.ratings, recipe.pairs
            ),
            beside={PREFERRED: made.preferred, "dropped.parquet": made.dropped, "quarantine.parquet": aside},
            shown=shown.data(made, source, aside, list(against), raters_of(store, profile, name).said),
            info={"data": recipe.data, "licence": source.licence, **made.counts},
        )

    return training_data_of_recipe


def _reward_model(profile: Profile) -> dg.AssetsDefinition:
    used = {recipe.base: profile.checkpoints[recipe.base].core for recipe in profile.recipes.values()}
    note = f" {profile.ratings_note_of_all}".rstrip()

    @Published(
        "reward_model",
        STAGE,
        None,
        expectations.REWARD_MODEL,
        "9",
        modules=("pipeline.reward_model.worker",),
        parts=(*profile.recipes.values(), *used.values(), profile.seed),
        deps=("training_data", "helpsteer_dataset"),
        kinds=("pytorch", "huggingface"),
        partitions=recipes(profile),
        pool=ENGINE_POOL,
        description=f"Reward model of a recipe, in Hugging Face format. It predicts ratings of a conversation's last response, or a reward.{note}",
    ).asset
    def reward_model(
        context: dg.AssetExecutionContext, storage: Storage, compute: Compute, tracking: TensorBoard
    ) -> Made:
        store, name = storage.store(), context.partition_key
        spec = _spec(store, profile, name, tracking.place(name, context.run.run_id))
        figures = compute.run(context, spec)
        tables = {table: read_table(spec.out / f"{table}.parquet") for table in TABLES}
        split = store.read("helpsteer_dataset", columns=["split", "prompt_id"])
        texts = store.read("training_data", name, columns=["response_id", "messages", "response"])
        return Made(
            folder=spec.out,
            views=expectations.model_views(
                tables, split, profile.recipes[name].outputs, outputs_in(local_path(spec.out)), figures
            ),
            shown=shown.model(tables, figures, texts, raters_of(store, profile, name).said, spec.tracking),
            info={n: value for n, value in figures.items() if not isinstance(value, list | dict)},
            rows=cast(int, figures["train_responses"]),
            then=partial(shutil.rmtree, spec.work),  # published: nothing is left to go on from
        )

    return reward_model


def _spec(store: Store, profile: Profile, name: str, tracked: str | None) -> TrainingSpec:
    """What the worker is to train. tracked: folder for the curves."""
    recipe, raters = profile.recipes[name], raters_of(store, profile, name)
    return TrainingSpec(
        rated=store.path("training_data", name, DATA),
        preferred=store.path("training_data", name, PREFERRED),
        data_version=store.version("training_data", name) or "",
        work=local_path(store.work("reward_model", name)),
        cache=store.cache(),
        checkpoint=profile.checkpoints[recipe.base],
        recipe=recipe,
        recipe_name=name,
        seed=profile.seed,
        processes=profile.compute.processes,
        tracking=tracked,
        rated_by=raters.by,
        ratings_note=raters.note,
        out=store.staging("reward_model", name),
    )
