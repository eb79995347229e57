"""The pool of candidate prompts, and each delivery's draw from it."""

from collections.abc import Iterator

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from assets import DELIVERIES, ENGINE_POOL, code_version, count_table, options, sample_table
from pipeline import gate, plots
from pipeline.prompts import complexity, expectations, filters, sampling, schema, sources
from pipeline.settings import Profile
from resources.compute import LocalCompute
from resources.storage import Storage

ORIGINAL_MEAN_TURNS, ORIGINAL_MEAN_CHARACTERS = 2.83, 713
"""HelpSteer2, Table 2."""


def build(profile: Profile) -> list[dg.AssetsDefinition]:
    """The stage's assets for a profile."""
    wanted = profile.prompts

    @dg.asset(
        **options("conversations", "prompts", expectations.CONVERSATIONS, code_version("1", *wanted.sources.values()))
    )
    def conversations(context: dg.AssetExecutionContext, storage: Storage) -> Iterator[gate.Event]:
        """Conversations of the profile's sources, the users' turns alone: what a source's assistant said is not kept."""
        table, reports = sources.conversations(wanted.sources)
        rejected = pa.concat_tables([r.rejected_table() for r in reports])
        read = pa.Table.from_pylist(
            [{"source": r.source, "records": r.records, "kept": r.kept, "cut": r.cut or "no"} for r in reports]
        )
        for report in reports:
            context.log.info(
                f"{report.source}: {report.records} records read, {report.kept} kept; {report.cut or 'read to its end'}"
            )
        yield from gate.publish(
            context,
            storage.store(),
            "conversations",
            table,
            schema.CONVERSATIONS,
            expectations.CONVERSATIONS,
            views=expectations.conversation_views(table, reports),
            side_tables={"rejected.parquet": rejected},
            metadata={
                "read": sample_table(read),
                "set aside by reason": count_table(rejected["reason"], "reason"),
                "user turns": dg.MetadataValue.md(
                    plots.histogram(pc.list_value_length(table["turns"]), "User turns a conversation", "user turns")
                ),
            },
        )

    @dg.asset(
        **options(
            "candidate_prompts",
            "prompts",
            expectations.CANDIDATES,
            code_version("1", wanted.filters, profile.seed),
            deps=["conversations"],
        )
    )
    def candidate_prompts(context: dg.AssetExecutionContext, storage: Storage) -> Iterator[gate.Event]:
        """One candidate prompt a conversation, single- or multi-turn, that passes the filters; the others with their reason."""
        store = storage.store()
        kept, rejected = filters.candidate_prompts(store.read("conversations"), wanted.filters, profile.seed)
        yield from gate.publish(
            context,
            store,
            "candidate_prompts",
            kept,
            schema.CANDIDATES,
            expectations.CANDIDATES,
            views=expectations.candidate_views(len(kept), len(rejected)),
            side_tables={"rejected.parquet": rejected},
            metadata={
                "rejected by reason": count_table(rejected["reason"], "reason"),
                "rejected, samples": sample_table(_one_each(rejected).select(["reason", "turns"])),
                "kept, samples": sample_table(kept.select(["n_turns", "turns"])),
                "lengths": dg.MetadataValue.md(
                    plots.histogram(kept["n_characters"], "Length of a prompt", "characters")
                ),
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
    def prompt_topics(
        context: dg.AssetExecutionContext, storage: Storage, compute: LocalCompute
    ) -> Iterator[gate.Event]:
        """Candidate prompts with their topic: clusters of sentence embeddings, named by their words."""
        store = storage.store()
        out = store.staging("prompt_topics")
        spec = {
            "input": str(store.path("candidate_prompts", None, "data.parquet")),
            **wanted.topics.model_dump(),
            "seed": profile.seed,
        }
        figures = compute.run(context, "pipeline.prompts.worker", spec, out)
        with (out / "topics.parquet").open("rb") as file:
            topics = pq.read_table(file)
        candidates = store.read("candidate_prompts")
        found = pc.index_in(candidates["prompt_id"], topics["prompt_id"])
        table = candidates
        for name in ("topic", "topic_name"):
            table = table.append_column(name, topics[name].take(found))
        sizes = table.to_pandas()["topic_name"].value_counts()
        yield from gate.publish(
            context,
            store,
            "prompt_topics",
            table,
            schema.TOPICS,
            expectations.TOPICS,
            views=expectations.topic_views(topics, candidates),
            metadata={
                "topics": figures["topics"],
                "sizes": count_table(table["topic_name"], "topic", most=50),
                "largest": dg.MetadataValue.md(
                    plots.bar_chart(
                        [str(name) for name in sizes.index[:12]],
                        list(sizes[:12]),
                        "The twelve largest topics",
                        "prompts",
                    )
                ),
            },
            info=figures,
        )
        out.fs.rm(str(out), recursive=True)

    @dg.asset(
        **options("prompt_complexity", "prompts", expectations.COMPLEXITY, code_version("1"), deps=["prompt_topics"])
    )
    def prompt_complexity(context: dg.AssetExecutionContext, storage: Storage) -> Iterator[gate.Event]:
        """The pool: candidate prompts with topic and complexity, 1 to 5 by the intentions and constraints in the last turn."""
        store = storage.store()
        topics = store.read("prompt_topics")
        table = topics.append_column("complexity", complexity.complexity(topics["turns"]))
        yield from gate.publish(
            context,
            store,
            "prompt_complexity",
            table,
            schema.COMPLEXITY,
            expectations.COMPLEXITY,
            metadata={
                "levels": dg.MetadataValue.md(_levels(table, "Complexity of the pool")),
                "samples": _by_level(table),
            },
        )

    @dg.asset(
        **options(
            "prompts",
            "prompts",
            expectations.PROMPTS,
            code_version("1", wanted.sample, profile.seed),
            deps=["prompt_complexity"],
        ),
        partitions_def=DELIVERIES,
    )
    def prompts(context: dg.AssetExecutionContext, storage: Storage) -> Iterator[gate.Event]:
        """A delivery's prompts: even over topics, leaning to the complex, a share of them multi-turn; none of another delivery."""
        store, delivery = storage.store(), context.partition_key
        others = [key for key in store.partitions("prompts") if key != delivery]
        taken = {
            i for key in others for i in store.read("prompts", key, columns=["prompt_id"])["prompt_id"].to_pylist()
        }
        table, figures = sampling.draw(store.read("prompt_complexity"), wanted.sample, profile.seed, delivery, taken)
        yield from gate.publish(
            context,
            store,
            "prompts",
            table,
            schema.PROMPTS,
            expectations.PROMPTS,
            views=expectations.prompt_views(table, taken, wanted.sample, figures),
            metadata={
                **figures,
                "mean user turns": f"{pc.mean(table['n_turns']).as_py() or 0:.2f} (HelpSteer2: {ORIGINAL_MEAN_TURNS} turns)",
                "mean characters": f"{pc.mean(table['n_characters']).as_py() or 0:.0f} (HelpSteer2: {ORIGINAL_MEAN_CHARACTERS})",
                "levels": dg.MetadataValue.md(_levels(table, "Complexity of the delivery")),
                "topic sizes": count_table(table["topic_name"], "topic", most=50),
                "samples": sample_table(table.select(["n_turns", "topic_name", "complexity", "turns"])),
            },
        )

    return [conversations, candidate_prompts, prompt_topics, prompt_complexity, prompts]


def _levels(table: pa.Table, title: str) -> str:
    counts = table.to_pandas()["complexity"].value_counts().reindex(range(1, 6)).fillna(0)
    return plots.bar_chart([str(level) for level in counts.index], list(counts), title, "prompts")


def _one_each(rejected: pa.Table) -> pa.Table:
    """Two rows a reason."""
    numbered = rejected.to_pandas().reset_index()
    rows = numbered.groupby("reason").head(2)["index"]
    return rejected.take(pa.array(rows.to_numpy())).sort_by("reason").slice(0, 16)


def _by_level(table: pa.Table) -> dg.TableMetadataValue:
    """Two prompts a level."""
    rows = table.to_pandas().reset_index().groupby("complexity").head(2)["index"]
    return sample_table(
        table.take(pa.array(rows.to_numpy())).sort_by("complexity").select(["complexity", "turns"]), rows=10
    )
