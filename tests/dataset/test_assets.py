"""The stage's assets through Dagster, on two small deliveries: the folder that is published, and what is pushed of it."""

import inspect
import json
import subprocess
from pathlib import Path
from typing import Any, ClassVar

import dagster as dg
import datasets
import mlcroissant
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from huggingface_hub import HfApi

from assets import dataset
from pipeline.automation.jobs import stretches
from pipeline.definitions import build_defs
from pipeline.partitions import PUSH
from pipeline.prompts.schema import PROMPTS
from pipeline.settings import Profile, ProfileError, Push, load_profile
from pipeline.store import DATA, Store, write_table
from resources.hub import Hub
from resources.storage import Storage
from tests.dataset.collected import store_at
from tests.helpers import failure, metadata

CONFIGS = {
    "train": "default",
    "validation": "default",
    "disagreements/disagreements": "disagreements",
    "preference/preference": "preference",
}
TOKEN = "hf_a_secret"


def profile(**changes: Any) -> Profile:
    tiny = load_profile("tiny")
    return tiny.model_copy(update={"dataset": tiny.dataset.model_copy(update=changes)})


def publishable(**changes: Any) -> Profile:
    """Every licence stated, people described, a place to push to."""
    told: dict[str, Any] = {
        "licence": "CC-BY-4.0",
        "annotators": "Twelve colleagues, trained for a day.",
        "push": Push(repo="us/set"),
    }
    stated = profile(**(told | changes))
    sources = {name: s.model_copy(update={"licence": "CC0-1.0"}) for name, s in stated.prompts.sources.items()}
    return stated.model_copy(update={"prompts": stated.prompts.model_copy(update={"sources": sources})})


