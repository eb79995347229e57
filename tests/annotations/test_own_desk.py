"""A desk of one's own: it says who rates, its rows agree, and all that is published of them says so."""

import json
import re
from pathlib import Path
from typing import Any, ClassVar, Literal

import dagster as dg
import pyarrow as pa
import pytest

from assets import annotations, dataset
from pipeline.annotations.expectations import rater_views
from pipeline.annotations.schema import rated_by
from pipeline.annotations.simulated import rate
from pipeline.annotations.tasks import wanted_at_first
from pipeline.dataset.raters import Raters, raters_of
from pipeline.forms.rows import ANNOTATIONS, QUARANTINE
from pipeline.settings import Annotations, DeskSection, FilesDesk, Profile, ProfileError, SimulatedDesk, load_profile
from pipeline.store import DATA, Store, write_table
from pipeline.vocabulary import RATINGS_NOTES, RatedBy
from resources.desks.desk import AnnotationDesk, Ask
from resources.desks.starting import own_desk
from resources.storage import Storage
from tests.annotations.test_desks import tasks
from tests.dataset.collected import UNANSWERED, response_pairs


class Neighbours(DeskSection):
    kind: Literal["neighbours"]
    rated_by: ClassVar[RatedBy] = "people"


class Robots(DeskSection):
    kind: Literal["robots"]
    rated_by: ClassVar[RatedBy] = "simulated annotators"


class Judges(DeskSection):
    kind: Literal["judges"]
    rated_by: ClassVar[RatedBy] = "language models"


class OwnDesk(AnnotationDesk):
    """Rates at once, in rows that say what they are told to."""

    desk: str
    simulated: bool

    def publish(self, delivery: str, round_: int, tasks: pa.Table, wanted: pa.Table) -> str:
        return "whoever is there"

    def collect(
        self, delivery: str, round_: int, tasks: pa.Table, wanted: pa.Table, ask: Ask
    ) -> tuple[pa.Table, pa.Table]:
        rows = rate(tasks, wanted, round_, SimulatedDesk(kind="simulated"), 1)
        return saying(rows, self.desk, self.simulated), QUARANTINE.empty_table()


def saying(rows: pa.Table, desk: str | None, simulated: bool | None) -> pa.Table:
    frame = rows.to_pylist()
    return pa.Table.from_pylist([row | {"desk": desk, "simulated": simulated} for row in frame], schema=ANNOTATIONS)


def collected(section: DeskSection, store: Store, **rows: Any) -> tuple[Profile, dg.ExecuteInProcessResult]:
    """A delivery from its pairs to the data set, rated at a desk of one's own."""
    tiny = load_profile("tiny")

    class OwnAnnotations(Annotations):
        desk: type(section)  # type: ignore[valid-type]

    values = tiny.annotations.model_dump(exclude={"desk"})
    profile = tiny.model_copy(update={"annotations": OwnAnnotations(desk=section, **values)})
    pairs, staged = response_pairs("first", 40), store.staging("response_pairs", "first")
    write_table(pairs, staged / DATA)
    write_table(UNANSWERED, staged / "left_out.parquet")
    store.publish("response_pairs", "first", staged, len(pairs))
    instance = dg.DagsterInstance.ephemeral()
    instance.add_dynamic_partitions("delivery", ["first"])
    resources = {
        "storage": Storage(uri=store.uri),
        "desk": OwnDesk(**rows),
        "compute": dg.ResourceDefinition.none_resource(),
    }
    result = dg.materialize(
        [*annotations.build(profile), dataset.build(profile)[0]],
        partition_key="first",
        instance=instance,
        resources=resources,
        raise_on_error=False,
    )
    return profile, result


def test_a_desk_that_does_not_say_who_rates_cannot_be_defined() -> None:
    with pytest.raises(TypeError, match="Silent doesn't say who rates at this desk: give it `rated_by: ClassVar"):

        class Silent(DeskSection):
            kind: Literal["silent"]

    with pytest.raises(TypeError, match="one of 'people', 'simulated annotators', 'language models'"):

        class Odd(DeskSection):
            kind: Literal["odd"]
            rated_by: ClassVar[Any] = "nobody"


@pytest.mark.parametrize(
    ("section", "desk", "simulated"),
    [
        (Neighbours(kind="neighbours"), "neighbours", True),
        (Neighbours(kind="neighbours"), "simulated", True),
        (Neighbours(kind="neighbours"), "models", False),
        (Robots(kind="robots"), "robots", False),
        (Judges(kind="judges"), "judges", True),
    ],
)
def test_ratings_that_say_otherwise_than_their_desk_are_not_published(
    tmp_path: Path, section: DeskSection, desk: str, simulated: bool
) -> None:
    store = Store(str(tmp_path / "store"))
    _, result = collected(section, store, desk=desk, simulated=simulated)
    assert not result.success
    failed = next(e for e in result.all_events if e.event_type_value == "STEP_FAILURE")
    reason = str(failed.event_specific_data.error)
    assert "who_rated: Every row names the profile's desk" in reason
    assert f"desk {desk}, simulated {str(simulated).lower()}" in reason
    assert store.manifest("initial_annotations", "first") is None


