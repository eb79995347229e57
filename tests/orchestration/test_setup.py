"""The set-up, on machines that can't run the project: doubles of the programs that it asks about the machine stand before them on the path."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("program", "says", "expected"),
    [
        (
            "uname",
            "echo $([ $1 = -s ] && echo Darwin || echo arm64)",
            "this is Darwin on arm64; the locked packages are for Linux on x86_64",
        ),
        ("grep", "exit 1", "this processor has no AVX2, which vLLM's CPU build needs"),
        ("python3.11", "echo 3.13", "python3.11 is Python 3.13; the locked packages are for 3.11"),
        (
            "df",
            'printf "Filesystem blocks used free\\nd 9 9 3000000\\n"',
            "2 GiB are free here; the packages need 5.1 GB",
        ),
    ],
)
def test_a_machine_that_can_not_run_it_is_told_before_anything_is_downloaded(
    tmp_path: Path, program: str, says: str, expected: str
) -> None:
    programs = {"pip": "exit 9", "python3.11": f'exec {sys.executable} "$@"', program: says}
    for name, body in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PYTHON": "python3.11",
        "TORCH_INDEX": "none",
    }
    run = subprocess.run(
        ["bash", "requirements/setup.sh", str(tmp_path / "venv")],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1
    assert run.stderr.startswith(f"set-up: {expected}")
    assert not (tmp_path / "venv").exists()
