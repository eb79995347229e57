"""What is out of date, beside the status that the UI gets of its server for every asset."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget
from dagster_graphql.test.utils import execute_dagster_graphql

from pipeline.automation.jobs import in_order
from pipeline.definitions import build_defs
from pipeline.operating.stale import out_of_date, staleness
from pipeline.settings import load_profile
from pipeline.store import DATA, Store, write_table
from tests.orchestration import stale_location

Places = dict[str, str | None]
"""Assets by their names, with the partition that each is looked at in."""


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    monkeypatch.setenv("STALE_LOCATION", str(tmp_path))
    (tmp_path / "home").mkdir()
    quiet = {"telemetry": {"enabled": False}}
    with dg.DagsterInstance.local_temp(str(tmp_path / "home"), overrides=quiet) as made:
        made.add_dynamic_partitions("delivery", ["week-1", "week-2"])
        yield made


def places_of(definitions: dg.Definitions, delivery: str, other: str) -> Places:
    def own(cut: dg.PartitionsDefinition | None) -> str | None:
        return None if cut is None else delivery if isinstance(cut, dg.DynamicPartitionsDefinition) else other

    return {s.key.to_user_string(): own(s.partitions_def) for s in definitions.resolve_all_asset_specs()}


def seen_in_the_ui(instance: dg.DagsterInstance, module: str, attribute: str, places: Places) -> dict[str, str]:
    asked = "".join(
        f"a{n}: assetNodeOrError(assetKey: {{path: {json.dumps(name.split('/'))}}})"
        f"{{ ... on AssetNode {{ staleStatus{f'(partition: {json.dumps(at)})' if at else ''} }} }}\n"
        for n, (name, at) in enumerate(places.items())
    )
    origin = InProcessCodeLocationOrigin(LoadableTargetOrigin(module_name=module, attribute=attribute))
    with WorkspaceProcessContext(instance, InProcessWorkspaceLoadTarget([origin])) as process:
        context: Any = process.create_request_context()
        answer = execute_dagster_graphql(context, f"{{ {asked} }}")
    return {name: answer.data[f"a{n}"]["staleStatus"] for n, name in enumerate(places)}


def said_here(instance: dg.DagsterInstance, definitions: dg.Definitions, places: Places) -> dict[str, str]:
    status = staleness(instance, definitions)
    return {name: status(dg.AssetKey(name.split("/")), partition) for name, partition in places.items()}


def agreed(instance: dg.DagsterInstance, attribute: str = "defs", delivery: str = "week-1") -> dict[str, str]:
    """Status of the toy location's assets in a delivery and the method `first`: the same here and in the UI."""
    definitions: dg.Definitions = getattr(stale_location, attribute)
    places = places_of(definitions, delivery, "first")
    here = said_here(instance, definitions, places)
    assert here == seen_in_the_ui(instance, stale_location.__name__, attribute, places)
    return here


def make(instance: dg.DagsterInstance, *keys: str, partition: str | None = None, content: str | None = None) -> None:
    """Materialize assets of the toy location; content: what `source` has from now on."""
    if content:
        (Path(os.environ["STALE_LOCATION"]) / "source.txt").write_text(content)
    assets = list(stale_location.defs.assets or [])
    selected = [asset for asset in assets if asset.key.to_user_string() in keys]
    assert dg.materialize(assets, instance=instance, selection=selected, partition_key=partition).success


def make_all(instance: dg.DagsterInstance) -> None:
    make(instance, "source", content="one")
    make(instance, "batch", partition="week-1")
    make(instance, "board")
    make(instance, "tried", partition="first")


def test_every_status_is_the_one_that_the_ui_shows(instance: dg.DagsterInstance) -> None:
    assert set(agreed(instance).values()) == {"MISSING"}

    make_all(instance)
    assert set(agreed(instance).values()) == {"FRESH"}
    assert agreed(instance, delivery="week-2")["batch"] == "MISSING"
    fresh = dict.fromkeys(["source", "batch", "board", "tried"], "FRESH")
    assert agreed(instance, "changed") == {**fresh, "batch": "STALE"}, "its children come later, when it is made anew"

    make(instance, "source", content="one")
    assert agreed(instance) == fresh, "the same content"
    make(instance, "source", content="two")
    assert agreed(instance) == {**fresh, "batch": "STALE"}
    make(instance, "batch", partition="week-1")
    assert agreed(instance) == {**fresh, "board": "STALE"}


def test_out_of_date_is_also_what_the_store_lacks_and_what_follows_that(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    make_all(instance)
    store, members = Store(str(tmp_path / "store")), in_order(stale_location.defs.resolve_all_asset_specs())

    def found(partition: str, given: list[dg.AssetSpec] = members) -> list[str]:
        return [s.key.to_user_string() for s in out_of_date(instance, stale_location.defs, store, given, partition)]

    for asset, partition in (("source", None), ("batch", "week-1"), ("board", None), ("tried", "first")):
        staged = store.staging(asset, partition)
        write_table(pa.table({"n": [1]}), staged / DATA)
        store.publish(asset, partition, staged)
    delivery = [spec for spec in members if spec.key.to_user_string() != "tried"]
    assert found("week-1", delivery) == []
    assert found("week-2", delivery) == ["batch", "board"]
    store.path("source", None, DATA).unlink()
    assert found("week-1", delivery) == ["source", "batch", "board"]


def test_the_projects_own_assets_have_the_status_that_the_ui_shows(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIPELINE_PROFILE", raising=False)
    definitions = build_defs(load_profile("tiny"))
    places = places_of(definitions, "week-1", next(iter(load_profile("tiny").recipes)))
    here = said_here(instance, definitions, places)
    assert here == seen_in_the_ui(instance, "pipeline.definitions", "defs", places)
    assert set(here.values()) == {"MISSING"}
