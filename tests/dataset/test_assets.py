"""The stage's assets through Dagster, on two small deliveries: the folder that is published."""

import json
import subprocess
from pathlib import Path
from typing import Any

import dagster as dg
import datasets
import mlcroissant
import pyarrow.parquet as pq
import pytest
import yaml

from assets import dataset
from pipeline.settings import Profile, load_profile
from pipeline.store import Store
from resources.storage import Storage
from tests.dataset.collected import store_at

CONFIGS = {
    "train": "default",
    "validation": "default",
    "disagreements/disagreements": "disagreements",
    "preference/preference": "preference",
}


def profile(**changes: Any) -> Profile:
    tiny = load_profile("tiny")
    return tiny.model_copy(update={"dataset": tiny.dataset.model_copy(update=changes)})


def publishable(**changes: Any) -> Profile:
    """Every licence stated, people described."""
    told: dict[str, Any] = {
        "licence": "CC-BY-4.0",
        "annotators": "Twelve colleagues, trained for a day.",
    }
    stated = profile(**(told | changes))
    sources = {name: s.model_copy(update={"licence": "CC0-1.0"}) for name, s in stated.prompts.sources.items()}
    return stated.model_copy(update={"prompts": stated.prompts.model_copy(update={"sources": sources})})


def materialize(store: Store, wanted: Profile, key: str = "helpsteer_dataset") -> dg.ExecuteInProcessResult:
    return dg.materialize(
        dataset.build(wanted),
        selection=[key],
        instance=dg.DagsterInstance.ephemeral(),
        resources={"storage": Storage(uri=store.uri)},
        raise_on_error=False,
    )


def metadata(result: dg.ExecuteInProcessResult, key: str) -> dict[str, Any]:
    (event,) = result.asset_materializations_for_node(key)
    return {name: value.value for name, value in event.metadata.items()}


def failure(result: dg.ExecuteInProcessResult) -> str:
    (event,) = [e for e in result.all_events if e.event_type_value == "STEP_FAILURE"]
    data = event.step_failure_data
    return str((data.user_failure_data and data.user_failure_data.description) or data.error)


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
    assert shown["statistics"].records[1].data["mean_published"] == 2.9644
    assert {"removed", "card", "samples"} <= set(shown)


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
    for asset in ("response_pairs", "annotations", "agreed_tasks", "annotation_agreement"):
        staged = made.staging(asset, "third")
        for file in made.path(asset, "first").iterdir():
            (staged / file.name).write_bytes(file.read_bytes())
        made.publish(asset, "third", staged)
    result = materialize(made, profile())
    assert not result.success
    assert "two_rows_a_prompt" in failure(result)
    assert made.manifest("helpsteer_dataset") == before


def test_without_a_delivery_the_error_says_so(tmp_path: Path) -> None:
    assert "collect one first" in failure(materialize(Store(str(tmp_path / "store")), profile()))