@pytest.mark.parametrize(
    ("section", "simulated"),
    [(Neighbours(kind="neighbours"), False), (Robots(kind="robots"), True), (Judges(kind="judges"), False)],
)
def test_who_rated_at_a_desk_of_ones_own_is_said_wherever_it_is_published(
    tmp_path: Path, section: DeskSection, simulated: bool
) -> None:
    by, store = section.rated_by, Store(str(tmp_path / "store"))
    profile, result = collected(section, store, desk=section.kind, simulated=simulated)
    assert result.success
    assert (profile.rated_by, profile.ratings_note) == (by, RATINGS_NOTES[by])
    assert rated_by(store.read("annotations", "first")) == {by: 1}
    for asset, delivery in (("helpsteer_dataset", None), ("agreed_tasks", "first"), ("annotation_agreement", "first")):
        assert set(store.read(asset, delivery)["rated_by"].to_pylist()) == {by}
    assert raters_of(store, profile, next(iter(profile.recipes))) == Raters(by, RATINGS_NOTES[by])
    card = (Path(store.path("helpsteer_dataset").path) / "README.md").read_text()
    assert ("The ratings were made by people; none is simulated." in card) == (by == "people")
    assert ("**The ratings were made by simulated annotators.**" in card) == (by == "simulated annotators")
    assert ("**Ratings by language models: " in card) == (by == "language models")
    assert ("Tasks went to whoever the team gave them to." in card) == (by == "people")
    assert f"Desk `{section.kind}`: 24 {'annotators' if by == 'people' else by} gave " in card
    info = store.manifest("helpsteer_dataset").info  # type: ignore[union-attr]
    assert info["simulated"] == (by == "simulated annotators")
    assert bool(info["models"]) == (by == "language models")
    described = json.loads((Path(store.path("helpsteer_dataset").path) / "croissant.json").read_text())
    assert f"by {by}, in" in described["description"]
    (event,) = result.asset_materializations_for_node("initial_annotations")
    assert event.metadata["rated by"].value == (RATINGS_NOTES[by] or "people")


def test_ratings_of_a_desk_that_nobody_knows_are_nobodys() -> None:
    rows = saying(rated(), "gone", False)
    with pytest.raises(
        ValueError, match="it is not known who gave the ratings of desk 'gone'; the desks here are simulated, files,"
    ):
        rated_by(rows)
    assert rated_by(rows, elsewhere="people") == {"people": 1}, "a file that somebody gives"
    assert rated_by(saying(rows, "gone", True)) == {"simulated annotators": 1}


@pytest.mark.parametrize(
    ("desk", "simulated", "otherwise"),
    [
        ("files", False, ""),
        ("files", True, "desk files, simulated true"),
        (None, False, "desk null, simulated false"),
        ("files", None, "desk files, simulated null"),
    ],
)
def test_what_rows_say_otherwise_is_shown(desk: str | None, simulated: bool | None, otherwise: str) -> None:
    view = rater_views(saying(rated(), desk, simulated), FilesDesk(kind="files", folder="f"))["raters"]
    assert set(view["otherwise"].to_pylist()) == {otherwise}


def rated() -> pa.Table:
    given = tasks(3)
    return rate(given, wanted_at_first(given, 3), 1, SimulatedDesk(kind="simulated"), 1)


class Asked(AnnotationDesk):
    """A desk of one's own with a field that must be given and one that need not."""

    folder: str
    again: bool = False

    def publish(self, delivery: str, round_: int, tasks: pa.Table, wanted: pa.Table) -> str:
        return self.folder

    def collect(
        self, delivery: str, round_: int, tasks: pa.Table, wanted: pa.Table, ask: Ask
    ) -> tuple[pa.Table, pa.Table]:
        return ANNOTATIONS.empty_table(), QUARANTINE.empty_table()


class Drawing(Asked):
    """One that draws."""

    seed: int


def test_a_desk_of_ones_own_gets_its_settings_and_the_profiles_seed_where_it_draws() -> None:
    assert own_desk(Asked, {"folder": "in"}, 7).model_dump() == {"folder": "in", "again": False}
    assert own_desk(Drawing, {"folder": "in"}, 7).model_dump() == {"folder": "in", "again": False, "seed": 7}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"folder": "in", "agian": True}, "annotations.desk.settings.agian: unknown key; allowed here: folder, again"),
        ({"folder": "in", "seed": 1}, "annotations.desk.settings.seed: unknown key; allowed here: folder, again"),
        ({}, "annotations.desk.settings: folder: "),
        ({"folder": "in", "again": "perhaps"}, "annotations.desk.settings: again: Input should be a valid boolean"),
    ],
)
def test_a_setting_that_a_desk_of_ones_own_cannot_use_is_told_with_its_place(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ProfileError, match=re.escape(said)):
        own_desk(Drawing, values, 7)
