"""Attribute weights, benchmark scores, leaderboard."""

from collections.abc import Iterator

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from assets import code_version, count_table, options, ratings_of, sample_table
from pipeline import gate, partitions, plots
from pipeline.benchmarks import loading
from pipeline.evaluation import expectations, history, page, schema, summary, weights
from pipeline.evaluation.doubt.calibration import calibration
from pipeline.evaluation.doubt.contamination import contaminated
from pipeline.evaluation.leaderboard import REWARDBENCH, board, of_recipe, unequal, wide
from pipeline.evaluation.scorers.specs import ModelSpec
from pipeline.settings import ENGINE_POOL, Profile
from pipeline.store import Store, local_path, read_table, write_table
from pipeline.vocabulary import ATTRIBUTES
from resources.compute import Compute
from resources.storage import Storage


def build(profile: Profile) -> list[dg.AssetsDefinition]:
    """The stage's assets for a profile."""
    recipes = partitions.recipes(profile)
    score_rules = expectations.score_rules(profile.evaluation.gate)

    @dg.asset(
        **options(
            "attribute_weights",
            "reward_model",
            expectations.WEIGHTS,
            code_version("5", profile.seed),
            deps=["reward_model"],
        ),
        partitions_def=recipes,
    )
    def attribute_weights(context: dg.AssetExecutionContext, storage: Storage) -> Iterator[gate.Event]:
        """Weights that make one score of the outputs: fitted on preferences of the development prompts, never on a benchmark."""
        store, recipe = storage.store(), context.partition_key
        by, _ = ratings_of(store, profile, recipe)
        preferences = store.read("reward_model", recipe, "development_preferences.parquet")
        table, accuracies = (
            weights.weights_of(preferences, by, profile.recipes[recipe].outputs),
            weights.accuracies_of(preferences, profile.seed),
        )
        names = ("weight", "published_70b", "published_340b")
        series = {name: table[name].to_pylist() for name in names if not table[name].null_count}
        yield from gate.publish(
            context,
            store,
            "attribute_weights",
            table,
            schema.WEIGHTS,
            expectations.WEIGHTS,
            views=expectations.weight_views(table),
            side_tables={"accuracy.parquet": accuracies},
            metadata={
                "weights": sample_table(table),
                "order of preferences, beside other weights": sample_table(accuracies),
                "chart": dg.MetadataValue.md(
                    plots.grouped_bars(
                        table["attribute"].to_pylist(), series, f"Attribute weights (ratings by {by})", "weight"
                    )
                ),
                "the published ones": "were found by a search on RewardBench itself (HelpSteer2, section 3)",
            },
        )

    @dg.asset(
        **options(
            "benchmark_scores",
            "evaluation",
            score_rules,
            code_version(
                "4", *profile.benchmarks.values(), *map(loading.content, profile.benchmarks.values()), profile.seed
            ),
            deps=["training_data", "reward_model", "attribute_weights", "helpsteer_dataset"],
            kinds=["pytorch", "parquet"],
        ),
        partitions_def=recipes,
        pool=ENGINE_POOL,
    )
    def benchmark_scores(context: dg.AssetExecutionContext, storage: Storage, compute: Compute) -> Iterator[gate.Event]:
        """Every response of the profile's benchmarks scored: accuracy with its doubt, length bias, contamination, the run before."""
        store, recipe = storage.store(), context.partition_key
        by, said = ratings_of(store, profile, recipe)
        data = store.read("helpsteer_dataset", columns=loading.COLLECTED)
        loaded = [loading.load(name, benchmark, data) for name, benchmark in profile.benchmarks.items()]
        items = pa.concat_tables(b.items for b in loaded)
        rejected = pa.concat_tables(b.rejected for b in loaded)
        fitted = store.read("attribute_weights", recipe)
        factors = dict(zip(fitted["attribute"].to_pylist(), fitted["weight"].to_pylist(), strict=True))
        model = ModelSpec(
            model=str(local_path(store.path("reward_model", recipe))), max_tokens=profile.recipes[recipe].max_tokens
        )
        out = store.staging("benchmark_scores", recipe)
        write_table(items, out / "items.parquet")
        spec = {
            "scorer": model.model_dump(mode="json"),
            "input": str(out / "items.parquet"),
            "work": str(store.work("benchmark_scores", recipe)),
            "weights": factors,
            "processes": profile.compute.processes,
        }
        facts = compute.run(context, "pipeline.evaluation.worker", spec, out)
        scores = read_table(out / "scores.parquet")
        out.fs.rm(str(out), recursive=True)
        forms = {name: loading.form(benchmark) for name, benchmark in profile.benchmarks.items()}
        tables = summary.figures(items, scores, forms, profile.seed)
        found = contaminated(items, _trained_on(store, recipe), profile.decontamination)
        contamination = summary.contamination(items, scores, forms, found, profile.seed)
        calibrated = calibration(
            store.read("reward_model", recipe, "development_predictions.parquet"),
            _means(store.read("training_data", recipe)),
            profile.seed,
        )
        scored_as = {n: v for n, v in facts.pop("scored_as").items() if n in ("template", "max_tokens", "precision")}
        made = history.provenance(items, recipe, facts.pop("model_version"), factors, profile.seed, **scored_as)
        before = history.last_published(store, recipe)
        now = history.Run("", tables["outcomes.parquet"], made["benchmarks"])
        compared = history.compare(before, now, forms, profile.seed, profile.evaluation.most_lost)
        total = tables["summary.parquet"].to_pandas().round(3)
        yield from gate.publish(
            context,
            store,
            "benchmark_scores",
            scores,
            schema.SCORES,
            score_rules,
            views=expectations.score_views(scores, items, rejected, tables["summary.parquet"], contamination, compared),
            side_tables={
                **tables,
                "rejected.parquet": rejected,
                "contaminated.parquet": found,
                "contamination.parquet": contamination,
                "calibration.parquet": calibrated[0],
                "calibration_bins.parquet": calibrated[1],
            },
            metadata={
                **{name: value for name, value in facts.items() if value is not None},
                "accuracy": sample_table(pa.Table.from_pandas(total, preserve_index=False), rows=60),
                "length bias": sample_table(tables["length_bias.parquet"], rows=60),
                "contamination": sample_table(contamination, rows=20),
                "calibration": sample_table(calibrated[0], rows=20),
                "beside the run before": sample_table(compared, rows=20),
                "ties left out": sum(b.ties for b in loaded),
                "unusable records": count_table(rejected["reason"], "reason"),
                "provenance": dg.MetadataValue.json(made),
                "rated by": said or by,
            },
            info={**facts, "provenance": made, "history": compared.to_pylist()},
        )

    @dg.asset(
        **options(
            "leaderboard",
            "evaluation",
            expectations.LEADERBOARD,
            code_version("3", *profile.recipes),
            deps=["benchmark_scores"],
        )
    )
    def leaderboard(context: dg.AssetExecutionContext, storage: Storage) -> Iterator[gate.Event]:
        """Our recipes on every benchmark, with intervals and compute; beside them, apart, the published rows of HelpSteer2's Table 3."""
        store = storage.store()
        done = [recipe for recipe in profile.recipes if store.manifest("benchmark_scores", recipe)]
        models = [of_recipe(store, recipe, ratings_of(store, profile, recipe)[0]) for recipe in done]
        table = board(models)
        ours = table.filter(pc.equal(table["origin"], "ours"))
        names = pc.unique(ours["benchmark"]).to_pylist()
        if not models:
            raise dg.Failure("no recipe has benchmark_scores yet: materialize one", allow_retries=False)
        made = f"Last scored {max(model.provenance['scored_at'] for model in models)}"  # not now: equal figures, equal version
        yield from gate.publish(
            context,
            store,
            "leaderboard",
            table,
            schema.LEADERBOARD,
            expectations.LEADERBOARD,
            views=expectations.leaderboard_views(table, len(unequal(models))),
            side_files=page.files(f"Reward models of {profile.name}", models, profile.ratings_note, made),
            metadata={
                **{f"on {name}": sample_table(wide(table, name), rows=60) for name in names},
                **{f"plot of {name}": dg.MetadataValue.md(_plot(ours, name)) for name in names},
                "published": sample_table(wide(table, REWARDBENCH, "published"), rows=60),
                "ours": len(done),
                "rated by": profile.ratings_note or profile.rated_by,
            },
        )

    return [attribute_weights, benchmark_scores, leaderboard]


