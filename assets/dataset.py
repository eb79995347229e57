"""The data set that is published, over all deliveries, and its copy on the hub."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from assets import code_version, options, sample_table
from pipeline import gate, plots
from pipeline.annotations.schema import rated_by
from pipeline.dataset import build as building
from pipeline.dataset import card, croissant, expectations, push, schema
from pipeline.dataset.disagreements import disagreement_rows
from pipeline.dataset.preference import preference_rows
from pipeline.dataset.removals import removals
from pipeline.dataset.statistics import statistics
from pipeline.forms.helpsteer import DISAGREEMENTS, whole
from pipeline.settings import Profile, Push
from pipeline.store import NotPublishedError, Store, describe_files, local_path
from pipeline.vocabulary import ATTRIBUTES
from resources.hub import Hub
from resources.storage import Storage


def build(profile: Profile) -> list[dg.AssetsDefinition]:
    """The stage's assets for a profile: the data set, and its copy on the hub where the profile names a repository."""
    contents = profile.dataset.model_copy(update={"push": None})
    licences = [f"{name}: {licence}" for name, licence in profile.sources.items()]
    if profile.contexts:
        licences.append(profile.checkpoints[profile.contexts.checkpoint].licence)
    licences += [profile.checkpoints[member.checkpoint].licence for member in profile.panel.values()]

    @dg.asset(
        **options(
            "helpsteer_dataset",
            "dataset",
            expectations.DATASET,
            code_version("4", contents, profile.annotations, *licences),
            deps=["agreed_tasks", "annotations", "response_pairs", "annotation_agreement"],
            kinds=["huggingface", "parquet"],
        )
    )
    def helpsteer_dataset(context: dg.AssetExecutionContext, storage: Storage) -> Iterator[gate.Event]:
        """The files of nvidia/HelpSteer2, with provenance, card, Croissant metadata and checksums, over all deliveries."""
        store = storage.store()
        deliveries = store.partitions("agreed_tasks")
        if not deliveries:
            raise NotPublishedError("no delivery has agreed tasks yet: collect one first")
        _of_one_version(store, deliveries)
        share = profile.dataset.validation_share
        parts = [
            building.rows_of(store.read("agreed_tasks", key), store.read("response_pairs", key), key, share)
            for key in deliveries
        ]
        table = building.in_order(pa.concat_tables([schema.DATASET.empty_table(), *(rows for rows, _ in parts)]))
        left_out = pa.concat_tables([schema.LEFT_OUT.empty_table(), *(bad for _, bad in parts)])
        ratings, pairs = (_all(store, asset, deliveries) for asset in ("annotations", "response_pairs"))
        usable = building.without(ratings, whole(left_out["prompt_id"]))
        disagreements = disagreement_rows(usable, pairs)
        preferences, dropped = preference_rows(table, usable)
        files = {split: building.helpsteer_rows(table, split) for split in ("train", "validation")}
        files["disagreements/disagreements"] = disagreements.select(DISAGREEMENTS.names)
        files["preference/preference"] = preferences
        unanswered = _all(store, "response_pairs", deliveries, "left_out.parquet")["prompt_id"]
        removed = removals(ratings, table, left_out, pairs, len(pc.unique(unanswered)), dropped, profile.annotations)
        figures = statistics(table)
        agreement = {key: store.read("annotation_agreement", key) for key in deliveries}
        sources = _sources(store, deliveries, profile)
        readme = card.data_card(table, files, ratings, agreement, removed, figures, profile, sources)
        raters = rated_by(ratings)
        yield from gate.publish(
            context,
            store,
            "helpsteer_dataset",
            table,
            schema.DATASET,
            expectations.DATASET,
            views=expectations.dataset_views(table)
            | expectations.disagreement_views(disagreements, usable)
            | expectations.preference_views(preferences, files),
            side_tables={f"{name}.parquet": rows for name, rows in files.items()}
            | {"provenance.parquet": table.select(schema.PROVENANCE.names), "left_out.parquet": left_out},
            side_files={f"{name}.jsonl.gz": building.jsonl_gz(rows) for name, rows in files.items()}
            | {"README.md": readme.encode()},
            finish=lambda folder: croissant.complete(folder, profile, " and ".join(raters)),
            info={
                "simulated": "simulated annotators" in raters,
                "models": card.models_in(ratings),
                "stated": push.statement(profile, sources),
            },
            metadata={
                "deliveries": len(deliveries),
                "train prompts": len(files["train"]) // 2,
                "validation prompts": len(files["validation"]) // 2,
                "rated by": ", ".join(f"{share:.0%} {by}" for by, share in raters.items()),
                "statistics": sample_table(_rounded(figures)),
                "removed": sample_table(removed, rows=len(removed)),
                "mean rating by generator": dg.MetadataValue.md(_by_generator(table, raters)),
                "samples": sample_table(files["train"]),
                "card": dg.MetadataValue.md(readme.split("---\n", 2)[2]),
            },
        )

    return [helpsteer_dataset, *([_hub_dataset(profile, profile.dataset.push)] if profile.dataset.push else [])]