def materialize(store: Store, wanted: Profile, key: str = "helpsteer_dataset") -> dg.ExecuteInProcessResult:
    return dg.materialize(
        dataset.build(wanted),
        selection=[key],
        instance=dg.DagsterInstance.ephemeral(),
        resources={"storage": Storage(uri=store.uri), "hub": Hub()},
        raise_on_error=False,
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    made = store_at(tmp_path_factory.mktemp("simulated") / "store", profile())
    assert materialize(made, profile()).success
    return made


@pytest.fixture(scope="module")
def folder(store: Store) -> Path:
    return Path(store.path("helpsteer_dataset").path)


# ------------------------------------------------------------------------------------------------------------------------- the folder


def test_the_folder_has_the_published_files_each_with_parquet_beside_it(folder: Path) -> None:
    beside = {"data.parquet", "provenance.parquet", "left_out.parquet", "README.md", "croissant.json", "SHA256SUMS"}
    files = {f"{name}.{ending}" for name in CONFIGS for ending in ("jsonl.gz", "parquet")}
    assert {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} == files | beside


def test_the_checksums_are_those_of_every_other_file(folder: Path) -> None:
    done = subprocess.run(
        ["sha256sum", "-c", "--strict", "SHA256SUMS"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    assert len(done.stdout.splitlines()) == sum(p.is_file() for p in folder.rglob("*")) - 1


@pytest.mark.parametrize("name", CONFIGS)
def test_the_library_loads_every_file_and_its_parquet_has_the_same_rows(
    folder: Path, name: str, tmp_path: Path
) -> None:
    loaded = datasets.load_dataset(str(folder), CONFIGS[name], cache_dir=str(tmp_path))
    split = name if CONFIGS[name] == "default" else "train"
    assert loaded[split].to_list() == pq.read_table(folder / f"{name}.parquet").to_pylist()


def test_the_originals_way_to_load_the_other_two_works_as_well(folder: Path, tmp_path: Path) -> None:
    for name in ("disagreements", "preference"):
        loaded = datasets.load_dataset(str(folder), data_dir=name, cache_dir=str(tmp_path))["train"]
        assert loaded.to_list() == pq.read_table(folder / name / f"{name}.parquet").to_pylist()


def test_rows_of_removed_tasks_are_in_the_disagreements_and_nowhere_else(folder: Path) -> None:
    everything = {name: pq.read_table(folder / f"{name}.parquet") for name in CONFIGS}
    removed = "Question 1 of first, ünïcode \u2028 too?"
    assert everything["disagreements/disagreements"]["prompt"].to_pylist().count(removed) == 2
    assert not any(
        removed in everything[name]["prompt"].to_pylist() for name in ("train", "validation", "preference/preference")
    )


def test_a_prompt_that_could_forge_a_turn_is_in_no_file(folder: Path) -> None:
    for name in CONFIGS:
        prompts = pq.read_table(folder / f"{name}.parquet")["prompt"].to_pylist()
        assert not [p for p in prompts if p.startswith("Question 0 ")]
    left_out = pq.read_table(folder / "left_out.parquet")["prompt_id"].to_pylist()
    assert left_out == ["first-000", "second-000"]


@pytest.mark.parametrize("name", CONFIGS)
def test_croissant_reads_the_records_of_every_file(folder: Path, name: str) -> None:
    described = mlcroissant.Dataset(jsonld=str(folder / "croissant.json"))
    assert not described.metadata.ctx.issues.errors
    stem = name.rsplit("/", 1)[-1]
    expected = pq.read_table(folder / f"{name}.parquet").to_pylist()
    assert [plain(record) for record in described.records(stem)] == expected


def plain(value: Any) -> Any:
    """A record without the prefixes of its fields, and with text for bytes."""
    if isinstance(value, dict):
        return {str(k).rsplit("/", 1)[-1]: plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [plain(v) for v in value]
    return value.decode() if isinstance(value, bytes) else value


def test_croissant_has_the_checksum_of_every_file_it_describes(folder: Path) -> None:
    described = json.loads((folder / "croissant.json").read_text())["distribution"]
    ours = {f["contentUrl"]: f["sha256"] for f in described}
    listed = dict(reversed(line.split("  ", 1)) for line in (folder / "SHA256SUMS").read_text().splitlines())
    assert {**ours, "croissant.json": listed["croissant.json"]} == listed


def test_the_card_says_what_a_reader_must_know(folder: Path) -> None:
    text = (folder / "README.md").read_text()
    head = yaml.safe_load(text.split("---\n")[1])
    assert [c["config_name"] for c in head["configs"]] == ["default", "disagreements", "preference"]
    assert (head["license"], head["license_name"]) == ("other", "not-for-redistribution")
    for passage in (
        "made by simulated annotators",
        "| `train.jsonl.gz` | ",
        "**Nobody was asked for a\n  preference",
        "| annotated prompts | 70 | 2 |",
        "| tasks | 68 | 4 |",
        "| prompts | 71 | 1 | a response is missing",
        "| ratings of helpfulness |",
        "| turns in the prompt | ",
        "| prompts from sharegpt | not stated |",
        "| responses of `careful` (small) | Apache-2.0 |",
        "| first | helpfulness | ",
        "The panel has 24",
    ):
        assert passage in text, passage
    assert "To be written by the team" not in text


def test_the_same_data_is_the_same_version(store: Store) -> None:
    before = store.manifest("helpsteer_dataset")
    assert materialize(store, profile()).success
    after = store.manifest("helpsteer_dataset")
    assert before is not None
    assert after is not None
    assert before.version == after.version


def test_the_asset_shows_statistics_and_removals(store: Store) -> None:
    shown = metadata(materialize(store, profile()), "helpsteer_dataset")
    assert shown["statistics"].value.records[1].data["mean_published"] == 2.9644
    assert {"removals", "data card", "samples"} <= set(shown)


def test_people_are_described_by_the_team_or_the_card_says_that_they_are_not(tmp_path: Path) -> None:
    made = store_at(tmp_path / "store", profile(), by_people=True)
    assert materialize(made, profile()).success
    text = (Path(made.path("helpsteer_dataset").path) / "README.md").read_text()
    assert "To be written by the team" in text
    assert "simulated annotators" not in text
    assert materialize(made, publishable()).success
    text = (Path(made.path("helpsteer_dataset").path) / "README.md").read_text()
    assert "Twelve colleagues, trained for a day." in text
    assert "To be written by the team" not in text
    assert yaml.safe_load(text.split("---\n")[1])["license"] == "cc-by-4.0"


def test_a_prompt_in_two_deliveries_is_refused_and_what_was_published_stays(tmp_path: Path) -> None:
    made = store_at(tmp_path / "store", profile())
    assert materialize(made, profile()).success
    before = made.manifest("helpsteer_dataset")
    for asset in ("response_pairs", "annotations", "consensus_annotations", "agreed_tasks", "annotation_agreement"):
        staged = made.staging(asset, "third")
        for file in made.path(asset, "first").iterdir():
            (staged / file.name).write_bytes(file.read_bytes())
        made.publish(asset, "third", staged)
    result = materialize(made, profile())
    assert not result.success
    assert "two_rows_a_prompt" in failure(result)
    assert made.manifest("helpsteer_dataset") == before


def test_a_task_that_a_flag_holds_back_is_in_no_file(tmp_path: Path) -> None:
    made, held = store_at(tmp_path / "store", profile()), "first-005"
    annotations, agreed = made.read("annotations", "first"), made.read("agreed_tasks", "first")
    flags: list[list[str]] = [[] for _ in range(len(annotations))]
    flags[annotations["prompt_id"].to_pylist().index(held)] = ["Personal data"]
    place = annotations.column_names.index("flags")
    flagged = annotations.set_column(place, annotations.schema.field("flags"), pa.array(flags, pa.list_(pa.string())))
    kept = agreed.filter(pa.array([p != held for p in agreed["prompt_id"].to_pylist()]))
    for asset, table in (("annotations", flagged), ("agreed_tasks", kept)):
        staged = made.staging(asset, "first")
        write_table(table, staged / DATA)
        made.publish(asset, "first", staged, len(table))
    assert materialize(made, profile()).success
    reasons = {
        r["prompt_id"]: r["reason"] for r in made.read("helpsteer_dataset", None, "left_out.parquet").to_pylist()
    }
    assert reasons[held] == "an annotator's flag holds the task back"
    folder = made.path("helpsteer_dataset")
    texts = " ".join(
        str(pq.read_table(str(path)).to_pylist())
        for path in Path(str(folder)).rglob("*.parquet")
        if path.name != "left_out.parquet"
    )
    assert "Question 5 of first" not in texts
    assert "Question 6 of first" in texts
    assert "an annotator's flag holds the task back; in no file" in (Path(str(folder)) / "README.md").read_text()


# -------------------------------------------------------------------------------------------------------------------------- the push


class HfApiDouble:
    """A test double of huggingface_hub's HfApi: takes what that takes, and remembers it; nothing leaves the machine."""

    calls: ClassVar[list[tuple[str, dict[str, Any]]]] = []
    private = True

    def __init__(self, token: str) -> None:
        assert token == TOKEN

    def called(self, name: str, arguments: dict[str, Any]) -> None:
        inspect.signature(getattr(HfApi, name)).bind(self, **arguments)
        self.calls.append((name, arguments))

    def create_repo(self, repo_id: str, **options: Any) -> None:
        self.called("create_repo", {"repo_id": repo_id, **options})

    def dataset_info(self, repo_id: str) -> Any:
        return type("DatasetInfoDouble", (), {"private": self.private})()

    def upload_folder(self, **options: Any) -> Any:
        self.called("upload_folder", options)
        return type(
            "CommitInfoDouble", (), {"oid": "abc123", "commit_url": "https://hub.invalid/us/set/commit/abc123"}
        )()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> type[HfApiDouble]:
    monkeypatch.setattr("huggingface_hub.HfApi", HfApiDouble)
    monkeypatch.setattr(HfApiDouble, "calls", [])
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return HfApiDouble


@pytest.fixture(scope="module")
def by_people(tmp_path_factory: pytest.TempPathFactory) -> Store:
    made = store_at(tmp_path_factory.mktemp("people") / "store", publishable(), by_people=True)
    assert materialize(made, publishable()).success
    return made


def test_the_published_folder_is_pushed_and_the_record_says_where_to(
    by_people: Store, hub: type[HfApiDouble], capfd: pytest.CaptureFixture[str]
) -> None:
    result = materialize(by_people, publishable(), "hub_dataset")
    assert result.success
    created, uploaded = hub.calls
    assert created == ("create_repo", {"repo_id": "us/set", "repo_type": "dataset", "private": True, "exist_ok": True})
    version = by_people.manifest("helpsteer_dataset")
    assert version is not None
    assert uploaded[1]["folder_path"] == Path(by_people.path("helpsteer_dataset").path)
    assert set(uploaded[1]["allow_patterns"]) == {f.name for f in version.files}
    shown = metadata(result, "hub_dataset")
    assert shown["repository"].value == "us/set"
    assert shown["commit"].value == "https://hub.invalid/us/set/commit/abc123"
    assert shown["pushed version"].value == version.version
    (record,) = by_people.read("hub_dataset").to_pylist()
    assert (record["version"], record["commit"]) == (version.version, "abc123")
    seen = "".join(capfd.readouterr()) + "".join(str(e) for e in result.all_events) + str(shown)
    assert TOKEN not in seen


def test_without_a_token_the_error_names_the_variable(
    by_people: Store, hub: type[HfApiDouble], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    assert "HF_TOKEN" in failure(materialize(by_people, publishable(), "hub_dataset"))
    assert not hub.calls


def test_simulated_ratings_and_missing_licences_are_refused_each_by_name(store: Store, hub: type[HfApiDouble]) -> None:
    said = failure(materialize(store, profile(push=Push(repo="us/set")), "hub_dataset"))
    assert "simulated annotators" in said
    assert "the data set (dataset.licence)" in said
    assert "prompts from sharegpt" in said
    assert "responses of" not in said
    assert not hub.calls


def test_allowing_simulated_ratings_allows_nothing_else(store: Store, tmp_path: Path, hub: type[HfApiDouble]) -> None:
    allowed = Push(repo="us/set", allow_simulated=True)
    assert "the data set (dataset.licence)" in failure(materialize(store, profile(push=allowed), "hub_dataset"))
    stated = store_at(tmp_path / "store", publishable())
    assert materialize(stated, publishable()).success
    assert materialize(stated, publishable(push=allowed), "hub_dataset").success
    assert [name for name, _ in hub.calls] == ["create_repo", "upload_folder"]


def test_a_card_that_says_other_than_the_profile_is_not_pushed(store: Store, hub: type[HfApiDouble]) -> None:
    said = failure(materialize(store, publishable(push=Push(repo="us/set", allow_simulated=True)), "hub_dataset"))
    assert "the profile's dataset.licence isn't what the published card says" in said
    assert "the profile's dataset.annotators isn't what the published card says" in said
    assert "prompts from sharegpt" in said, "which is what the rows come from, whatever the profile names now"
    assert not hub.calls


def test_sources_are_those_of_the_prompts_that_are_there(tmp_path: Path, hub: type[HfApiDouble]) -> None:
    made = store_at(tmp_path / "store", publishable(), by_people=True)
    staged = made.staging("prompts", "first")
    rows = [{"prompt_id": "first-000", "source": "earlier", "licence": "not stated"}]
    write_table(pa.Table.from_pylist(rows, schema=PROMPTS), staged / DATA)
    made.publish("prompts", "first", staged)
    assert materialize(made, publishable()).success
    assert "earlier (not stated)" in (Path(made.path("helpsteer_dataset").path) / "README.md").read_text()
    assert (
        "no licence allows prompts from earlier (prompts.sources) to be published: the stated licence is 'not stated'"
        in failure(materialize(made, publishable(), "hub_dataset"))
    )
    assert not hub.calls


def test_labels_of_other_ratings_than_there_are_now_are_not_published(tmp_path: Path) -> None:
    made = store_at(tmp_path / "store", profile())
    table, staged = made.read("agreed_tasks", "first"), made.staging("agreed_tasks", "first")
    write_table(table, staged / DATA)
    made.publish("agreed_tasks", "first", staged, info={"annotations": "another version"})
    said = failure(materialize(made, profile()))
    assert "delivery first: its agreed_tasks were made from other annotations than there are now" in said
    assert made.manifest("helpsteer_dataset") is None


def test_people_who_are_not_described_are_refused(by_people: Store, hub: type[HfApiDouble]) -> None:
    assert "dataset.annotators" in failure(materialize(by_people, publishable(annotators=None), "hub_dataset"))
    assert not hub.calls


def test_a_private_set_is_not_uploaded_to_a_public_repository(
    by_people: Store, hub: type[HfApiDouble], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "private", False)
    assert "is public" in failure(materialize(by_people, publishable(), "hub_dataset"))
    assert [name for name, _ in hub.calls] == ["create_repo"]
    assert materialize(by_people, publishable(push=Push(repo="us/set", private=False)), "hub_dataset").success


def test_a_file_that_was_changed_after_it_was_published_is_not_pushed(tmp_path: Path, hub: type[HfApiDouble]) -> None:
    made = store_at(tmp_path / "store", publishable(), by_people=True)
    assert materialize(made, publishable()).success
    with (Path(made.path("helpsteer_dataset").path) / "README.md").open("a") as file:
        file.write("edited")
    assert "are not those that were published" in failure(materialize(made, publishable(), "hub_dataset"))
    assert not hub.calls
    assert materialize(made, publishable()).success, "which puts the file right"
    assert materialize(made, publishable(), "hub_dataset").success


def test_the_push_is_in_the_graph_where_a_repository_is_named_and_in_no_delivery() -> None:
    assert "hub_dataset" not in {s.key.to_user_string() for s in build_defs(profile()).resolve_all_asset_specs()}
    wanted = publishable()
    definitions = build_defs(wanted)
    dg.Definitions.validate_loadable(definitions)
    made = stretches(wanted, definitions.resolve_all_asset_specs())
    members = {stretch.job: {spec.key.to_user_string() for spec in specs} for stretch, specs in made}
    assert members[PUSH] == {"hub_dataset"}
    assert [name for name, keys in members.items() if "hub_dataset" in keys] == [PUSH]


def test_naming_a_repository_makes_nothing_stale() -> None:
    def version(wanted: Profile) -> str | None:
        (spec,) = dataset.build(wanted)[0].specs
        return spec.code_version

    assert version(profile()) == version(profile(push=Push(repo="us/set")))
    assert version(profile()) != version(profile(annotators="us"))


def test_a_wrong_push_is_refused_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("extends: tiny\nname: mine\ndataset:\n  push: {repo: us, privat: true}\n")
    with pytest.raises(ProfileError) as error:
        load_profile(path)
    assert "dataset.push.repo" in str(error.value)
    assert "allowed here: repo, private, allow_simulated, allow_model_ratings" in str(error.value)


def test_without_a_delivery_the_error_says_so(tmp_path: Path) -> None:
    assert "collect a delivery first" in failure(materialize(Store(str(tmp_path / "store")), profile()))
