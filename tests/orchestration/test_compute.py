import multiprocessing
import os
import signal
import time
from pathlib import Path

import dagster as dg
import psutil
from upath import UPath

from pipeline.worker import Spec
from resources.compute import LocalCompute
from tests.helpers import PATIENCE, failure, metadata
from tests.orchestration.doubles import DoubleSpec


def run(out: Path, do: str, kind: type[Spec] = DoubleSpec) -> dg.ExecuteInProcessResult:
    @dg.asset
    def worked(context: dg.AssetExecutionContext, compute: LocalCompute) -> dg.MaterializeResult:
        return dg.MaterializeResult(metadata=compute.run(context, kind(do=do, out=UPath(out))))

    return dg.materialize([worked], resources={"compute": LocalCompute()}, raise_on_error=False)


def test_a_workers_result_and_files_come_back(tmp_path: Path) -> None:
    result = run(tmp_path, "succeed")
    assert result.success
    assert metadata(result, "worked")["n"].value == 3
    assert (tmp_path / "file.txt").read_text() == "done"


def test_a_worker_that_raises_gives_its_reason(tmp_path: Path) -> None:
    assert failure(run(tmp_path, "raise")).startswith(
        f"{DoubleSpec.worker} failed: ValueError: the input has no rows: give it some\n"
    )


def test_a_worker_refuses_a_spec_that_it_does_not_know(tmp_path: Path) -> None:
    class LaterSpec(DoubleSpec):  # as a worker of another version would have it
        do: str
        colour: str = "red"

    assert failure(run(tmp_path, "sleep", LaterSpec)).startswith(
        f"{DoubleSpec.worker} failed: ValueError: {DoubleSpec.worker} can't use its DoubleSpec: "
        "do: Input should be 'succeed', 'raise', 'be killed', 'leave' or 'hang'; colour: Extra inputs are not permitted\n"
    )


def test_a_worker_that_is_killed_is_told_with_signal_and_last_words(tmp_path: Path) -> None:
    said = failure(run(tmp_path, "be killed"))
    assert "was killed by SIGKILL and left no reason. What it had finished is kept." in said
    assert "the last thing that it said" in said


def test_a_worker_that_ends_well_without_a_result_has_failed(tmp_path: Path) -> None:
    assert "ended with status 0 and left no reason" in failure(run(tmp_path, "leave"))


def test_an_earlier_result_in_the_folder_is_not_taken_for_this_one(tmp_path: Path) -> None:
    (tmp_path / "_result.json").write_text('{"n": 9}')
    assert not run(tmp_path, "leave").success


def test_a_worker_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    parent = multiprocessing.get_context("spawn").Process(target=run, args=(tmp_path, "hang"))
    parent.start()
    deadline = time.monotonic() + PATIENCE
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    worker = psutil.Process(int((tmp_path / "pid").read_text()))
    os.kill(int(parent.pid or 0), signal.SIGKILL)
    parent.join()
    psutil.wait_procs([worker], timeout=PATIENCE)
    assert not worker.is_running()
