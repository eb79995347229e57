"""The pool of candidate prompts, and each delivery's draw from it."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from assets import code_version, count_table, engine_compute, options, sample_table
from pipeline import gate, plots
from pipeline.benchmarks import loading
from pipeline.partitions import DELIVERIES
from pipeline.prompts import complexity, delivery_figures, expectations, pool, sampling, schema, sources
from pipeline.prompts.topics import MAP
from pipeline.settings import ENGINE_POOL, Checkpoint, Profile, digest
from pipeline.store import DATA, Store, read_batches, read_table, write_table
from pipeline.texts import personal_data
from pipeline.texts.words import prompt_texts
from resources.compute import Compute
from resources.storage import Storage

DRAW_POOL = "prompt_draw"
"""Pool of the draws: one at a time, so that no two deliveries take the same prompt."""


def build(profile: Profile) -> list[dg.AssetsDefinition]:
    """The stage's assets for a profile."""
    wanted = profile.prompts
    if wanted is None:  # the desk brings its texts along
        return []

    @dg.asset(
        **options(
            "conversations",
            "prompts",
            expectations.CONVERSATIONS,
            code_version("3", *wanted.sources, *wanted.sources.values()),
        )
    )
    def conversations(context: dg.AssetExecutionContext, storage: Storage) -> Iterator[gate.Event]:
        """Conversations of the profile's sources, the users' turns alone: what a source's assistant said is not kept."""
        store = storage.store()
        staged = store.staging("conversations")
        stream, reports = sources.conversations(wanted.sources)
        write_table(stream, staged / DATA)
        rejected = pa.concat_tables([r.rejected_table() for r in reports])
        write_table(rejected, staged / pool.REJECTED_FILE)
        shape = pool.describe(read_batches(staged / DATA))
        read = [
            {"source": r.source, "licence": wanted.sources[r.source].licence, "records": r.records, "kept": r.kept, "end": r.end}
            for r in reports
        ]  # fmt: skip
        for report in reports:
            context.log.info(f"{report.source}: {report.records} records read, {report.kept} kept; {report.end}")
        yield from gate.publish_staged(
            context,
            store,
            "conversations",
            staged,
            schema.CONVERSATIONS,
            expectations.CONVERSATIONS,
            views=expectations.conversation_views(shape.roles, reports),
            metadata={
                "read": sample_table(pa.Table.from_pylist(read), rows=len(read)),
                "set aside by reason": count_table(rejected["reason"], "reason"),
                "set aside, samples": sample_table(_first_of_each(rejected, "reason"), rows=30),
                "flags of the sources": count_table(shape.flags, "flag"),
                "user turns": _histogram(shape.lengths, "User turns a conversation", "user turns"),
                "samples": sample_table(shape.samples),
            },
        )

    against = {
        name: b for name, b in profile.benchmarks.items() if b.kind != "collected"
    }  # that one comes from the pool

    @dg.asset(
        **options(
            "candidate_prompts",
            "prompts",
            expectations.CANDIDATES,
            code_version(
                "3",
                *(wanted.filters, wanted.pool or 0, *(s.weight for s in wanted.sources.values()), profile.seed),
                *(profile.decontamination, *against, *against.values(), *map(loading.content, against.values())),
            ),
            deps=["conversations"],
        )
    )
    def candidate_prompts(context: dg.AssetExecutionContext, storage: Storage) -> Iterator[gate.Event]:
        """One candidate prompt a conversation, single- or multi-turn, that passes the filters; the others with their reason."""
        store = storage.store()
        none = pa.table({name: pa.array([]) for name in loading.COLLECTED})
        texts = {n: prompt_texts(loading.load(n, b, none).items["messages"]) for n, b in against.items()}
        texts |= pool.benchmark_prompts(wanted.filters.benchmark_prompts)
        staged = store.staging("candidate_prompts")
        stream = read_batches(store.path("conversations", None, DATA))
        made = pool.write_candidates(stream, wanted, profile.seed, texts, profile.decontamination, staged)
        samples = pa.Table.from_batches([*islice(read_batches(staged / DATA, rows=8), 1)], schema=schema.CANDIDATES)
        turns, characters = (np.asarray(read_table(staged / DATA, [c])[c]) for c in ("n_turns", "n_characters"))
        rejected, shown = made.rejected.total(), ["reason", "language", "flags", "n_characters", "turns"]
        yield from gate.publish_staged(
            context,
            store,
            "candidate_prompts",
            staged,
            schema.CANDIDATES,
            expectations.CANDIDATES,
            views=expectations.candidate_views(
                read_batches(staged / DATA), rejected, made.conversations, wanted.filters
            ),
            metadata={
                "rejected": rejected,
                "rejected by reason": count_table(made.rejected, "reason"),
                "rejected, samples": sample_table(made.samples.sort_by("reason").select(shown), rows=60),
                "flags": count_table(made.flags, "flag"),
                "by source": count_table(read_table(staged / DATA, ["source"])["source"], "source"),
                "compared with": ", ".join(f"{name} ({len(t)} prompts)" for name, t in texts.items()) or "no benchmark",
                "samples": sample_table(personal_data.shown(samples).select(["n_turns", "flags", "turns"])),
                "turns": _histogram(turns, "User turns a candidate", "user turns"),
                "lengths": _histogram(characters, "Length of a candidate", "characters"),
            },
        )

    @dg.asset(
        **options(
            "prompt_topics",
            "prompts",
            expectations.TOPICS,
            code_version("2", wanted.topics, profile.seed),
            deps=["candidate_prompts"],
            kinds=["scikitlearn", "parquet"],
        ),
        pool=ENGINE_POOL,
    )
    def prompt_topics(context: dg.AssetExecutionContext, storage: Storage, compute: Compute) -> Iterator[gate.Event]:
        """Candidate prompts with their topic: clusters of sentence embeddings, named by their words. Published topics keep ids and names."""
        store, found_by = storage.store(), digest([wanted.topics, profile.seed])
        candidates, before = store.read("candidate_prompts"), store.manifest("prompt_topics")
        earlier = before if before and before.info.get("found_by") == found_by else None
        spec = {
            "input": str(store.path("candidate_prompts", None, DATA)),
            "work": str(store.work("prompt_topics")),
            "earlier": str(store.path("prompt_topics")) if earlier else None,
            "weights": earlier.info["embedder's weights"] if earlier else None,
            "seed": profile.seed,
            **wanted.topics.model_dump(),
        }
        out = store.staging("prompt_topics")
        figures = compute.run(context, "pipeline.prompts.worker", spec, out)
        topics, map_, places = read_table(out / "topics.parquet"), read_table(out / MAP), figures.pop("map")
        out.fs.rm(str(out), recursive=True)
        table, found = candidates, pc.index_in(candidates["prompt_id"], topics["prompt_id"].combine_chunks())
        for name in ("topic", "topic_name"):
            table = table.append_column(name, topics[name].take(found))
        known = store.read("prompt_topics", columns=["prompt_id", "topic"]) if earlier else table
        names = store.read("prompt_topics", name=MAP)["topic_name"] if earlier else map_["topic_name"]
        samples = personal_data.shown(_first_of_each(table, "topic_name").slice(0, 30))
        yield from gate.publish(
            context,
            store,
            "prompt_topics",
            table,
            schema.TOPICS,
            expectations.TOPICS,
            views=expectations.topic_views(table, candidates, known, map_["topic_name"], names),
            side_tables={MAP: map_},
            metadata={
                "method": wanted.topics.method,
                "topics asked for": wanted.topics.count,
                **figures,
                "largest": count_table(table["topic_name"], "topic", most=50),
                "sizes": _histogram(np.asarray(map_["prompts"]), "Size of a topic", "prompts in it"),
                "map": dg.MetadataValue.md(
                    plots.bubbles(places, np.asarray(map_["prompts"]), map_["topic_name"].to_pylist(), "Topics")
                ),
                "samples": sample_table(samples.select(["topic_name", "turns"]), rows=30),
            },
            info={**figures, "found_by": found_by},
        )

    rater = profile.checkpoints[wanted.complexity.checkpoint] if wanted.complexity.checkpoint else None

    @dg.asset(
        **options(
            "prompt_complexity",
            "prompts",
            expectations.COMPLEXITY,
            code_version("3", wanted.complexity, *([rater.core] if rater else [])),
            deps=["prompt_topics"],
            kinds=["vllm", "parquet"] if rater else ["parquet"],
        ),
        pool=rater.pool if rater else None,
    )
    def prompt_complexity(
        context: dg.AssetExecutionContext, storage: Storage, compute: Compute
    ) -> Iterator[gate.Event]:
        """The pool: candidate prompts with topic and complexity, 1 to 5 by the intentions and constraints in the last turn."""
        store = storage.store()
        topics = store.read("prompt_topics")
        counted = complexity.complexity(topics["turns"])
        table, shown = topics.append_column("complexity", counted), {}
        unrated = topics.slice(0, 0).append_column("detail", pa.chunked_array([], pa.string()))
        if rater:
            ratings, figures = _rated(context, store, compute, rater, profile)
            ratings = ratings.take(pc.index_in(topics["prompt_id"], ratings["prompt_id"].combine_chunks()))
            levels, rated = ratings["complexity"], pc.is_valid(ratings["complexity"])
            agreed, confusion = complexity.agreement(counted.filter(rated), levels.filter(rated))
            shown = {
                **figures,
                **{f"agreement with the heuristic: {name}": value for name, value in agreed.items()},
                "heuristic's level (rows) by the model's (columns)": sample_table(confusion),
            }
            unrated = topics.append_column("detail", ratings["detail"]).filter(pc.invert(rated))
            table = topics.append_column("complexity", levels).filter(rated)
        yield from gate.publish(
            context,
            store,
            "prompt_complexity",
            table,
            schema.COMPLEXITY,
            expectations.COMPLEXITY,
            views=expectations.complexity_views(table, unrated),
            side_tables={"unrated.parquet": unrated},
            metadata={
                "rater": wanted.complexity.rater,
                **shown,
                "levels": dg.MetadataValue.md(delivery_figures.by_level({"pool": table})),
                "samples": sample_table(
                    personal_data.shown(_first_of_each(table, "complexity")).select(["complexity", "turns"]), rows=10
                ),
            },
        )

    @dg.asset(
        **options(
            "prompts",
            "prompts",
            expectations.PROMPTS,
            code_version(
                "3", wanted.sample, wanted.filters.language, wanted.filters.near_duplicates or 0, profile.seed
            ),
            deps=["prompt_complexity"],
        ),
        partitions_def=DELIVERIES,
        pool=DRAW_POOL,
    )
    def prompts(context: dg.AssetExecutionContext, storage: Storage) -> Iterator[gate.Event]:
        """A delivery's prompts: even over topics, leaning to the complex, a share of them multi-turn; none of another delivery."""
        store, delivery, sample = storage.store(), context.partition_key, wanted.sample
        pool, before = store.read("prompt_complexity"), store.manifest("prompts", delivery)
        others = (
            store.read("prompts", key, columns=["prompt_id", "turns"])
            for key in store.partitions("prompts")
            if key != delivery
        )
        taken = sampling.taken(pool, others, wanted.filters.near_duplicates)
        drawn_by, had = digest([sample, profile.seed]), set[str]()
        if before:
            had = set(store.read("prompts", delivery, columns=["prompt_id"])["prompt_id"].to_pylist())
        kept = had if before and before.info.get("drawn_by") == drawn_by else set[str]()
        table, figures = sampling.draw(pool, sample, profile.seed, delivery, taken, kept)
        context.log.info(", ".join(f"{name}: {value}" for name, value in figures.items()))
        short = sampling.shortfall(table, sampling.free(pool, sample, taken))
        yield from gate.publish(
            context,
            store,
            "prompts",
            table,
            schema.PROMPTS,
            expectations.PROMPTS,
            views=expectations.prompt_views(table, taken, wanted, len(had - set(table["prompt_id"].to_pylist()))),
            metadata={
                **figures,
                "against the original": sample_table(delivery_figures.against_original(table)),
                "levels": dg.MetadataValue.md(
                    delivery_figures.by_level({"delivery": table, "pool": pool}, sample.complexity_weights)
                ),
                "user turns": sample_table(delivery_figures.by_turns(table, pool), rows=50),
                "turns": _histogram(np.asarray(table["n_turns"]), "User turns a prompt", "user turns"),
                "lengths": _histogram(
                    np.asarray(table["n_characters"]), "Length of a prompt's user turns", "characters"
                ),
                "topics": dg.MetadataValue.md(delivery_figures.by_topic(table, figures["topics in the pool"])),
                "topics, by prompts": count_table(table["topic_name"], "topic", most=50),
                "topics that gave less than their share": sample_table(short, rows=50),
                "samples": sample_table(
                    personal_data.shown(table.slice(0, 8)).select(["n_turns", "topic_name", "complexity", "turns"])
                ),
            },
            info={**figures, "drawn_by": drawn_by},
        )

    return [conversations, candidate_prompts, prompt_topics, prompt_complexity, prompts]


