"""Tasks, ratings, outliers removed, tasks that people agree on, and how well they agree."""

from functools import partial
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from assets.published import Published, work
from pipeline.annotations import agreement as agreeing
from pipeline.annotations import consensus, expectations, panel, schema, shown, tasks
from pipeline.annotations.files import NotFinishedError
from pipeline.annotations.held import held_back
from pipeline.annotations.rater import RatingsSpec
from pipeline.engines.spec import EngineSpec
from pipeline.forms.rows import ANNOTATIONS, LABELS, QUARANTINE
from pipeline.gate import Made
from pipeline.partitions import DELIVERIES
from pipeline.settings import ENGINE_POOL, Profile
from pipeline.store import DATA, Store
from resources.compute import Compute
from resources.desks.desk import AnnotationDesk, Ask
from resources.storage import Storage

STAGE = "annotations"
KEPT, QUARANTINED = "kept.parquet", "quarantine.parquet"
"""Files beside a table: the ratings that are kept, and what could not be used."""


def build(profile: Profile) -> list[dg.AssetsDefinition]:
    """The stage's assets for a profile."""
    wanted, people = profile.annotations, shown.who(profile)
    models = [profile.checkpoints[member.checkpoint] for member in profile.panel.values()]
    asked: dict[str, Any] = {
        "kinds": ("vllm", "parquet") if models else ("parquet",),
        "pool": next((c.pool for c in models if c.weights), ENGINE_POOL if models else None),
    }
    asking = ("resources.desks.starting", "pipeline.annotations.tasks")
    raters = (wanted.desk, wanted.initial, profile.seed, *(c.core for c in models))

    delivered = partial(Published, stage=STAGE, partitions=DELIVERIES)

    @delivered(
        "annotation_tasks",
        schema=schema.TASKS,
        rules=expectations.TASKS,
        version="1",
        modules=("pipeline.annotations.tasks",),
        deps=("response_pairs",),
    ).asset
    def annotation_tasks(context: dg.AssetExecutionContext, storage: Storage, desk: AnnotationDesk) -> Made:
        """Tasks for annotators: each shows a prompt and its two responses, without the generators' names."""
        table = tasks.tasks_of(storage.store().read("response_pairs", context.partition_key))
        return Made(table, shown=shown.tasks(table))

    @delivered(
        "initial_annotations",
        schema=ANNOTATIONS,
        rules=expectations.INITIAL,
        version="3",
        modules=asking,
        parts=raters,
        deps=("annotation_tasks",),
        **asked,
    ).asset
    def initial_annotations(
        context: dg.AssetExecutionContext, storage: Storage, desk: AnnotationDesk, compute: Compute
    ) -> Made:
        """The first annotators' ratings of every task. The same annotators rate both responses to a prompt, one after the other."""
        store, delivery, runs = storage.store(), context.partition_key, dict[str, Any]()
        given = store.read("annotation_tasks", delivery)
        first = desk.wanted(given, wanted.initial)
        table, quarantine = _collect(context, desk, 1, given, first, _ask(context, store, compute, profile, runs))
        return Made(
            table,
            views=expectations.initial_views(table, desk.owed(first, quarantine), len(quarantine))
            | expectations.rater_views(table, wanted.desk),
            beside={QUARANTINED: quarantine},
            shown=shown.ratings(table, quarantine, profile, runs),
            info=runs,
        )

    @delivered(
        "escalation_tasks",
        schema=schema.WANTED,
        rules=expectations.ESCALATION,
        version="1",
        modules=("pipeline.annotations.tasks",),
        parts=(wanted.escalate_above, wanted.extra),
        deps=("initial_annotations",),
    ).asset
    def escalation_tasks(context: dg.AssetExecutionContext, storage: Storage) -> Made:
        """Escalation: responses whose first annotators disagree on helpfulness, for which further annotators are asked."""
        first = storage.store().read("initial_annotations", context.partition_key)
        table, spreads = tasks.escalated(first, wanted.escalate_above, wanted.extra), consensus.spreads(first)
        return Made(
            table,
            views=expectations.escalation_views(table, len(spreads), wanted.escalate_above),
            shown=shown.escalation(table, spreads, people),
        )

    @delivered(
        "annotations",
        schema=ANNOTATIONS,
        rules=expectations.ANNOTATIONS,
        version="3",
        modules=asking,
        parts=(*raters, wanted.extra),
        deps=("annotation_tasks", "initial_annotations", "escalation_tasks"),
        **asked,
    ).asset
    def annotations(
        context: dg.AssetExecutionContext, storage: Storage, desk: AnnotationDesk, compute: Compute
    ) -> Made:
        """All ratings of the delivery: those of the first annotators, and those of further annotators where the first disagreed."""
        store, delivery, runs = storage.store(), context.partition_key, dict[str, Any]()
        given, first = (store.read(key, delivery) for key in ("annotation_tasks", "initial_annotations"))
        extra, lost = store.read("escalation_tasks", delivery), store.read("initial_annotations", delivery, QUARANTINED)
        more, quarantine = _collect(context, desk, 2, given, extra, _ask(context, store, compute, profile, runs))
        owed = desk.owed(desk.wanted(given, wanted.initial), pa.concat_tables([lost, quarantine]))
        table = tasks.in_order(pa.concat_tables([first, more]))
        views = expectations.annotation_views(table, owed, wanted.escalate_above, wanted.extra, len(quarantine))
        said = shown.ratings(table, quarantine, profile, runs)
        return Made(
            table,
            views=views | expectations.rater_views(more, wanted.desk),
            beside={QUARANTINED: quarantine},
            shown={**said, "ratings per response": shown.ratings_per_response(table)},
            info=runs,
        )

    @delivered(
        "consensus_annotations",
        schema=LABELS,
        rules=expectations.LABELS,
        version="1",
        modules=("pipeline.annotations.consensus",),
        parts=(wanted.keep, wanted.rule),
        deps=("annotations",),
    ).asset
    def consensus_annotations(context: dg.AssetExecutionContext, storage: Storage) -> Made:
        """Labels from the ratings that agree most; the other ratings are removed as outliers. `kept.parquet` holds the ratings that were kept."""
        store, delivery = storage.store(), context.partition_key
        ratings, version = store.read("annotations", delivery), store.version("annotations", delivery)
        kept = consensus.most_agreeing(ratings, wanted.keep, wanted.rule)
        table, rule = consensus.consensus_labels(kept), consensus.other(wanted.rule)
        otherwise = consensus.consensus_labels(consensus.most_agreeing(ratings, wanted.keep, rule))
        return Made(
            table,
            views=expectations.label_views(table, wanted.keep),
            beside={KEPT: kept},
            shown=shown.consensus(table, otherwise, ratings, kept, rule, people),
            info={"annotations": version},
        )

    @delivered(
        "agreed_tasks",
        schema=schema.AGREED,
        rules=expectations.AGREED,
        version="3",
        modules=("pipeline.annotations.consensus", "pipeline.annotations.held", "pipeline.annotations.schema"),
        parts=(wanted.max_spread, *wanted.hold_back),
        deps=("consensus_annotations", "annotations"),
    ).asset
    def agreed_tasks(context: dg.AssetExecutionContext, storage: Storage) -> Made:
        """Labels of the tasks that annotators agree on. A task is dropped where ratings spread too widely, or a flag holds it back."""
        store, delivery = storage.store(), context.partition_key
        labels, kept = (store.read("consensus_annotations", delivery, name) for name in (DATA, KEPT))
        made = store.manifest("consensus_annotations", delivery)
        held = held_back(store.read("annotations", delivery), wanted.hold_back)
        labels = labels.filter(pc.invert(pc.is_in(labels["prompt_id"], held)))
        table, before = consensus.labels_of_agreed(labels, kept, wanted.max_spread), len(pc.unique(labels["prompt_id"]))
        return Made(
            schema.with_raters(table, kept),
            views=expectations.agreed_views(table, wanted.max_spread, before),
            shown={**shown.agreed(table, before, people), "tasks held back by a flag": len(held)},
            info={"annotations": made and made.info.get("annotations")},
        )

    @delivered(
        "annotation_agreement",
        schema=schema.AGREEMENT,
        rules=expectations.AGREEMENT,
        version="3",
        modules=("pipeline.annotations.agreement",),
        parts=(wanted.keep, wanted.rule, wanted.max_spread, profile.seed),
        deps=("annotations",),
    ).asset
    def annotation_agreement(context: dg.AssetExecutionContext, storage: Storage) -> Made:
        """Kappa and alpha of each attribute: over all ratings, those kept and those of agreed tasks, beside what the selection alone would give."""
        given = storage.store().read("annotations", context.partition_key)
        ratings, by = consensus.Ratings.of(given), schema.said_of_all(schema.rated_by(given))
        selection = (wanted.keep, wanted.rule, wanted.max_spread)
        table = agreeing.agreement(ratings.levels, ratings.prompt, *selection, profile.seed, by)
        annotators = agreeing.annotator_agreement(given, by)
        return Made(
            table,
            views=expectations.agreement_views(table),
            beside={"annotators.parquet": annotators},
            shown=shown.agreement(table, annotators, people),
        )

    return [
        annotation_tasks,
        initial_annotations,
        escalation_tasks,
        annotations,
        consensus_annotations,
        agreed_tasks,
        annotation_agreement,
    ]


