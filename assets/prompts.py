"""The pool of candidate prompts, and each delivery's draw from it."""

from collections.abc import Mapping
from functools import partial
from itertools import islice

import dagster as dg
import pyarrow as pa

from assets.published import Published, work
from pipeline.benchmarks import loading
from pipeline.engines.spec import EngineSpec
from pipeline.gate import Made
from pipeline.partitions import DELIVERIES
from pipeline.prompts import complexity, expectations, pool, sampling, schema, shown, sources
from pipeline.prompts.deliveries import standing
from pipeline.prompts.rater import ComplexitySpec
from pipeline.prompts.topics import MAP, with_topics
from pipeline.prompts.worker import TopicsSpec
from pipeline.settings import ENGINE_POOL, Benchmark, Profile, digest
from pipeline.shown import Shown
from pipeline.store import DATA, read_batches, read_table, write_table
from pipeline.texts.words import prompt_texts
from resources.compute import Compute
from resources.storage import Storage

STAGE = "prompts"
DRAW_POOL = "prompt_draw"
"""Pool of the draws: one at a time, so that no two deliveries take the same prompt."""


def build(profile: Profile) -> list[dg.AssetsDefinition]:
    """The stage's assets for a profile."""
    wanted = profile.prompts
    if wanted is None:  # the desk brings its texts along
        return []
    # the collected one comes from the pool
    against = {name: b for name, b in profile.benchmarks.items() if b.kind != "collected"}
    rater = wanted.complexity.checkpoint
    rated_by = profile.checkpoints[rater] if rater else None

    @Published(
        "conversations",
        STAGE,
        schema.CONVERSATIONS,
        expectations.CONVERSATIONS,
        "4",
        modules=("pipeline.prompts.sources",),
        parts=(*wanted.sources, *wanted.sources.values()),
    ).asset
    def conversations(context: dg.AssetExecutionContext, storage: Storage) -> Made:
        """Conversations of the profile's sources. Only the user's turns are kept; what a source's assistant said is not."""
        staged = storage.store().staging("conversations")
        stream, reports = sources.conversations(wanted.sources)
        write_table(stream, staged / DATA)
        rejected = pa.concat_tables([r.rejected_table() for r in reports])
        shape = pool.describe(read_batches(staged / DATA))
        for report in reports:
            context.log.info(
                f"Source {report.source}: {report.records} records were read, {report.kept} conversations were kept; {report.end}"
                + (f"; the first that can't be read is {report.unread}" if report.unread else "")
            )
        sources.refuse_unread(reports)
        return Made(
            folder=staged,
            views=expectations.conversation_views(shape.roles, reports),
            beside={pool.REJECTED_FILE: rejected},
            shown=shown.conversations(reports, rejected, shape, shown.licences(wanted)),
        )

    @Published(
        "candidate_prompts",
        STAGE,
        schema.CANDIDATES,
        expectations.CANDIDATES,
        "5",
        modules=("pipeline.prompts.pool", "pipeline.benchmarks.loading"),
        parts=(
            wanted.filters,
            wanted.pool,
            profile.seed,
            profile.decontamination,
            *(source.weight for source in wanted.sources.values()),
            *against,
            *against.values(),
            *map(loading.content, against.values()),
        ),
        deps=("conversations",),
    ).asset
    def candidate_prompts(context: dg.AssetExecutionContext, storage: Storage) -> Made:
        """At most one candidate prompt per conversation, single- or multi-turn, that passes the filters; `rejected.parquet` has the others."""
        store = storage.store()
        texts = _texts(against) | pool.benchmark_prompts(wanted.filters.benchmark_prompts)
        staged, stream = store.staging("candidate_prompts"), read_batches(store.path("conversations", None, DATA))
        made = pool.write_candidates(stream, wanted, profile.seed, texts, profile.decontamination, staged)
        samples = pa.Table.from_batches([*islice(read_batches(staged / DATA, rows=8), 1)], schema=schema.CANDIDATES)
        kept = read_table(staged / DATA, ["n_turns", "n_characters", "source"])
        return Made(
            folder=staged,
            views=expectations.candidate_views(
                read_batches(staged / DATA), made.rejected.total(), made.conversations, wanted.filters
            ),
            shown=shown.candidates(kept, samples, made, texts),
        )

    @Published(
        "prompt_topics",
        STAGE,
        schema.TOPICS,
        expectations.TOPICS,
        "2",
        modules=("pipeline.prompts.worker",),
        parts=(wanted.topics, profile.seed),
        deps=("candidate_prompts",),
        kinds=("scikitlearn", "parquet"),
        pool=ENGINE_POOL,
    ).asset
    def prompt_topics(context: dg.AssetExecutionContext, storage: Storage, compute: Compute) -> Made:
        """Candidate prompts with their topics: clusters of sentence embeddings, named by their words. Published topics keep number and name."""
        store, found_by = storage.store(), digest([wanted.topics, profile.seed])
        before = store.manifest("prompt_topics")
        earlier = before if before and before.info.get("found_by") == found_by else None
        spec = partial(
            TopicsSpec,
            input=store.path("candidate_prompts", None, DATA),
            work=store.work("prompt_topics"),
            earlier=store.path("prompt_topics") if earlier else None,
            weights=earlier.info["embedder's weights"] if earlier else None,
            topics=wanted.topics,
            seed=profile.seed,
        )
        worked = work(context, compute, store, "prompt_topics", spec, reads=("topics", "map"))
        candidates, map_, figures = store.read("candidate_prompts"), worked["map"], dict(worked.figures)
        table, places = with_topics(candidates, worked["topics"]), figures.pop("map")
        known = store.read("prompt_topics", columns=["prompt_id", "topic"]) if earlier else table
        names = store.read("prompt_topics", name=MAP)["topic_name"] if earlier else map_["topic_name"]
        return Made(
            table,
            views=expectations.topic_views(table, candidates, known, map_["topic_name"], names),
            beside={MAP: map_},
            shown=shown.topics(table, map_, places, figures, wanted.topics.method, wanted.topics.count),
            info={**figures, "found_by": found_by},
        )

    @Published(
        "prompt_complexity",
        STAGE,
        schema.COMPLEXITY,
        expectations.COMPLEXITY,
        "4",
        modules=("pipeline.prompts.complexity", *(("pipeline.prompts.rater",) if rater else ())),
        parts=(wanted.complexity, *([rated_by.core] if rated_by else [])),
        deps=("prompt_topics",),
        kinds=("vllm", "parquet") if rater else ("parquet",),
        pool=rated_by.pool if rated_by else None,
    ).asset
    def prompt_complexity(context: dg.AssetExecutionContext, storage: Storage, compute: Compute) -> Made:
        """Pool that deliveries draw from: candidate prompts with topic and complexity (1 to 5, by intentions and constraints of the last turn)."""
        store, model = storage.store(), dict[str, Shown]()
        topics = store.read("prompt_topics")
        levels = complexity.by_heuristic(topics)
        if rater:
            engine = EngineSpec.of(profile, rater, store.cache())
            most = wanted.complexity.max_tokens
            spec = partial(ComplexitySpec, work=store.work("prompt_complexity"), engine=engine, max_tokens=most)
            worked = work(context, compute, store, "prompt_complexity", spec, reads=("ratings",), given=topics)
            levels = complexity.by_model(topics, worked["ratings"])
            agreed, confusion = complexity.agreement(levels.counted, levels.rated["complexity"])
            model = shown.rated(worked.figures, agreed, confusion)
        return Made(
            levels.rated,
            views=expectations.complexity_views(levels.rated, levels.unrated),
            beside={"unrated.parquet": levels.unrated},
            shown=shown.complexity(levels.rated, wanted.complexity.rater, model),
        )

    @Published(
        "prompts",
        STAGE,
        schema.PROMPTS,
        expectations.PROMPTS,
        "3",
        modules=("pipeline.prompts.sampling", "pipeline.prompts.deliveries"),
        parts=(wanted.sample, wanted.filters.language, wanted.filters.near_duplicates, profile.seed),
        deps=("prompt_complexity",),
        partitions=DELIVERIES,
        pool=DRAW_POOL,
    ).asset
    def prompts(context: dg.AssetExecutionContext, storage: Storage) -> Made:
        """Prompts of a delivery: even over topics, by weight over levels of complexity, a share of them multi-turn, none of another delivery."""
        store, delivery, sample = storage.store(), context.partition_key, wanted.sample
        whole, drawn_by = store.read("prompt_complexity"), digest([sample, profile.seed])
        before = standing(store, delivery, whole, wanted.filters.near_duplicates, drawn_by)
        table, figures = sampling.draw(whole, sample, profile.seed, delivery, before.taken, before.kept)
        context.log.info(", ".join(f"{name}: {value}" for name, value in figures.items()))
        short = sampling.shortfall(table, sampling.free(whole, sample, before.taken))
        return Made(
            table,
            views=expectations.prompt_views(table, before.taken, wanted, before.replaced(table)),
            shown=shown.delivery(table, whole, short, figures, sample),
            info={**figures, "drawn_by": drawn_by},
        )

    return [conversations, candidate_prompts, prompt_topics, prompt_complexity, prompts]


def _texts(benchmarks: Mapping[str, Benchmark]) -> dict[str, pa.Array]:
    """The prompts of benchmarks, by name."""
    none = pa.table({name: pa.array([]) for name in loading.COLLECTED})
    return {n: prompt_texts(loading.load(n, b, none).items["messages"]) for n, b in benchmarks.items()}
