"""Published ratings through the project's own stages, from a folder in the form of nvidia/HelpSteer2."""

import gzip
import json
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest

from assets import annotations, dataset, responses
from pipeline.annotations.published import load
from pipeline.records import FileError
from pipeline.settings import Profile, load_profile
from pipeline.store import Store
from pipeline.vocabulary import ATTRIBUTES
from resources.compute import LocalCompute
from resources.desks.starting import desk_of
from resources.storage import Storage

MULTI = "What is rice?\n<extra_id_1>Assistant\nA grain.\n<extra_id_1>User\nAnd wheat?"


def rows(tasks: int) -> list[dict[str, Any]]:
    """Tasks in the published form; ratings drawn by the test, 2 to 6 a response as in the file."""
    draw = np.random.default_rng(5)
    found = []
    for task in range(tasks):
        prompt = MULTI if task == 1 else f"Question number {task}?"
        for which in "ab":
            n = int(draw.choice([2, 3, 4, 5, 6], p=[0.05, 0.7, 0.05, 0.19, 0.01]))
            middle = draw.integers(0, 5)
            ratings = {a: np.clip(middle + draw.integers(-1, 2, n), 0, 4).tolist() for a in ATTRIBUTES}
            found.append({"prompt": prompt, "response": f"Answer {which} to {task}.", **ratings})
    return found


def published(folder: Path, found: list[dict[str, Any]]) -> Path:
    (folder / "disagreements").mkdir(parents=True)
    with gzip.open(folder / "disagreements" / "disagreements.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in found)
    return folder


def profile_of(tmp_path: Path, folder: Path, limit: int | None = None) -> Profile:
    text = f"extends: published\nstore: {tmp_path / 'store'}\nannotations: {{desk: {{folder: {folder}, limit: {limit or 'null'}}}}}\n"
    (tmp_path / "mine.yaml").write_text(text)
    return load_profile(tmp_path / "mine.yaml")


def run(profile: Profile) -> dg.ExecuteInProcessResult:
    instance = dg.DagsterInstance.ephemeral()
    instance.add_dynamic_partitions("delivery", ["all"])
    return dg.materialize(
        [asset for stage in (responses, annotations, dataset) for asset in stage.build(profile)],
        partition_key="all",
        instance=instance,
        resources={"storage": Storage(uri=profile.store), "desk": desk_of(profile), "compute": LocalCompute()},
        raise_on_error=False,
    )


def test_recorded_ratings_go_through_consensus_to_a_data_set(tmp_path: Path) -> None:
    found = rows(60)
    found[10]["helpfulness"][0] = None  # a rating without helpfulness, as the published file has two
    profile = profile_of(tmp_path, published(tmp_path / "hs2", [*found, {**found[0], "helpfulness": [7]}]))
    result = run(profile)
    assert result.success
    store = Store(profile.store)
    given = store.read("initial_annotations", "all").to_pandas()
    assert given.groupby("response_id").size().sum() == sum(len(r["coherence"]) for r in found) - 1
    assert not given["simulated"].any()
    assert set(given["desk"]) == {"helpsteer2"}
    quarantine = store.read("initial_annotations", "all", "quarantine.parquet").to_pylist()
    assert sorted(q["reason"] for q in quarantine) == [
        "helpfulness is missing",
        "helpfulness is not a whole number from 0 to 4",
    ]
    assert len(store.read("escalation_tasks", "all")) == 0
    data = store.read("helpsteer_dataset").to_pylist()
    assert {r["generator"] for r in data} == {"recorded"}
    assert {r["licence"] for r in data} == {"CC-BY-4.0"}
    (multi,) = {json.dumps(r["messages"]) for r in data if r["n_turns"] > 1} or {None}
    if multi:
        assert [m["content"] for m in json.loads(multi)] == ["What is rice?", "A grain.", "And wheat?"]
    card = (Path(str(store.path("helpsteer_dataset"))) / "README.md").read_text()
    assert "simulated annotators" not in card
    failed = [
        f"{e.asset_key.to_user_string()}: {e.check_name}"
        for e in result.get_asset_check_evaluations()
        if not e.passed and e.severity == dg.AssetCheckSeverity.ERROR
    ]
    assert failed == []


def test_a_limit_takes_the_first_tasks(tmp_path: Path) -> None:
    folder = published(tmp_path, rows(9))
    few = load("hub", None, folder, "x", 4)
    every = load("hub", None, folder, "x", None)
    assert (few.tasks, every.tasks) == (4, 9)
    assert few.pairs.equals(every.pairs.slice(0, 8))


def test_a_folder_without_the_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"disagreements\.jsonl\.gz: there is no such file"):
        load("hub", None, tmp_path, "x", None)


def test_without_network_the_error_says_to_give_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def offline(*_: Any, **__: Any) -> str:  # test double: the hub can't be reached
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    with pytest.raises(
        FileError, match=r"nvidia/HelpSteer2 .* can't be downloaded: no network.*give desk helpsteer2 a `folder`"
    ):
        load("nvidia/HelpSteer2", None, None, "x", None)