def _rated(
    context: dg.AssetExecutionContext, store: Store, compute: Compute, rater: Checkpoint, profile: Profile
) -> tuple[pa.Table, dict[str, Any]]:
    """Ratings of the pool by a model, and figures of its run."""
    out = store.staging("prompt_complexity")
    spec = {
        "input": str(store.path("prompt_topics", None, DATA)),
        "work": str(store.work("prompt_complexity")),
        "checkpoint": rater.model_dump(mode="json"),
        "cache": str(store.cache()),
        "profile_seed": profile.seed,
        **engine_compute(profile),
    }
    figures = compute.run(context, "pipeline.prompts.rater", spec, out)
    ratings = read_table(out / "ratings.parquet")
    out.fs.rm(str(out), recursive=True)
    return ratings, figures


def _histogram(values: object, title: str, xlabel: str) -> dg.MarkdownMetadataValue:
    return dg.MetadataValue.md(plots.histogram(np.asarray(values), title, xlabel))


def _first_of_each(table: pa.Table, column: str, rows: int = 2) -> pa.Table:
    """The first rows of each value of a column, sorted by it."""
    first = table.select([column]).to_pandas().groupby(column, sort=False).head(rows).index
    among = np.zeros(len(table), dtype=bool)
    among[first] = True  # a filter works where `take` doesn't: on more than 2 GiB of text
    return table.filter(pa.array(among)).sort_by(column)
