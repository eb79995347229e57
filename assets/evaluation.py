"""Attribute weights, benchmark scores, leaderboard."""

from collections.abc import Iterator

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from assets import code_version, count_table, options, sample_table
from pipeline import gate, plots
from pipeline.evaluation import benchmarks, expectations, schema, summary, weights
from pipeline.settings import ENGINE_POOL, Profile
from pipeline.store import local_path, read_table, write_table
from resources.compute import Compute
from resources.storage import Storage


def build(profile: Profile) -> list[dg.AssetsDefinition]:
    """The stage's assets for a profile."""
    recipes = dg.StaticPartitionsDefinition(list(profile.recipes))
    note = "" if profile.rated_by == "people" else f" ({profile.rated_by})"

    @dg.asset(
        **options("attribute_weights", "evaluation", expectations.WEIGHTS, code_version("4"), deps=["reward_model"]),
        partitions_def=recipes,
    )
    def attribute_weights(context: dg.AssetExecutionContext, storage: Storage) -> Iterator[gate.Event]:
        """Weights that make one score of the outputs: fitted on preferences of the development prompts, never on a benchmark."""
        store = storage.store()
        table = weights.weights_of(
            store.read("reward_model", context.partition_key, "development_preferences.parquet"), profile.rated_by
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
            metadata={
                "weights": sample_table(table),
                "chart": dg.MetadataValue.md(
                    plots.grouped_bars(table["attribute"].to_pylist(), series, f"Attribute weights{note}", "weight")
                ),
                "the published ones": "were found by a search on RewardBench itself (HelpSteer2, section 3)",
            },
        )

    @dg.asset(
        **options(
            "benchmark_scores",
            "evaluation",
            expectations.SCORES,
            code_version(
                "3", *profile.benchmarks.values(), *map(benchmarks.content, profile.benchmarks.values()), profile.seed
            ),
            deps=["reward_model", "attribute_weights", "helpsteer_dataset"],
            kinds=["pytorch", "parquet"],
        ),
        partitions_def=recipes,
        pool=ENGINE_POOL,
    )
    def benchmark_scores(context: dg.AssetExecutionContext, storage: Storage, compute: Compute) -> Iterator[gate.Event]:
        """Every pair of the profile's benchmarks scored, with accuracy and its interval by subset, section and benchmark; ties lose."""
        store, recipe = storage.store(), context.partition_key
        data = store.read("helpsteer_dataset", columns=benchmarks.COLLECTED)
        loaded = [benchmarks.load(name, benchmark, data) for name, benchmark in profile.benchmarks.items()]
        pairs = pa.concat_tables(b.pairs for b in loaded)
        rejected = pa.concat_tables(b.rejected for b in loaded)
        out = store.staging("benchmark_scores", recipe)
        write_table(pairs, out / "pairs.parquet")
        spec = {
            "model": str(local_path(store.path("reward_model", recipe))),
            "input": str(out / "pairs.parquet"),
            "max_tokens": profile.recipes[recipe].max_tokens,
        }
        figures = compute.run(context, "pipeline.evaluation.worker", spec, out)
        predicted = read_table(out / "predictions.parquet")
        fitted = store.read("attribute_weights", recipe)
        outputs = fitted["attribute"].to_pylist()
        sides = [
            np.stack([np.asarray(predicted[f"{side}_{name}"]) for name in outputs], axis=1)
            for side in ("chosen", "rejected")
        ]
        scores = summary.score_table(pairs, sides[0], sides[1], fitted["weight"].to_numpy(), outputs)
        totals = summary.summarise(scores, profile.seed)
        out.fs.rm(str(out), recursive=True)
        shown = totals.to_pandas().round(3)
        yield from gate.publish(
            context,
            store,
            "benchmark_scores",
            scores,
            schema.SCORES,
            expectations.SCORES,
            views=expectations.score_views(scores, pairs, rejected, totals),
            side_tables={"summary.parquet": totals, "rejected.parquet": rejected},
            metadata={
                **figures,
                "accuracy": sample_table(pa.Table.from_pandas(shown, preserve_index=False), rows=60),
                "accuracy of a coin": 0.5,
                "ties left out": sum(b.ties for b in loaded),
                "unusable records": count_table(rejected["reason"], "reason"),
                "rated by": profile.ratings_note or profile.rated_by,
            },
            info=figures,
        )

    @dg.asset(
        **options(
            "leaderboard",
            "evaluation",
            expectations.LEADERBOARD,
            code_version("2", *profile.recipes),
            deps=["benchmark_scores"],
        )
    )
    def leaderboard(context: dg.AssetExecutionContext, storage: Storage) -> Iterator[gate.Event]:
        """Our recipes beside the published rows of HelpSteer2's Table 3, each under the benchmark that it was measured on."""
        store = storage.store()
        done = [recipe for recipe in profile.recipes if store.manifest("benchmark_scores", recipe)]
        table = summary.leaderboard(
            {r: store.read("benchmark_scores", r, "summary.parquet") for r in done}, profile.rated_by
        )
        shown = pa.Table.from_pandas(table.to_pandas().round(1), preserve_index=False)
        yield from gate.publish(
            context,
            store,
            "leaderboard",
            table,
            schema.LEADERBOARD,
            expectations.LEADERBOARD,
            views=expectations.leaderboard_views(table),
            metadata={
                "leaderboard": sample_table(shown.drop_columns(["source"]), rows=60),
                "ours": len(table.filter(pc.equal(table["origin"], "ours"))),
                "rated by": profile.ratings_note or profile.rated_by,
            },
        )

    return [attribute_weights, benchmark_scores, leaderboard]
