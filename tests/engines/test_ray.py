"""Workers and replicas on a real Ray cluster, of this machine alone."""

import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upath import UPath

from pipeline.engines.finished import FinishedRequests
from pipeline.engines.spec import EngineSpec
from pipeline.models.checkpoints import resolve
from pipeline.responses.schema import REQUESTS
from pipeline.responses.worker import ResponsesSpec
from pipeline.settings import Checkpoint, RayCluster, Sampling, load_profile
from pipeline.worker import Spec
from resources.compute import RayCompute
from tests.engines.ray_cluster import Cluster, cluster
from tests.helpers import PATIENCE, failure, free_ports, metadata
from tests.orchestration.doubles import DoubleSpec


class SharedCluster:
    """One cluster for the module's tests; the next test after one that takes it away has another."""

    def __init__(self) -> None:
        self._running = ExitStack()
        self._found: Cluster | None = None

    def found(self) -> Cluster:
        self._found = self._found or self._running.enter_context(cluster(cpus=2))
        return self._found

    def take_away(self) -> None:
        self._running.close()
        self._found = None


@pytest.fixture(scope="module")
def shared_cluster() -> Iterator[SharedCluster]:
    shared = SharedCluster()
    yield shared
    shared.take_away()


@pytest.fixture
def ray_cluster(shared_cluster: SharedCluster) -> Cluster:
    return shared_cluster.found()


def run(address: str, spec: Spec) -> dg.ExecuteInProcessResult:
    spec.out.mkdir(exist_ok=True)

    @dg.asset
    def worked(context: dg.AssetExecutionContext, compute: RayCompute) -> dg.MaterializeResult:
        return dg.MaterializeResult(metadata=compute.run(context, spec))

    compute = RayCompute(address=address, python=sys.executable)
    return dg.materialize([worked], resources={"compute": compute}, raise_on_error=False)


def double(do: str, out: Path) -> DoubleSpec:
    return DoubleSpec(do=do, out=UPath(out))


def figures(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    assert result.success
    return {name: value.value for name, value in metadata(result, "worked").items()}


def test_a_jobs_result_and_reasons_come_back(ray_cluster: Cluster, tmp_path: Path) -> None:
    assert figures(run(ray_cluster.jobs, double("succeed", tmp_path)))["n"] == 3
    said = failure(run(ray_cluster.jobs, double("raise", tmp_path)))
    assert said == f"{DoubleSpec.worker} failed: ValueError: the input has no rows: give it some"
    said = failure(run(ray_cluster.jobs, double("be killed", tmp_path)))
    assert "left no reason. What it had finished is kept." in said
    assert "the last thing that it said" in said


def test_a_job_that_ends_well_without_a_result_has_failed(ray_cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "_result.json").write_text('{"n": 9}')
    assert "there is no result" in failure(run(ray_cluster.jobs, double("leave", tmp_path)))


def test_a_job_that_was_left_behind_is_stopped_before_the_next_of_its_place(
    ray_cluster: Cluster, tmp_path: Path
) -> None:
    first = threading.Thread(target=run, args=(ray_cluster.jobs, double("hang", tmp_path)), daemon=True)
    first.start()
    deadline = time.monotonic() + PATIENCE
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    hanging = psutil.Process(int((tmp_path / "pid").read_text()))
    assert figures(run(ray_cluster.jobs, double("succeed", tmp_path)))["n"] == 3
    psutil.wait_procs([hanging], timeout=PATIENCE)
    assert not hanging.is_running()
    first.join(PATIENCE)


def test_where_no_cluster_is_the_step_says_what_to_do(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    said = failure(run(f"http://127.0.0.1:{port}", double("succeed", tmp_path)))
    assert said.startswith(f"No Ray cluster takes jobs at http://127.0.0.1:{port}: ")
    assert "compute.ray.address" in said


def generation(tmp_path: Path, cache: Path, count: int, checkpoint: Checkpoint, **more: Any) -> ResponsesSpec:
    """Spec of a worker that answers `count` requests."""
    rows = [
        {
            "prompt_id": f"p{n}",
            "generator": "g",
            "messages": [{"role": "user", "content": f"Tell me a story about the number {n}."}],
            "sampling": Sampling(temperature=0.8, max_tokens=32).model_dump_json(),
            "seed": n,
        }
        for n in range(count)
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=REQUESTS), tmp_path / "requests.parquet")
    return ResponsesSpec(
        input=UPath(tmp_path / "requests.parquet"),
        work=UPath(tmp_path / "work"),
        out=UPath(tmp_path / "out"),
        engine=EngineSpec(checkpoint=checkpoint, cache=cache, device="cpu", profile_seed=1, cluster=RayCluster(**more)),
    )


@pytest.mark.engine
def test_two_replicas_finish_a_plan_though_one_is_killed(
    ray_cluster: Cluster, tmp_path: Path, checkpoint_cache: Path
) -> None:
    checkpoint = load_profile("tiny").checkpoints["smollm2_135m_instruct"].model_copy(update={"replicas": 2})
    spec = generation(tmp_path, checkpoint_cache, 80, checkpoint, in_flight=24)
    finished, killed = FinishedRequests(UPath(tmp_path / "work")), list[int]()

    def kill_one() -> None:
        while True:
            replicas = [
                p for p in psutil.process_iter(["cmdline"]) if "ray::Replica" in " ".join(p.info["cmdline"] or [])
            ]
            if len(replicas) == 2 and len(finished.keys()) > 10:
                killed.append(replicas[0].pid)
                replicas[0].kill()
                return
            time.sleep(0.2)

    killer = threading.Thread(target=kill_one, daemon=True)
    killer.start()
    done = figures(run(ray_cluster.jobs, spec))
    assert killed
    assert (done["answered"], done["reused"], done["refused"]) == (80, 0, {})
    answers = pq.read_table(tmp_path / "out" / "answers.parquet")
    assert len(set(answers["request_key"].to_pylist())) == 80
    assert all(answers["text"].to_pylist())
    rows = [pq.read_table(path) for path in sorted((tmp_path / "work").glob("part-*.parquet"))]
    assert sum(map(len, rows)) == 80, "nothing is kept twice"

    # all is finished: the next run starts no engine
    again = figures(run(ray_cluster.jobs, spec))
    assert (again["answered"], again["reused"], again["start_seconds"]) == (0, 80, 0)


@pytest.mark.engine
def test_replicas_that_never_stand_end_with_the_reason(
    ray_cluster: Cluster, tmp_path: Path, checkpoint_cache: Path
) -> None:
    """A model folder without weights: each replica dies at its start."""
    whole = resolve(load_profile("tiny").checkpoints["smollm2_135m_instruct"], checkpoint_cache)
    folder = shutil.copytree(whole, tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors"))
    spec = generation(tmp_path, tmp_path, 2, Checkpoint(folder=str(folder), licence="none"), deaths=1)
    said = failure(run(ray_cluster.jobs, spec))
    assert "RuntimeError: replicas that died in a row before anything was answered: 1; the last one w" in said
    assert "Cannot find any model weights" in said


def test_a_cluster_that_goes_away_is_told(shared_cluster: SharedCluster, ray_cluster: Cluster, tmp_path: Path) -> None:
    results = list[dg.ExecuteInProcessResult]()
    step = threading.Thread(target=lambda: results.append(run(ray_cluster.jobs, double("hang", tmp_path))), daemon=True)
    step.start()
    deadline = time.monotonic() + PATIENCE
    while not (tmp_path / "pid").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    shared_cluster.take_away()
    step.join(PATIENCE)
    assert f"The cluster at {ray_cluster.jobs} went away: " in failure(results[0])
