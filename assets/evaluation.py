"""Attribute weights, benchmark scores, the model with one output that others' scorers take, leaderboard."""

from functools import partial

import dagster as dg
import pyarrow as pa

from assets.published import Published, work
from pipeline.benchmarks import loading
from pipeline.dataset.raters import raters_of
from pipeline.evaluation import expectations, page, results, schema, shown, weights
from pipeline.evaluation.leaderboard import board, of_recipe, unequal
from pipeline.evaluation.scorers.specs import ModelSpec
from pipeline.evaluation.worker import ScoringSpec
from pipeline.gate import Made
from pipeline.partitions import recipes
from pipeline.reward_model import expectations as of_models
from pipeline.reward_model.export import ExportSpec, accuracies_in
from pipeline.settings import ENGINE_POOL, Profile
from pipeline.store import DATA, local_path
from resources.compute import Compute
from resources.storage import Storage

STAGE = "evaluation"


def build(profile: Profile) -> list[dg.AssetsDefinition]:
    """The stage's assets for a profile."""
    score_rules = expectations.score_rules(profile.evaluation.gate)

    @Published(
        "attribute_weights",
        STAGE,
        schema.WEIGHTS,
        expectations.WEIGHTS,
        "5",
        modules=("pipeline.evaluation.weights",),
        parts=(profile.seed,),
        deps=("reward_model",),
        partitions=recipes(profile),
    ).asset
    def attribute_weights(context: dg.AssetExecutionContext, storage: Storage) -> Made:
        """Weights that make one score of a reward model's outputs, fitted on preferences of the development prompts, never on a benchmark."""
        store, recipe = storage.store(), context.partition_key
        by = raters_of(store, profile, recipe).by
        preferences = store.read("reward_model", recipe, "development_preferences.parquet")
        table = weights.weights_of(preferences, by, profile.recipes[recipe].outputs)
        accuracies = weights.accuracies_of(preferences, profile.seed)
        return Made(
            table,
            views=expectations.weight_views(table),
            beside={"accuracy.parquet": accuracies},
            shown=shown.weights(table, accuracies, by),
        )

    @Published(
        "benchmark_scores",
        STAGE,
        schema.SCORES,
        score_rules,
        "6",
        modules=("pipeline.evaluation.worker", "pipeline.evaluation.results"),
        parts=(*profile.benchmarks.values(), *map(loading.content, profile.benchmarks.values()), profile.seed),
        deps=("training_data", "reward_model", "attribute_weights", "helpsteer_dataset"),
        kinds=("pytorch", "parquet"),
        partitions=recipes(profile),
        pool=ENGINE_POOL,
    ).asset
    def benchmark_scores(context: dg.AssetExecutionContext, storage: Storage, compute: Compute) -> Made:
        """Scores of every response of the profile's benchmarks, with accuracies and their intervals, length bias, contamination and calibration."""
        store, recipe = storage.store(), context.partition_key
        loaded, factors = results.load_all(store, profile), weights.by_output(store.read("attribute_weights", recipe))
        scorer = ModelSpec(model=str(local_path(store.path("reward_model", recipe))))
        spec = partial(
            ScoringSpec,
            scorer=scorer,
            work=store.work("benchmark_scores", recipe),
            weights=factors,
            processes=profile.compute.processes,
        )
        items = pa.concat_tables(b.items for b in loaded)
        left = work(context, compute, store, "benchmark_scores", spec, reads=("scores",), given=items)
        found = results.results_of(store, profile, recipe, loaded, left["scores"], left.figures, factors)
        facts = {n: value for n, value in left.figures.items() if n not in ("scored_as", "model_version")}
        return Made(
            left["scores"],
            views=expectations.result_views(left["scores"], found),
            beside=found.tables,
            shown=shown.scores(found, facts, raters_of(store, profile, recipe).said),
            info={**facts, "provenance": found.provenance, "history": found.compared.to_pylist()},
        )

    @Published(
        "leaderboard",
        STAGE,
        schema.LEADERBOARD,
        expectations.LEADERBOARD,
        "5",
        modules=("pipeline.evaluation.leaderboard", "pipeline.evaluation.page"),
        parts=tuple(profile.recipes),
        deps=("benchmark_scores",),
    ).asset
    def leaderboard(context: dg.AssetExecutionContext, storage: Storage) -> Made:
        """Our recipes on every benchmark, with intervals and compute, and apart from them the published rows of HelpSteer2's Table 3."""
        store = storage.store()
        done = [recipe for recipe in profile.recipes if store.manifest("benchmark_scores", recipe)]
        if not done:
            raise dg.Failure(
                "No recipe has benchmark_scores yet: materialize benchmark_scores of at least one recipe first",
                allow_retries=False,
            )
        models = [of_recipe(store, recipe, raters_of(store, profile, recipe).by) for recipe in done]
        table, rated_by = board(models), profile.ratings_note or profile.rated_by
        made = f"Last scored {max(model.provenance['scored_at'] for model in models)}"  # not now: equal figures, equal version
        return Made(
            table,
            views=expectations.leaderboard_views(table, len(unequal(models))),
            beside=page.files(f"Reward models of {profile.name}", models, profile.ratings_note, made),
            shown=shown.leaderboard(table, len(done), rated_by),
        )

    return [attribute_weights, benchmark_scores, _exported_model(profile), leaderboard]


def _exported_model(profile: Profile) -> dg.AssetsDefinition:
    """The reward model as others take it. It follows its scores, which stand on its card."""
    note = f" {profile.ratings_note_of_all}".rstrip()

    @Published(
        "exported_model",
        STAGE,
        None,
        of_models.EXPORTED_MODEL,
        "4",
        modules=("pipeline.reward_model.export",),
        deps=("reward_model", "training_data", "attribute_weights", "benchmark_scores"),
        kinds=("pytorch", "huggingface"),
        partitions=recipes(profile),
        pool=ENGINE_POOL,
        description="Reward model with one output, the weighted sum of its ratings, that TRL, OpenRLHF, vLLM and rewardbench can load, with a card. "
        f"Only this project can load one that is made from a probe.{note}",
    ).asset
    def exported_model(context: dg.AssetExecutionContext, storage: Storage, compute: Compute) -> Made:
        store, name = storage.store(), context.partition_key
        recipe, raters, out = (
            profile.recipes[name],
            raters_of(store, profile, name),
            store.staging("exported_model", name),
        )
        spec = ExportSpec(
            model=local_path(store.path("reward_model", name)),
            weights=weights.by_output(store.read("attribute_weights", name)),
            rated=store.path("training_data", name, DATA),
            preferred=store.path("training_data", name, "preferred.parquet"),
            max_tokens=recipe.max_tokens,
            name=name,
            licences=(profile.checkpoints[recipe.base].licence, store.published("training_data", name).info["licence"]),
            scores=accuracies_in(store.read("benchmark_scores", name, "summary.parquet")),
            rated_by=raters.by,
            ratings_note=raters.note,
            out=out,
        )
        figures = compute.run(context, spec)
        views = {"totals": pa.Table.from_pylist([figures])}
        return Made(folder=out, views=views, shown=shown.exported(figures, raters.said), info=figures)

    return exported_model
