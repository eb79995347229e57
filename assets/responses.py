"""Contexts, plan, the six generators' responses, and the pairs that people compare."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from assets import OWNERS, code_version, count_table, options, sample_table
from pipeline import gate, plots
from pipeline.engines.spec import EngineSpec
from pipeline.partitions import DELIVERIES
from pipeline.responses import expectations, plan, schema
from pipeline.responses.accounts import account
from pipeline.responses.context_worker import ContextsSpec
from pipeline.responses.worker import ResponsesSpec
from pipeline.settings import Profile
from pipeline.store import read_table, write_table
from resources.compute import Compute
from resources.desks.desk import AnnotationDesk
from resources.desks.recorded import RecordedRatings
from resources.storage import Storage


def build(profile: Profile) -> list[dg.AssetsDefinition]:
    """The stage's assets for a profile."""
    if profile.contexts is None:
        return [_recorded_pairs(profile)]
    asked, shares = profile.contexts, {name: g.share for name, g in profile.generators.items()}
    scorers = {scorer.checkpoint: profile.checkpoints[scorer.checkpoint] for scorer in asked.scorers}
    used = {asked.checkpoint: profile.checkpoints[asked.checkpoint], **scorers}

    @dg.asset(
        **options(
            "contexts",
            "responses",
            expectations.CONTEXTS,
            code_version("2", asked, *(c.core for c in used.values()), profile.seed),
            deps=["prompts"],
            kinds=["vllm", "parquet"],
        ),
        partitions_def=DELIVERIES,
        pool=used[asked.checkpoint].pool,
    )
    def contexts(context: dg.AssetExecutionContext, storage: Storage, compute: Compute) -> Iterator[gate.Event]:
        """Conversations up to the user turn that is to be answered; the assistant turns in between are written anew by a model."""
        store, delivery = storage.store(), context.partition_key
        out = store.staging("contexts", delivery)
        spec = ContextsSpec(
            input=store.path("prompts", delivery, "data.parquet"),
            work=store.work("contexts", delivery),
            engine=EngineSpec.of(profile, asked.checkpoint, store.cache()),
            contexts=asked,
            scorers=scorers,
            out=out,
        )
        figures = compute.run(context, spec)
        table, rejected, candidates = (
            read_table(out / f"{name}.parquet") for name in ("contexts", "rejected", "candidates")
        )
        written = table.filter(pc.greater(table["n_turns"], 1))
        yield from gate.publish(
            context,
            store,
            "contexts",
            table,
            schema.CONTEXTS,
            expectations.CONTEXTS,
            views=expectations.context_views(table, len(rejected)),
            side_tables={"rejected.parquet": rejected, "candidates.parquet": candidates},
            metadata={
                **_speeds(figures),
                "conversations with rewritten turns": len(written),
                "candidates of a turn": asked.candidates,
                "candidates, samples": sample_table(candidates, rows=2 * asked.candidates),
                "rejected": len(rejected),
                "user turns": dg.MetadataValue.md(
                    plots.histogram(table["n_turns"], "User turns a prompt", "user turns")
                ),
                "samples": sample_table(written.select(["prompt_id", "messages"])),
            },
            info=figures,
        )
        out.fs.rm(str(out), recursive=True)

    @dg.asset(
        **options(
            "response_plan",
            "responses",
            expectations.PLAN,
            code_version("1", *map(str, shares.items()), profile.seed),
            deps=["contexts"],
        ),
        partitions_def=DELIVERIES,
    )
    def response_plan(context: dg.AssetExecutionContext, storage: Storage) -> Iterator[gate.Event]:
        """Which two generators answer each prompt: two different ones, by the profile's shares, drawn from the seed."""
        store = storage.store()
        table = store.read("contexts", context.partition_key)
        planned = plan.assign_generators(table["prompt_id"], shares, profile.seed)
        counts = planned.to_pandas()["generator"].value_counts()
        target = {name: share / sum(shares.values()) for name, share in shares.items()}
        shown = {
            "planned": [counts.get(name, 0) / max(len(planned), 1) for name in shares],
            "profile": list(target.values()),
        }
        yield from gate.publish(
            context,
            store,
            "response_plan",
            planned,
            schema.PLAN,
            expectations.PLAN,
            views=expectations.plan_views(planned, table, shares),
            metadata={
                "shares": dg.MetadataValue.md(plots.grouped_bars(list(shares), shown, "Share of responses", "share"))
            },
        )

    @dg.asset(
        **options(
            "response_pairs",
            "responses",
            expectations.RESPONSE_PAIRS,
            code_version("1"),
            deps=["contexts", "response_plan", *(f"responses/{name}" for name in profile.generators)],
        ),
        partitions_def=DELIVERIES,
    )
    def response_pairs(context: dg.AssetExecutionContext, storage: Storage) -> Iterator[gate.Event]:
        """Both responses of every prompt, in the order in which people see them. A prompt with a blank or refused one is left out."""
        store, delivery = storage.store(), context.partition_key
        planned, conversations = store.read("response_plan", delivery), store.read("contexts", delivery)
        answers = pa.concat_tables([store.read(f"responses/{name}", delivery) for name in profile.generators])
        pairs, left_out = plan.pair_responses(planned, conversations, answers)
        rows = pairs.to_pandas()
        lengths = rows.groupby("generator")["output_tokens"].mean().reindex(list(profile.generators)).fillna(0)
        yield from gate.publish(
            context,
            store,
            "response_pairs",
            pairs,
            schema.RESPONSE_PAIRS,
            expectations.RESPONSE_PAIRS,
            views=expectations.pair_views(pairs, len(pc.unique(planned["prompt_id"]))),
            side_tables={"left_out.parquet": left_out},
            metadata={
                "prompts": len(rows) // 2,
                "left out": len(pc.unique(left_out["prompt_id"])),
                "mean length": dg.MetadataValue.md(
                    plots.bar_chart(list(lengths.index), list(lengths), "Mean response length by generator", "tokens")
                ),
                "samples": sample_table(pairs.select(["generator", "finish_reason", "text"])),
            },
        )

    generators = [
        _generators(profile, checkpoint) for checkpoint in profile.checkpoints if profile.generators_of(checkpoint)
    ]
    return [contexts, response_plan, *generators, response_pairs]