def _of_one_version(store: Store, deliveries: Sequence[str]) -> None:
    """A failure where a delivery's labels are of other ratings than there are now: its later steps failed, or were not run."""
    for key in deliveries:
        labels, ratings = (store.manifest(asset, key) for asset in ("agreed_tasks", "annotations"))
        made_of = labels.info.get("annotations") if labels else None
        if made_of and ratings and made_of != ratings.version:
            raise dg.Failure(
                f"delivery {key}: its agreed_tasks were made of other annotations than there are now: materialize its consensus_annotations and "
                "agreed_tasks first",
                allow_retries=False,
            )


def _sources(store: Store, deliveries: Sequence[str], profile: Profile) -> list[tuple[str, str]]:
    """Names and licences of where the prompts of these deliveries come from, as their rows have them; the profile's for recorded ones."""
    found = set[tuple[str, str]]()
    for key in deliveries:
        if store.manifest("prompts", key):
            rows = (
                store.read("prompts", key, columns=["source", "licence"]).group_by(["source", "licence"]).aggregate([])
            )
            found |= {(row["source"], row["licence"]) for row in rows.to_pylist()}
        else:
            found |= set(profile.sources.items())
    return sorted(found)


def _hub_dataset(profile: Profile, wanted: Push) -> dg.AssetsDefinition:
    @dg.asset(
        **options(
            "hub_dataset",
            "dataset",
            expectations.PUSHED,
            code_version("1", wanted),
            deps=["helpsteer_dataset"],
            kinds=["huggingface"],
        )
    )
    def hub_dataset(context: dg.AssetExecutionContext, storage: Storage, hub: Hub) -> Iterator[gate.Event]:
        """The published data set as a repository on the Hugging Face hub. Refused where it may not leave: see `pipeline.dataset.push`."""
        store = storage.store()
        rows = store.read("helpsteer_dataset", columns=["generator", "licence"])
        manifest = store.manifest("helpsteer_dataset")
        if manifest is None:
            raise dg.Failure(
                "helpsteer_dataset is not in the store any more: materialize it first", allow_retries=False
            )
        reasons = push.objections(rows, manifest.info, profile, wanted)
        folder = local_path(store.path("helpsteer_dataset"))
        if tuple(describe_files(store.path("helpsteer_dataset"))) != manifest.files:
            reasons.append(f"files in {folder} are not those that were published: materialize helpsteer_dataset again")
        if reasons:
            listed = "\n".join(f"- {reason}" for reason in reasons)
            raise dg.Failure(f"nothing was pushed to {wanted.repo}:\n{listed}", allow_retries=False)
        commit, url = hub.push(
            folder, [f.name for f in manifest.files], wanted.repo, wanted.private, f"Version {manifest.version}"
        )
        record = dict(
            zip(schema.PUSHED.names, (manifest.version, wanted.repo, wanted.private, commit, url), strict=True)
        )
        yield from gate.publish(
            context,
            store,
            "hub_dataset",
            pa.Table.from_pylist([record], schema=schema.PUSHED),
            schema.PUSHED,
            expectations.PUSHED,
            metadata={"repo": wanted.repo, "commit": dg.MetadataValue.url(url), "pushed version": manifest.version},
        )

    return hub_dataset


def _all(store: Store, asset: str, deliveries: Sequence[str], name: str = "data.parquet") -> pa.Table:
    """Deliveries' tables in one."""
    return pa.concat_tables([store.read(asset, key, name) for key in deliveries])


def _rounded(figures: pa.Table) -> pa.Table:
    return pa.Table.from_pandas(figures.to_pandas().round(4), preserve_index=False)


def _by_generator(table: pa.Table, raters: Iterable[str]) -> str:
    means = table.to_pandas().groupby("generator")[list(ATTRIBUTES)].mean()
    series: dict[str, Any] = {a: list(means[a]) for a in ATTRIBUTES}
    title = f"Mean label by generator, rated by {' and '.join(raters)}"
    return plots.grouped_bars(list(means.index), series, title, "rating")
