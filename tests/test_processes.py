"""Processes that talk by lines."""

import os
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from pipeline.processes import Start, cores, heard, share_of_machine, threads

TALKS = """
from pipeline.processes import done, say, taking_part
with taking_part("one: "):
    say("it\\nbegins")
    print("a line of a library")
    done("1 2")
"""
FAILS = TALKS + "    raise ValueError('too small')"
DIES = "import os, signal; print('its last words', flush=True); os.kill(os.getpid(), signal.SIGKILL)"
WAITS = "import pathlib, os, sys, time; pathlib.Path(sys.argv[1]).write_text(str(os.getpid())); time.sleep(600)"


def start(script: str, *arguments: str) -> Start:
    return Start("process 1", ["-c", script, *arguments])


def listened(starts: Sequence[Start]) -> tuple[list[str], list[str]]:
    said = list[str]()
    return list(heard(starts, said.append)), said


def test_what_is_done_and_what_is_for_the_log_are_told_apart() -> None:
    assert listened([start(TALKS), start(TALKS)]) == (["1 2"] * 2, ["it begins"] * 2)


def test_why_a_process_fails_is_said() -> None:
    with pytest.raises(RuntimeError, match=r"^process 1 ended with status 1:\none: ValueError: too small$"):
        listened([start(FAILS)])


def test_of_a_process_that_is_killed_the_last_lines_are_said_and_the_others_end(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="process 1 ended with status -9:\nits last words"):
        listened([start(WAITS, str(tmp_path / "pid")), start(DIES)])
    if (tmp_path / "pid").exists() and (pid := (tmp_path / "pid").read_text()):
        assert not psutil.pid_exists(int(pid))


def test_who_stops_to_listen_ends_them(tmp_path: Path) -> None:
    listening = heard([start(WAITS, str(tmp_path / "pid")), start(TALKS)], print)
    assert next(listening) == "1 2"
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        time.sleep(0.05)
    listening.close()
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))


def test_processes_side_by_side_have_accelerators_and_cores_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert share_of_machine(1, 2) == {"CUDA_VISIBLE_DEVICES": "1", "OMP_NUM_THREADS": "4"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    assert [share_of_machine(n, 3)["CUDA_VISIBLE_DEVICES"] for n in range(3)] == ["4", "6", "4"]


@pytest.mark.parametrize(
    ("written", "expected"),
    [("max 100000", 8), ("150000 100000", 2), ("20000 100000", 1), ("6400000 100000", 8), (None, 8)],
)
def test_cores_are_as_many_as_a_container_s_quota_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str | None, expected: int
) -> None:
    if written:
        (tmp_path / "cpu.max").write_text(written)
    monkeypatch.setattr("pipeline.processes.QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert cores() == expected


def test_threads_that_compute_soon_sleep_while_they_wait_unless_the_environment_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr("pipeline.processes.QUOTA", tmp_path / "cpu.max")
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    assert threads() == {"GOMP_SPINCOUNT": "1000"}
    (tmp_path / "cpu.max").write_text("200000 100000")
    assert threads() == {"GOMP_SPINCOUNT": "1000", "OMP_NUM_THREADS": "2"}
    monkeypatch.setenv("GOMP_SPINCOUNT", "0")
    assert threads()["GOMP_SPINCOUNT"] == "0"
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    assert threads() == {"OMP_NUM_THREADS": "2"}
