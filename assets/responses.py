"""Contexts, plan, the generators' responses, and the pairs that people compare."""

from collections.abc import Iterator
from functools import partial

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from assets.published import Published, work
from pipeline import gate
from pipeline.engines.spec import EngineSpec
from pipeline.gate import Made
from pipeline.partitions import DELIVERIES
from pipeline.responses import expectations, plan, schema, shown
from pipeline.responses.context_worker import ContextsSpec
from pipeline.responses.worker import ResponsesSpec
from pipeline.settings import Profile
from pipeline.store import DATA
from resources.compute import Compute
from resources.desks.desk import AnnotationDesk
from resources.desks.recorded import RecordedRatings
from resources.storage import Storage

STAGE = "responses"
LEFT_OUT = "left_out.parquet"
"""File beside the pairs: prompts without two responses."""


def build(profile: Profile) -> list[dg.AssetsDefinition]:
    """The stage's assets for a profile."""
    if profile.contexts is None:
        return [_recorded_pairs(profile)]
    asked, shares = profile.contexts, {name: g.share for name, g in profile.generators.items()}
    scorers = {scorer.checkpoint: profile.checkpoints[scorer.checkpoint] for scorer in asked.scorers}
    used = {asked.checkpoint: profile.checkpoints[asked.checkpoint], **scorers}

    @Published(
        "contexts",
        STAGE,
        schema.CONTEXTS,
        expectations.CONTEXTS,
        "3",
        modules=("pipeline.responses.context_worker",),
        parts=(asked, *(c.core for c in used.values()), profile.seed),
        deps=("prompts",),
        kinds=("vllm", "parquet"),
        partitions=DELIVERIES,
        pool=used[asked.checkpoint].pool,
    ).asset
    def contexts(context: dg.AssetExecutionContext, storage: Storage, compute: Compute) -> Made:
        """Conversations up to the user turn that is to be answered. A model writes the assistant turns in between anew."""
        store, delivery = storage.store(), context.partition_key
        spec = partial(
            ContextsSpec,
            input=store.path("prompts", delivery, DATA),
            work=store.work("contexts", delivery),
            engine=EngineSpec.of(profile, asked.checkpoint, store.cache()),
            contexts=asked,
            scorers=scorers,
        )
        left = work(context, compute, store, "contexts", spec, reads=("contexts", "rejected", "candidates"))
        table, rejected, candidates = left["contexts"], left["rejected"], left["candidates"]
        return Made(
            table,
            views=expectations.context_views(table, len(rejected)),
            beside={"rejected.parquet": rejected, "candidates.parquet": candidates},
            shown=shown.contexts(table, rejected, candidates, left.figures, asked.candidates),
            info=left.figures,
        )

    @Published(
        "response_plan",
        STAGE,
        schema.PLAN,
        expectations.PLAN,
        "1",
        modules=("pipeline.responses.plan",),
        parts=(*map(str, shares.items()), profile.seed),
        deps=("contexts",),
        partitions=DELIVERIES,
    ).asset
    def response_plan(context: dg.AssetExecutionContext, storage: Storage) -> Made:
        """The two different generators that answer each prompt, drawn from the seed by the profile's shares."""
        conversations = storage.store().read("contexts", context.partition_key)
        table = plan.assign_generators(conversations["prompt_id"], shares, profile.seed)
        return Made(table, views=expectations.plan_views(table, conversations, shares), shown=shown.plan(table, shares))

    @Published(
        "response_pairs",
        STAGE,
        schema.RESPONSE_PAIRS,
        expectations.RESPONSE_PAIRS,
        "2",
        modules=("pipeline.responses.plan",),
        deps=("contexts", "response_plan", *(f"responses/{name}" for name in profile.generators)),
        partitions=DELIVERIES,
    ).asset
    def response_pairs(context: dg.AssetExecutionContext, storage: Storage) -> Made:
        """Both responses to every prompt, in the order in which annotators see them. A prompt with a blank or refused response is left out."""
        store, delivery = storage.store(), context.partition_key
        planned, conversations = store.read("response_plan", delivery), store.read("contexts", delivery)
        answers = pa.concat_tables(
            [store.read(f"responses/{name}", delivery, columns=plan.OF_A_PAIR) for name in profile.generators]
        )
        table, left_out = plan.pair_responses(planned, conversations, answers)
        return Made(
            table,
            views=expectations.pair_views(table, len(pc.unique(planned["prompt_id"]))),
            beside={LEFT_OUT: left_out},
            shown=shown.pairs(table, left_out, list(profile.generators)),
        )

    answering = [
        _responses(profile, checkpoint) for checkpoint in profile.checkpoints if profile.generators_of(checkpoint)
    ]
    return [contexts, response_plan, *answering, response_pairs]


