"""What the UI does, done to a real webserver and daemon."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.store import Store
from tests.orchestration.server import Server, dagster_dev

pytestmark = pytest.mark.together

LOCATION = "tests.orchestration.gate_location"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gate")


@pytest.fixture(scope="module")
def server(place: Path) -> Iterator[Server]:
    env = {"GATE_LOCATION_INPUT": str(place / "input.json"), "GATE_LOCATION_STORE": str(place / "store")}
    with dagster_dev(place / "home", LOCATION, env) as running:
        running.add_delivery("week-1", LOCATION)
        yield running


@pytest.fixture
def store(place: Path) -> Store:
    return Store(str(place / "store"))


def give(place: Path, ratings: list[int], seconds: float = 0) -> None:
    (place / "input.json").write_text(json.dumps({"ratings": ratings, "seconds": seconds}))


def ratings(store: Store, asset: str, partition: str | None = None) -> list[int]:
    found: list[int] = store.read(asset, partition)["rating"].to_pylist()
    return found


def test_a_backfill_over_assets_with_and_without_partitions_stops_at_a_failed_gate(
    server: Server, place: Path, store: Store
) -> None:
    everything = ["pool", "batch", "report"]
    give(place, [1, 2])
    assert server.backfill(everything, ["week-1"]) == "COMPLETED_SUCCESS"
    assert ratings(store, "report", "week-1") == [1, 2]
    before = {a: store.manifest(a, p) for a, p in (("pool", None), ("batch", "week-1"), ("report", "week-1"))}

    give(place, [3, 7])
    assert server.backfill(everything, ["week-1"]) == "COMPLETED_FAILED"
    assert {a: store.manifest(a, p) for a, p in (("pool", None), ("batch", "week-1"), ("report", "week-1"))} == before


def test_two_runs_of_one_asset_at_once_leave_one_of_them_whole(server: Server, place: Path, store: Store) -> None:
    give(place, [0, 0, 0], seconds=3)
    first = server.launch(["pool"], LOCATION)
    second = server.launch(["pool"], LOCATION)
    assert {server.run_status(first), server.run_status(second)} == {"SUCCESS"}
    assert ratings(store, "pool") == [0, 0, 0]
    assert list((store.root / ".staging" / "pool").iterdir()) == []