def _recorded_pairs(profile: Profile) -> dg.AssetsDefinition:
    """The pairs of a desk that brings its texts along."""

    @dg.asset(
        **options(
            "response_pairs",
            "responses",
            expectations.RECORDED_PAIRS,
            code_version("1", profile.annotations.desk),
            kinds=["huggingface", "parquet"],
        ),
        partitions_def=DELIVERIES,
    )
    def response_pairs(
        context: dg.AssetExecutionContext, storage: Storage, desk: AnnotationDesk
    ) -> Iterator[gate.Event]:
        """Recorded responses, two a prompt, with the texts that their ratings are of."""
        if not isinstance(desk, RecordedRatings):
            raise dg.Failure(
                "the resource `desk` has no recorded responses: give a RecordedRatings", allow_retries=False
            )
        found = desk.recorded()
        yield from gate.publish(
            context,
            storage.store(),
            "response_pairs",
            found.pairs,
            schema.RESPONSE_PAIRS,
            expectations.RECORDED_PAIRS,
            views=expectations.pair_views(found.pairs, found.tasks),
            side_tables={"left_out.parquet": found.left_out},
            metadata={
                "prompts": len(found.pairs) // 2,
                "left out": len(found.left_out),
                "samples": sample_table(found.pairs.select(["messages", "text"])),
            },
        )

    return response_pairs