def _ask(
    context: dg.AssetExecutionContext, store: Store, compute: Compute, profile: Profile, runs: dict[str, Any]
) -> Ask:
    """How a desk has language models answer: a worker, which starts a checkpoint's engine once. Its figures go into `runs`."""

    def ask(checkpoint: str, asked: pa.Table) -> pa.Table:
        key = f"ratings/{checkpoint}"
        spec = partial(
            RatingsSpec,
            work=store.work(key, context.partition_key),
            engine=EngineSpec.of(profile, checkpoint, store.cache()),
            panel={panel.annotator_id(name): member for name, member in profile.panel.items()},
        )
        worked = work(context, compute, store, key, spec, reads=("ratings",), given=asked)
        runs[checkpoint] = worked.figures
        return worked["ratings"]

    return ask


def _collect(
    context: dg.AssetExecutionContext, desk: AnnotationDesk, round_: int, given: pa.Table, asked: pa.Table, ask: Ask
) -> tuple[pa.Table, pa.Table]:
    """Publish a round's tasks and collect its ratings; a failure with what is missing while people are at work."""
    if not len(asked):
        return ANNOTATIONS.empty_table(), QUARANTINE.empty_table()
    mine = given.filter(pc.is_in(given["prompt_id"], pc.unique(asked["prompt_id"])))
    where = desk.publish(context.partition_key, round_, mine, asked)
    context.log.info(f"Round {round_}: {len(mine)} tasks with {len(asked)} responses to rate were given to {where}")
    try:
        return desk.collect(context.partition_key, round_, mine, asked, ask)
    except NotFinishedError as error:
        raise dg.Failure(description=str(error), allow_retries=False) from None