def _trained_on(store: Store, recipe: str) -> list[pa.ChunkedArray]:
    """Conversations that a recipe was trained on, or its checkpoint picked by, as columns of messages."""
    return [
        store.read("training_data", recipe, columns=["messages"])["messages"],
        store.read("training_data", recipe, "preferred.parquet", columns=["messages"])["messages"],
    ]


def _means(rated: pa.Table) -> dict[str, float]:
    """Mean rating of each attribute in the training split (schema RATED); NaN where nothing is rated."""
    train = rated.filter(pc.equal(rated["split"], "train"))
    return {a: np.nan if (mean := pc.mean(train[a]).as_py()) is None else mean for a in ATTRIBUTES}


def _plot(ours: pa.Table, benchmark: str) -> str:
    """Overall figures of a benchmark with their intervals, beside what length and chance reach, as Markdown."""
    rows = [r for r in ours.to_pylist() if (r["benchmark"], r["level"]) == (benchmark, "overall")]
    labels = [r["model"] if r["measure"] == summary.ACCURACY else f"{r['model']}, {r['measure']}" for r in rows]
    marks = {
        f"{name} response" if name == "longest" else name: [r[name] for r in rows] for name in ("longest", "random")
    }
    ends = [(r["low"], r["high"]) for r in rows]
    return plots.interval_chart(
        labels, [r["accuracy"] for r in rows], ends, marks, f"Overall on {benchmark}", "percent"
    )