def _recorded_pairs(profile: Profile) -> dg.AssetsDefinition:
    """The pairs of a desk that brings its texts along."""

    @Published(
        "response_pairs",
        STAGE,
        schema.RESPONSE_PAIRS,
        expectations.RECORDED_PAIRS,
        "2",
        modules=("resources.desks.recorded",),
        parts=(profile.annotations.desk,),
        kinds=("huggingface", "parquet"),
        partitions=DELIVERIES,
    ).asset
    def response_pairs(context: dg.AssetExecutionContext, storage: Storage, desk: AnnotationDesk) -> Made:
        """Recorded responses, two to each prompt, to which the recorded ratings belong."""
        if not isinstance(desk, RecordedRatings):
            raise dg.Failure(
                "The resource `desk` has no recorded responses: it must be a RecordedRatings", allow_retries=False
            )
        found = desk.recorded()
        return Made(
            found.pairs,
            views=expectations.pair_views(found.pairs, found.tasks),
            beside={LEFT_OUT: found.left_out},
            shown=shown.recorded_pairs(found.pairs, found.left_out),
        )

    return response_pairs


def _responses(profile: Profile, checkpoint: str) -> dg.AssetsDefinition:
    """The responses of all generators of one checkpoint: an asset each, one engine start for those that are asked for."""
    model, pool = profile.checkpoints[checkpoint], profile.checkpoints[checkpoint].pool
    published = {name: _generator(profile, name) for name in profile.generators_of(checkpoint)}

    @dg.multi_asset(
        name=f"responses_{checkpoint}",
        specs=[asset.spec(f"{__name__}._responses.<locals>.responses") for asset in published.values()],
        check_specs=[spec for asset in published.values() for spec in gate.check_specs(asset.contract)],
        can_subset=True,
        partitions_def=DELIVERIES,
        pool=pool,
    )
    def responses(context: dg.AssetExecutionContext, storage: Storage, compute: Compute) -> Iterator[gate.Event]:
        store, delivery, key = storage.store(), context.partition_key, f"responses/{checkpoint}"
        chosen = [n for n, asset in published.items() if gate.asset_key(asset.key) in context.selected_asset_keys]
        planned, conversations = store.read("response_plan", delivery), store.read("contexts", delivery)
        asked = plan.requests_of(planned, conversations, {name: profile.generators[name] for name in chosen})
        engine = EngineSpec.of(profile, checkpoint, store.cache())
        spec = partial(ResponsesSpec, work=store.work(key, delivery), engine=engine)
        left = work(context, compute, store, key, spec, reads=("answers",), given=asked)
        answered = plan.responses_of(asked, left["answers"], left.figures, model.licence)
        for name in chosen:
            mine = answered.filter(pc.equal(answered["generator"], name))
            made = Made(
                mine,
                views=expectations.response_views(mine, planned.filter(pc.equal(planned["generator"], name))),
                shown=shown.responses(name, mine, answered, left.figures, model),
                info=left.figures,
            )
            yield from published[name].publish(context, store, made)

    return responses


def _generator(profile: Profile, name: str) -> Published:
    """What is said of a generator's responses."""
    generator = profile.generators[name]
    core = profile.checkpoints[generator.checkpoint].core
    return Published(
        f"responses/{name}",
        STAGE,
        schema.RESPONSES,
        expectations.RESPONSES,
        "4",
        modules=("pipeline.responses.worker", "pipeline.responses.plan"),
        parts=(core, generator.sampling, plan.system_of(generator), profile.seed),
        deps=("response_plan", "contexts"),
        kinds=("vllm", "parquet"),
        partitions=DELIVERIES,
        description=f"Responses of the generator `{name}` on the checkpoint `{generator.checkpoint}`: "
        f"{generator.description or 'set up as the profile says'}.",
    )
