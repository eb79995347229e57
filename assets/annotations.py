"""Tasks, ratings, outliers removed, tasks that people agree on, and how well they agree."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from assets import code_version, count_table, engine_compute, options, sample_table
from pipeline import gate, plots
from pipeline.annotations import agreement, consensus, expectations, panel, schema, tasks
from pipeline.annotations.files import NotFinishedError
from pipeline.forms.rows import ANNOTATIONS, LABELS, QUARANTINE
from pipeline.partitions import DELIVERIES
from pipeline.settings import ENGINE_POOL, Profile
from pipeline.store import Store, read_table, write_table
from pipeline.vocabulary import ATTRIBUTES
from resources.compute import Compute
from resources.desks.desk import AnnotationDesk, Ask
from resources.storage import Storage

LEVELS = [str(level) for level in range(5)]


def build(profile: Profile) -> list[dg.AssetsDefinition]:
    """The stage's assets for a profile."""
    wanted = profile.annotations
    who = "annotators" if profile.rated_by == "people" else profile.rated_by
    models = [profile.checkpoints[member.checkpoint] for member in profile.panel.values()]
    pool = next((c.pool for c in models if c.weights), ENGINE_POOL if models else None)
    by_models = {"kinds": {"vllm", "parquet"}} if models else {}

    def delivered(key: str, rules: Any, version: str, deps: list[str], **more: Any) -> dict[str, Any]:
        return {**options(key, "annotations", rules, version, deps), "partitions_def": DELIVERIES, **more}

    @dg.asset(**delivered("annotation_tasks", expectations.TASKS, code_version("1"), ["response_pairs"]))
    def annotation_tasks(
        context: dg.AssetExecutionContext, storage: Storage, desk: AnnotationDesk
    ) -> Iterator[gate.Event]:
        """What annotators are given: a prompt and its two responses a task, without the generators' names."""
        store, delivery = storage.store(), context.partition_key
        table = tasks.tasks_of(store.read("response_pairs", delivery))
        shown = {"samples": sample_table(table.select(["messages", "response_1", "response_2"]))}
        yield from gate.publish(
            context, store, "annotation_tasks", table, schema.TASKS, expectations.TASKS, metadata=shown
        )

    @dg.asset(
        **delivered(
            "initial_annotations",
            expectations.INITIAL,
            code_version("1", wanted.desk, wanted.initial, profile.seed, *(c.core for c in models)),
            ["annotation_tasks"],
            **by_models,
        ),
        pool=pool,
    )
    def initial_annotations(
        context: dg.AssetExecutionContext, storage: Storage, desk: AnnotationDesk, compute: Compute
    ) -> Iterator[gate.Event]:
        """The first annotators' ratings of every task; both responses of a prompt are rated by the same people, one after the other."""
        store, delivery = storage.store(), context.partition_key
        given = store.read("annotation_tasks", delivery)
        asked = desk.wanted(given, wanted.initial)
        runs: dict[str, Any] = {}
        table, quarantine = _collect(context, desk, 1, given, asked, _ask(context, store, compute, profile, runs))
        yield from gate.publish(
            context,
            store,
            "initial_annotations",
            table,
            ANNOTATIONS,
            expectations.INITIAL,
            views=expectations.initial_views(table, desk.owed(asked, quarantine), len(quarantine))
            | expectations.rater_views(table, wanted.desk),
            side_tables={"quarantine.parquet": quarantine},
            metadata=_shown(table, quarantine, profile, runs),
            info=runs,
        )

    @dg.asset(
        **delivered(
            "escalation_tasks",
            expectations.ESCALATION,
            code_version("1", wanted.escalate_above, wanted.extra),
            ["initial_annotations"],
        )
    )
    def escalation_tasks(context: dg.AssetExecutionContext, storage: Storage) -> Iterator[gate.Event]:
        """Responses whose first annotators disagree on helpfulness: further annotators are asked."""
        store = storage.store()
        first = store.read("initial_annotations", context.partition_key)
        table = tasks.escalated(first, wanted.escalate_above, wanted.extra)
        responses = consensus.spreads(first)
        histogram = responses.to_pandas()["spread"].value_counts().reindex(range(5)).fillna(0)
        yield from gate.publish(
            context,
            store,
            "escalation_tasks",
            table,
            schema.WANTED,
            expectations.ESCALATION,
            views=expectations.escalation_views(table, len(responses), wanted.escalate_above),
            metadata={
                "escalated": f"{len(table)} of {len(responses)} responses ({len(table) / max(len(responses), 1):.1%}; HelpSteer2: about 20.5 %)",
                "spreads": dg.MetadataValue.md(
                    plots.bar_chart(LEVELS, list(histogram), f"Helpfulness spread of the first {who}", "responses")
                ),
            },
        )

    @dg.asset(
        **delivered(
            "annotations",
            expectations.ANNOTATIONS,
            code_version("1", wanted.desk, wanted.initial, wanted.extra, profile.seed, *(c.core for c in models)),
            ["annotation_tasks", "initial_annotations", "escalation_tasks"],
            **by_models,
        ),
        pool=pool,
    )
    def annotations(
        context: dg.AssetExecutionContext, storage: Storage, desk: AnnotationDesk, compute: Compute
    ) -> Iterator[gate.Event]:
        """All ratings of the delivery: the first annotators', and two more where those disagreed."""
        store, delivery = storage.store(), context.partition_key
        first, asked = store.read("initial_annotations", delivery), store.read("escalation_tasks", delivery)
        given = store.read("annotation_tasks", delivery)
        runs: dict[str, Any] = {}
        more, quarantine = _collect(context, desk, 2, given, asked, _ask(context, store, compute, profile, runs))
        lost = pa.concat_tables([store.read("initial_annotations", delivery, "quarantine.parquet"), quarantine])
        owed = desk.owed(desk.wanted(given, wanted.initial), lost)
        table = pa.concat_tables([first, more]).sort_by(
            [(c, "ascending") for c in ("prompt_id", "response_id", "round", "annotator_id")]
        )
        per_response = len(table) / max(len(pc.unique(table["response_id"])), 1)
        yield from gate.publish(
            context,
            store,
            "annotations",
            table,
            ANNOTATIONS,
            expectations.ANNOTATIONS,
            views=expectations.annotation_views(table, owed, wanted.escalate_above, wanted.extra, len(quarantine))
            | expectations.rater_views(more, wanted.desk),
            side_tables={"quarantine.parquet": quarantine},
            metadata={
                **_shown(table, quarantine, profile, runs),
                "ratings per response": f"{per_response:.2f} (HelpSteer2: 3.41)",
            },
            info=runs,
        )

    @dg.asset(
        **delivered(
            "consensus_annotations", expectations.LABELS, code_version("1", wanted.keep, wanted.rule), ["annotations"]
        )
    )
    def consensus_annotations(context: dg.AssetExecutionContext, storage: Storage) -> Iterator[gate.Event]:
        """Labels from the ratings that agree most: the others are outliers and removed. `kept.parquet` has the ratings kept."""
        store = storage.store()
        given = store.manifest("annotations", context.partition_key)
        everything = store.read("annotations", context.partition_key)
        kept = consensus.most_agreeing(everything, wanted.keep, wanted.rule)
        table = consensus.consensus_labels(kept)
        other: consensus.Rule = "annotator" if wanted.rule == "per_attribute" else "per_attribute"
        otherwise = consensus.consensus_labels(consensus.most_agreeing(everything, wanted.keep, other))
        changed = sum(
            pc.sum(pc.fill_null(pc.not_equal(table[a], otherwise[a]), False)).as_py() or 0 for a in ATTRIBUTES
        )
        yield from gate.publish(
            context,
            store,
            "consensus_annotations",
            table,
            LABELS,
            expectations.LABELS,
            views=expectations.label_views(table, wanted.keep),
            side_tables={"kept.parquet": kept},
            metadata={
                "labels": dg.MetadataValue.md(_label_chart(table, f"Labels, by {who}")),
                "ratings removed": sum(everything[a].null_count * -1 + len(everything) for a in ATTRIBUTES)
                - sum(len(kept) - kept[a].null_count for a in ATTRIBUTES),
                f"labels that rule `{other}` would change": f"{changed} of {len(table) * len(ATTRIBUTES)}",
            },
            info={"annotations": given and given.version},
        )

    @dg.asset(
        **delivered(
            "agreed_tasks", expectations.AGREED, code_version("2", wanted.max_spread), ["consensus_annotations"]
        )
    )
    def agreed_tasks(context: dg.AssetExecutionContext, storage: Storage) -> Iterator[gate.Event]:
        """Labels of the tasks that people agree on; a task with too wide a spread on either response is dropped, with both responses."""
        store, delivery = storage.store(), context.partition_key
        kept = store.read("consensus_annotations", delivery, "kept.parquet")
        agreed = consensus.agreed_tasks(kept, wanted.max_spread)
        labels = store.read("consensus_annotations", delivery)
        table = labels.filter(pc.is_in(labels["prompt_id"], pc.unique(agreed["prompt_id"])))
        made = store.manifest("consensus_annotations", delivery)
        by = schema.said_of_all(schema.rated_by(kept))
        table = table.append_column("rated_by", pa.array([by] * len(table), pa.string()))
        before = len(pc.unique(labels["prompt_id"]))
        after = len(pc.unique(table["prompt_id"]))
        yield from gate.publish(
            context,
            store,
            "agreed_tasks",
            table,
            schema.AGREED,
            expectations.AGREED,
            views=expectations.agreed_views(table, wanted.max_spread, before),
            metadata={
                "tasks removed": f"{before - after} of {before} ({(before - after) / max(before, 1):.1%}; HelpSteer2: about 10 %)",
                "labels": dg.MetadataValue.md(_label_chart(table, f"Labels of agreed tasks, by {who}")),
            },
            info={"annotations": made and made.info.get("annotations")},
        )

    @dg.asset(
        **delivered(
            "annotation_agreement",
            expectations.AGREEMENT,
            code_version("3", wanted.keep, wanted.rule, wanted.max_spread, profile.seed),
            ["annotations"],
        )
    )
    def annotation_agreement(context: dg.AssetExecutionContext, storage: Storage) -> Iterator[gate.Event]:
        """Kappa and alpha per attribute: of all ratings, of those kept, of agreed tasks, beside what the selection alone would give."""
        store = storage.store()
        given = store.read("annotations", context.partition_key)
        ratings, selection = consensus.Ratings.of(given), (wanted.keep, wanted.rule, wanted.max_spread)
        by = schema.said_of_all(schema.rated_by(given))
        table = agreement.agreement(ratings.levels, ratings.prompt, *selection, profile.seed, by)
        annotators = agreement.annotator_agreement(given, by)
        rows = table.to_pandas()
        chart = {stage: list(part["kappa"]) for stage, part in rows.groupby("stage", sort=False)}
        chart |= {
            f"{stage}, by chance": list(part["kappa_null"])
            for stage, part in rows.groupby("stage", sort=False)
            if stage != "all"
        }
        yield from gate.publish(
            context,
            store,
            "annotation_agreement",
            table,
            schema.AGREEMENT,
            expectations.AGREEMENT,
            views={"helpfulness": table.filter(pc.equal(table["attribute"], "helpfulness"))},
            side_tables={"annotators.parquet": annotators},
            metadata={
                **{name.replace("_", ", "): sample_table(_figure(table, name), rows=15) for name in agreement.FIGURES},
                "annotators, least agreement on helpfulness first": sample_table(_least_agreeing(annotators), rows=20),
                "chart": dg.MetadataValue.md(
                    plots.grouped_bars(list(ATTRIBUTES), chart, f"Weighted kappa, {who}", "kappa")
                ),
            },
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
        out = store.staging(f"ratings/{checkpoint}", context.partition_key)
        write_table(asked, out / "questions.parquet")
        spec = {
            "input": str(out / "questions.parquet"),
            "panel": {panel.annotator_id(name): m.model_dump(mode="json") for name, m in profile.panel.items()},
            "work": str(store.work(f"ratings/{checkpoint}", context.partition_key)),
            "checkpoint": profile.checkpoints[checkpoint].model_dump(mode="json"),
            "cache": str(store.cache()),
            "profile_seed": profile.seed,
            **engine_compute(profile),
        }
        runs[checkpoint] = compute.run(context, "pipeline.annotations.rater", spec, out)
        rated = read_table(out / "ratings.parquet")
        out.fs.rm(str(out), recursive=True)
        return rated

    return ask


def _collect(
    context: dg.AssetExecutionContext, desk: AnnotationDesk, round_: int, given: pa.Table, asked: pa.Table, ask: Ask
) -> tuple[pa.Table, pa.Table]:
    """Publish a round's tasks and collect its ratings; a failure with what is missing while people are at work."""
    if not len(asked):
        return ANNOTATIONS.empty_table(), QUARANTINE.empty_table()
    mine = given.filter(pc.is_in(given["prompt_id"], pc.unique(asked["prompt_id"])))
    where = desk.publish(context.partition_key, round_, mine, asked)
    context.log.info(f"round {round_}: {len(mine)} tasks, {len(asked)} responses; given to {where}")
    try:
        return desk.collect(context.partition_key, round_, mine, asked, ask)
    except NotFinishedError as error:
        raise dg.Failure(description=str(error), allow_retries=False) from None


def _shown(table: pa.Table, quarantine: pa.Table, profile: Profile, runs: dict[str, Any]) -> dict[str, Any]:
    counts = {a: table.to_pandas()[a].value_counts().reindex(range(5)).fillna(0) for a in ATTRIBUTES}
    return {
        "annotators": len(pc.unique(table["annotator_id"])),
        "rated by": profile.ratings_note or profile.rated_by,
        **({"engines": dg.MetadataValue.json(runs)} if runs else {}),
        "ratings": dg.MetadataValue.md(
            plots.grouped_bars(
                LEVELS, {a: list(c) for a, c in counts.items()}, f"Ratings by {profile.rated_by}", "ratings"
            )
        ),
        "in quarantine": len(quarantine),
        "quarantine by reason": count_table(quarantine["reason"], "reason"),
    }


def _figure(table: pa.Table, name: str) -> pa.Table:
    """A figure of every attribute and stage with its interval, what it is by chance, and what was published."""
    shown = {"": name, "_low": "from", "_high": "to", "_null": "by chance"}
    columns = {new: pc.round(table[name + part], 3) for part, new in shown.items()}
    published = {"HelpSteer2": table["published"]} if name == "kappa" else {}
    return pa.table(
        {
            "attribute": table["attribute"],
            "stage": table["stage"],
            **columns,
            **published,
            "responses": table["responses"],
        }
    )


def _least_agreeing(annotators: pa.Table) -> pa.Table:
    rows = annotators.filter(pc.equal(annotators["attribute"], "helpfulness")).to_pandas().round(3)
    return pa.Table.from_pandas(rows.drop(columns=["attribute", "rated_by"]).sort_values("kappa"), preserve_index=False)


def _label_chart(table: pa.Table, title: str) -> str:
    counts = {a: list(table.to_pandas()[a].value_counts().reindex(range(5)).fillna(0)) for a in ATTRIBUTES}
    return plots.grouped_bars(LEVELS, counts, title, "responses")