def _generators(profile: Profile, checkpoint: str) -> dg.AssetsDefinition:
    """The responses of all generators of one checkpoint: an asset each, one engine start for those that are asked for."""
    names = profile.generators_of(checkpoint)
    keys = {gate.asset_key(f"responses/{name}"): name for name in names}

    def spec_of(name: str) -> dg.AssetSpec:
        generator = profile.generators[name]
        return dg.AssetSpec(
            gate.asset_key(f"responses/{name}"),
            deps=[dg.AssetKey("response_plan"), dg.AssetKey("contexts")],
            description=f"Responses of the generator `{name}` on `{checkpoint}`: {generator.description or 'as its profile says'}.",
            group_name="responses",
            owners=OWNERS,
            kinds={"vllm", "parquet"},
            code_version=code_version(
                "2",
                profile.checkpoints[checkpoint].core,
                generator.sampling,
                plan.system_of(generator),
                profile.seed,
            ),
        )

    @dg.multi_asset(
        name=f"responses_{checkpoint}",
        specs=[spec_of(name) for name in names],
        check_specs=[c for name in names for c in gate.check_specs(f"responses/{name}", expectations.RESPONSES)],
        can_subset=True,
        partitions_def=DELIVERIES,
        pool=profile.checkpoints[checkpoint].pool,
    )
    def responses(context: dg.AssetExecutionContext, storage: Storage, compute: Compute) -> Iterator[gate.Event]:
        store, delivery = storage.store(), context.partition_key
        chosen = [name for key, name in keys.items() if key in context.selected_asset_keys]
        planned = store.read("response_plan", delivery)
        asked = plan.requests_of(
            planned, store.read("contexts", delivery), {name: profile.generators[name] for name in chosen}
        )
        out = store.staging(f"responses/{checkpoint}", delivery)
        write_table(asked, out / "requests.parquet")
        spec = ResponsesSpec(
            input=out / "requests.parquet",
            work=store.work(f"responses/{checkpoint}", delivery),
            engine=EngineSpec.of(profile, checkpoint, store.cache()),
            out=out,
        )
        figures = compute.run(context, spec)
        answered = plan.responses_of(
            asked, read_table(out / "answers.parquet"), figures, profile.checkpoints[checkpoint].licence
        )
        for name in chosen:
            mine = answered.filter(pc.equal(answered["generator"], name))
            yield from gate.publish(
                context,
                store,
                f"responses/{name}",
                mine,
                schema.RESPONSES,
                expectations.RESPONSES,
                views=expectations.response_views(mine, planned.filter(pc.equal(planned["generator"], name))),
                metadata={
                    **_speeds(figures),
                    **account(mine, answered, figures["seconds"], profile.checkpoints[checkpoint]),
                    "not answered, by reason": count_table(mine["detail"].drop_null(), "reason"),
                    "lengths and finish reasons": dg.MetadataValue.md(
                        plots.histogram(_lengths(mine), f"Response length, {name}", "tokens")
                    ),
                    "samples": sample_table(mine.select(["prompt_id", "finish_reason", "text"])),
                },
                info=figures,
            )
        out.fs.rm(str(out), recursive=True)

    return responses


def _lengths(responses: pa.Table) -> dict[str, pa.ChunkedArray]:
    """Output tokens by finish reason."""
    reasons = sorted(pc.unique(responses["finish_reason"]).to_pylist())
    return {r: responses.filter(pc.equal(responses["finish_reason"], r))["output_tokens"] for r in reasons}


def _speeds(figures: dict[str, Any]) -> dict[str, Any]:
    """Figures of an engine's run for the UI; of all generators that shared it."""
    rate = figures["output_tokens"] / figures["seconds"] if figures["seconds"] else 0.0
    return {
        "answered in this run": figures["answered"],
        "kept from earlier runs": figures["reused"],
        "tokens per second": round(rate, 1),
        "engine start (s)": figures["start_seconds"],
        "model": f"{figures['model']} ({figures['model_revision']})",
        **({"peak memory (GiB)": figures["peak_memory_gib"]} if "peak_memory_gib" in figures else {}),
    }
