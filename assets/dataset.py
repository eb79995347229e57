"""The data set that is published, over all deliveries, and its copy on the hub."""

from functools import partial

import dagster as dg
import pyarrow as pa

from assets.published import Published
from pipeline.dataset import croissant, expectations, push, schema, shown
from pipeline.dataset.card import models_in
from pipeline.dataset.deliveries import MixedVersionsError, collect, read_deliveries
from pipeline.gate import Made
from pipeline.settings import Profile, Push
from pipeline.store import describe_files, local_path
from resources.hub import Hub
from resources.storage import Storage

STAGE = "dataset"


def build(profile: Profile) -> list[dg.AssetsDefinition]:
    """The stage's assets for a profile: the data set, and its copy on the hub where the profile names a repository."""
    licences = [f"{name}: {licence}" for name, licence in profile.sources.items()]
    if profile.contexts:
        licences.append(profile.checkpoints[profile.contexts.checkpoint].licence)
    licences += [profile.checkpoints[member.checkpoint].licence for member in profile.panel.values()]

    @Published(
        "helpsteer_dataset",
        STAGE,
        schema.DATASET,
        expectations.DATASET,
        "6",
        modules=("pipeline.dataset.deliveries", "pipeline.dataset.croissant"),
        parts=(profile.dataset.model_copy(update={"push": None}), profile.annotations, *licences),
        deps=("agreed_tasks", "annotations", "consensus_annotations", "response_pairs", "annotation_agreement"),
        kinds=("huggingface", "parquet"),
    ).asset
    def helpsteer_dataset(context: dg.AssetExecutionContext, storage: Storage) -> Made:
        """The data set over all deliveries: files in the form of nvidia/HelpSteer2, with provenance, data card, Croissant metadata and checksums."""
        try:
            given = read_deliveries(storage.store(), profile)
        except MixedVersionsError as error:
            raise dg.Failure(str(error), allow_retries=False) from None
        made = collect(given, profile)
        return Made(
            made.rows,
            views=expectations.collection_views(made),
            beside=made.beside(),
            finish=partial(croissant.complete, profile=profile, raters=" and ".join(made.raters)),
            shown=shown.dataset(made, len(given.agreement)),
            info={
                "simulated": "simulated annotators" in made.raters,
                "models": models_in(given.ratings),
                "stated": push.statement(profile, given.sources),
            },
        )

    return [helpsteer_dataset, *([_hub_dataset(profile, profile.dataset.push)] if profile.dataset.push else [])]


def _hub_dataset(profile: Profile, wanted: Push) -> dg.AssetsDefinition:
    @Published(
        "hub_dataset",
        STAGE,
        schema.PUSHED,
        expectations.PUSHED,
        "1",
        modules=("pipeline.dataset.push", "resources.hub"),
        parts=(wanted,),
        deps=("helpsteer_dataset",),
        kinds=("huggingface",),
    ).asset
    def hub_dataset(context: dg.AssetExecutionContext, storage: Storage, hub: Hub) -> Made:
        """The published data set as a repository on the Hugging Face hub. What may not leave is not pushed: see `pipeline.dataset.push`."""
        store = storage.store()
        rows = store.read("helpsteer_dataset", columns=["generator", "licence"])
        manifest, folder = store.published("helpsteer_dataset"), local_path(store.path("helpsteer_dataset"))
        reasons = push.objections(rows, manifest.info, profile, wanted)
        if tuple(describe_files(store.path("helpsteer_dataset"))) != manifest.files:
            reasons.append(
                f"the files in {folder} are not those that were published: materialize helpsteer_dataset again"
            )
        if reasons:
            listed = "\n".join(f"- {reason}" for reason in reasons)
            raise dg.Failure(f"Nothing was pushed to {wanted.repo}, for these reasons:\n{listed}", allow_retries=False)
        names = [f.name for f in manifest.files]
        commit, url = hub.push(folder, names, wanted.repo, wanted.private, f"Version {manifest.version}")
        values = (manifest.version, wanted.repo, wanted.private, commit, url)
        record = dict(zip(schema.PUSHED.names, values, strict=True))
        table = pa.Table.from_pylist([record], schema=schema.PUSHED)
        return Made(table, shown=shown.pushed(wanted.repo, manifest.version, url))

    return hub_dataset
