"""The pool of candidate prompts, and each delivery's draw from it."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from assets import DELIVERIES, code_version, count_table, engine_compute, options, sample_table
from pipeline import gate, plots
from pipeline.annotations.agreement import weighted_kappa
from pipeline.evaluation import benchmarks
from pipeline.prompts import complexity, expectations, personal_data, pool, sampling, schema, sources
from pipeline.reward_model.decontamination import prompt_texts
from pipeline.settings import ENGINE_POOL, Checkpoint, Profile
from pipeline.store import DATA, Store, read_batches, read_table, write_table
from resources.compute import Compute
from resources.storage import Storage

DRAW_POOL = "prompt_draw"
"""Pool of the draws: one at a time, so that no two deliveries take the same prompt."""
ORIGINAL = {"mean turns": 2.83, "mean characters": 713}
"""HelpSteer2, section 2.1. In its published rows, which give about these figures, the assistant's turns between the user's count too."""


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
            code_version("2", *wanted.sources, *wanted.sources.values()),
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
                "2",
                *(wanted.filters, wanted.pool or 0, *(s.weight for s in wanted.sources.values()), profile.seed),
                *(profile.decontamination, *against, *against.values(), *map(benchmarks.content, against.values())),
            ),
            deps=["conversations"],
        )
    )
    def candidate_prompts(context: dg.AssetExecutionContext, storage: Storage) -> Iterator[gate.Event]:
        """One candidate prompt a conversation, single- or multi-turn, that passes the filters; the others with their reason."""
        store = storage.store()
        none = pa.table({name: pa.array([]) for name in benchmarks.COLLECTED})
        texts = {n: prompt_texts(benchmarks.load(n, b, none).pairs["messages"]) for n, b in against.items()}
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
            code_version("1", wanted.topics, profile.seed),
            deps=["candidate_prompts"],
            kinds=["scikitlearn", "parquet"],
        ),
        pool=ENGINE_POOL,
    )
    def prompt_topics(context: dg.AssetExecutionContext, storage: Storage, compute: Compute) -> Iterator[gate.Event]:
        """Candidate prompts with their topic: clusters of sentence embeddings, named by their words."""
        store = storage.store()
        candidates = store.read("candidate_prompts")
        spec = {"input": str(store.path("candidate_prompts", None, DATA)), "seed": profile.seed}
        out = store.staging("prompt_topics")
        figures = compute.run(context, "pipeline.prompts.worker", {**spec, **wanted.topics.model_dump()}, out)
        topics = read_table(out / "topics.parquet")
        out.fs.rm(str(out), recursive=True)
        table, found = candidates, pc.index_in(candidates["prompt_id"], topics["prompt_id"])
        for name in ("topic", "topic_name"):
            table = table.append_column(name, topics[name].take(found))
        yield from gate.publish(
            context,
            store,
            "prompt_topics",
            table,
            schema.TOPICS,
            expectations.TOPICS,
            views=expectations.topic_views(topics, candidates),
            metadata={
                "topics asked for": wanted.topics.count,
                "topics": figures["topics"],
                "largest": count_table(table["topic_name"], "topic", most=50),
                "sizes": _histogram(np.bincount(np.asarray(table["topic"])), "Size of a topic", "prompts in it"),
                "samples": sample_table(_first_of_each(table, "topic_name").select(["topic_name", "turns"]), rows=30),
            },
            info=figures,
        )

    rater = profile.checkpoints[wanted.complexity.checkpoint] if wanted.complexity.checkpoint else None

    @dg.asset(
        **options(
            "prompt_complexity",
            "prompts",
            expectations.COMPLEXITY,
            code_version("2", wanted.complexity, *([rater.core] if rater else [])),
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
        table, shown, unrated = topics.append_column("complexity", counted), {}, topics.slice(0, 0)
        if rater:
            ratings, figures = _rated(context, store, compute, rater, profile)
            levels = ratings["complexity"].take(pc.index_in(topics["prompt_id"], ratings["prompt_id"].combine_chunks()))
            both = np.stack(
                [np.asarray(counted, dtype=float), np.asarray(levels.cast(pa.float64()), dtype=float)], axis=1
            )
            shown = {**figures, "agreement with the heuristic (weighted kappa)": round(weighted_kappa(both - 1), 3)}
            rated = pc.is_valid(levels)
            unrated = topics.filter(pc.invert(rated))
            table = topics.append_column("complexity", levels).filter(rated)
        yield from gate.publish(
            context,
            store,
            "prompt_complexity",
            table,
            schema.COMPLEXITY,
            expectations.COMPLEXITY,
            side_tables={"unrated.parquet": unrated},
            metadata={
                "rater": wanted.complexity.rater,
                **shown,
                "levels": _bars({"pool": table}, "Complexity of the pool"),
                "samples": sample_table(_first_of_each(table, "complexity").select(["complexity", "turns"]), rows=10),
            },
        )

    @dg.asset(
        **options(
            "prompts",
            "prompts",
            expectations.PROMPTS,
            code_version("1", wanted.sample, wanted.filters.language, profile.seed),
            deps=["prompt_complexity"],
        ),
        partitions_def=DELIVERIES,
        pool=DRAW_POOL,
    )
    def prompts(context: dg.AssetExecutionContext, storage: Storage) -> Iterator[gate.Event]:
        """A delivery's prompts: even over topics, leaning to the complex, a share of them multi-turn; none of another delivery."""
        store, delivery = storage.store(), context.partition_key
        pool, taken = store.read("prompt_complexity"), set[str]()
        for other in store.partitions("prompts"):
            if other != delivery:
                taken |= set(store.read("prompts", other, columns=["prompt_id"])["prompt_id"].to_pylist())
        table, figures = sampling.draw(pool, wanted.sample, profile.seed, delivery, taken)
        context.log.info(", ".join(f"{name}: {value}" for name, value in figures.items()))
        turns, characters = np.asarray(table["n_turns"]), np.asarray(table["n_characters"])
        yield from gate.publish(
            context,
            store,
            "prompts",
            table,
            schema.PROMPTS,
            expectations.PROMPTS,
            views=expectations.prompt_views(table, taken, wanted),
            metadata={
                **figures,
                "against the original": _against_original(turns, characters),
                "levels": _bars({"delivery": table, "pool": pool}, "Complexity", wanted.sample.complexity_weights),
                "turns": _histogram(turns, "User turns a prompt", "user turns"),
                "lengths": _histogram(characters, "Length of a prompt's user turns", "characters"),
                "topics, by prompts": count_table(table["topic_name"], "topic", most=50),
                "samples": sample_table(table.select(["n_turns", "topic_name", "complexity", "turns"])),
            },
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


def _bars(tables: dict[str, pa.Table], title: str, asked: Sequence[float] = ()) -> dg.MarkdownMetadataValue:
    """Percent of each table's rows a complexity level, beside the shares asked for."""
    counts = {name: np.bincount(np.asarray(table["complexity"]), minlength=6)[1:] for name, table in tables.items()}
    if asked:
        counts["asked for"] = np.array(asked)
    shares = {name: list(100 * c / max(c.sum(), 1)) for name, c in counts.items()}
    return dg.MetadataValue.md(plots.grouped_bars(["1", "2", "3", "4", "5"], shares, title, "percent of prompts"))


def _against_original(turns: np.ndarray, characters: np.ndarray) -> dg.TableMetadataValue:
    ours = {"mean turns": np.mean(2 * turns - 1), "mean characters": np.mean(characters)}
    note = {"mean turns": "user's and assistant's", "mean characters": "here the user's turns alone"}
    return sample_table(
        pa.Table.from_pylist(
            [
                {"figure": f, "here": round(float(ours[f]), 2), "HelpSteer2": ORIGINAL[f], "note": note[f]}
                for f in ORIGINAL
            ]
        )
    )


def _first_of_each(table: pa.Table, column: str, rows: int = 2) -> pa.Table:
    """The first rows of each value of a column, sorted by it."""
    values = table.select([column]).to_pandas()
    first = values.groupby(column, sort=False).head(rows).sort_values(column, kind="stable")
    return table.take(pa.array(first.index.to_numpy()))
