"""All deliveries in one: what the data set is made of, and what it becomes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.annotations.held import held_back
from pipeline.annotations.schema import rated_by
from pipeline.dataset import build
from pipeline.dataset.card import data_card
from pipeline.dataset.disagreements import disagreement_rows
from pipeline.dataset.preference import preference_rows
from pipeline.dataset.removals import removals
from pipeline.dataset.schema import DATASET, HELD, LEFT_OUT, PROVENANCE
from pipeline.dataset.statistics import statistics
from pipeline.forms.helpsteer import DISAGREEMENTS, whole
from pipeline.settings import Profile
from pipeline.store import DATA, NotPublishedError, Store
from pipeline.vocabulary import RatedBy


class MixedVersionsError(RuntimeError):
    """A delivery whose labels are of other ratings than there are now; the message says what to do."""


@dataclass(frozen=True)
class Delivered:
    """Tables of all deliveries.

    ratings: schema ANNOTATIONS; kept: those that are no outliers; pairs: schema RESPONSE_PAIRS; rows: schema DATASET, in order; left_out: schema
    LEFT_OUT; unanswered: prompts that never got two responses; agreement: tables of `annotation_agreement` by delivery; sources: names and
    licences of where prompts come from.
    """

    ratings: pa.Table
    kept: pa.Table
    pairs: pa.Table
    rows: pa.Table
    left_out: pa.Table
    unanswered: int
    agreement: Mapping[str, pa.Table]
    sources: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Collection:
    """The data set: its rows, what was left out, the rows of each file by its name, and what is said of it.

    usable: ratings without those of prompts that are left out; disagreements: with ids; removed: schema REMOVALS; figures: schema STATISTICS;
    card: README.md; raters: who gave the ratings, and the share of each.
    """

    rows: pa.Table
    left_out: pa.Table
    files: Mapping[str, pa.Table]
    usable: pa.Table
    disagreements: pa.Table
    removed: pa.Table
    figures: pa.Table
    card: str
    raters: Mapping[RatedBy, float]

    def beside(self) -> dict[str, pa.Table | bytes]:
        """What is published beside the rows: each file as Parquet and as gzipped JSON lines, provenance, what was left out, the card."""
        tables = {f"{name}.parquet": rows for name, rows in self.files.items()}
        tables |= {"provenance.parquet": self.rows.select(PROVENANCE.names), "left_out.parquet": self.left_out}
        lines = {f"{name}.jsonl.gz": build.jsonl_gz(rows) for name, rows in self.files.items()}
        return {**tables, **lines, "README.md": self.card.encode()}


def read_deliveries(store: Store, profile: Profile) -> Delivered:
    """What all deliveries with agreed tasks have published.

    Raises NotPublishedError where there is none, MixedVersionsError where a delivery's labels are of other ratings than there are now.
    """
    deliveries = store.partitions("agreed_tasks")
    if not deliveries:
        raise NotPublishedError("No delivery has agreed_tasks yet: collect a delivery first")
    for key in deliveries:
        _of_one_version(store, key)
    share = profile.dataset.validation_share
    parts = [
        build.rows_of(store.read("agreed_tasks", key), store.read("response_pairs", key), key, share)
        for key in deliveries
    ]
    held = [_held(store.read("annotations", key), key, profile.annotations.hold_back) for key in deliveries]
    left_out = pa.concat_tables([LEFT_OUT.empty_table(), *(bad for _, bad in parts)])
    held = [build.without(table, whole(left_out["prompt_id"])) for table in held]

    def every(asset: str, name: str = DATA) -> pa.Table:
        return pa.concat_tables([store.read(asset, key, name) for key in deliveries])

    return Delivered(
        ratings=every("annotations"),
        kept=every("consensus_annotations", "kept.parquet"),
        pairs=every("response_pairs"),
        rows=build.in_order(pa.concat_tables([DATASET.empty_table(), *(rows for rows, _ in parts)])),
        left_out=pa.concat_tables([left_out, *held]),
        unanswered=len(pc.unique(every("response_pairs", "left_out.parquet")["prompt_id"])),
        agreement={key: store.read("annotation_agreement", key) for key in deliveries},
        sources=_sources(store, deliveries, profile),
    )


def _held(annotations: pa.Table, delivery: str, flags: Sequence[str]) -> pa.Table:
    """Prompts of a delivery that a flag holds back, in the schema LEFT_OUT: they are in no file, the one of all ratings included."""
    rows = [
        {"prompt_id": prompt, "delivery": delivery, "reason": HELD}
        for prompt in held_back(annotations, flags).to_pylist()
    ]
    return pa.Table.from_pylist(rows, schema=LEFT_OUT)


def collect(given: Delivered, profile: Profile) -> Collection:
    """Make the data set's files, figures and card of what all deliveries have published."""
    usable = build.without(given.ratings, whole(given.left_out["prompt_id"]))
    disagreements = disagreement_rows(usable, given.pairs)
    preferences, dropped = preference_rows(given.rows, usable)
    files = {split: build.helpsteer_rows(given.rows, split) for split in ("train", "validation")}
    files["disagreements/disagreements"] = disagreements.select(DISAGREEMENTS.names)
    files["preference/preference"] = preferences
    removed = removals(
        given.ratings,
        given.kept,
        given.rows,
        given.left_out,
        given.pairs,
        given.unanswered,
        dropped,
        profile.annotations,
    )
    figures = statistics(given.rows)
    card = data_card(given.rows, files, given.ratings, given.agreement, removed, figures, profile, given.sources)
    raters = rated_by(given.ratings)
    return Collection(given.rows, given.left_out, files, usable, disagreements, removed, figures, card, raters)


def _of_one_version(store: Store, delivery: str) -> None:
    """Refuse labels of other ratings than there are now: the delivery's later steps failed, or were not run."""
    labels, ratings = store.manifest("agreed_tasks", delivery), store.version("annotations", delivery)
    made_of = labels.info.get("annotations") if labels else None
    if made_of and ratings and made_of != ratings:
        raise MixedVersionsError(
            f"delivery {delivery}: its agreed_tasks were made from other annotations than there are now; materialize its consensus_annotations and "
            "agreed_tasks again first"
        )


def _sources(store: Store, deliveries: Sequence[str], profile: Profile) -> list[tuple[str, str]]:
    """Names and licences of where the prompts of these deliveries come from, as their rows have them; the profile's for recorded ones."""
    found = set[tuple[str, str]]()
    for key in deliveries:
        if store.manifest("prompts", key):
            rows = store.read("prompts", key, columns=["source", "licence"])
            distinct = rows.group_by(["source", "licence"]).aggregate([])
            found |= {(row["source"], row["licence"]) for row in distinct.to_pylist()}
        else:
            found |= set(profile.sources.items())
    return sorted(found)
