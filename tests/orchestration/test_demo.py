"""The commands of `python -m pipeline.operating`, up to where they would start real models; the whole run: `tests/e2e`."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from pipeline.settings import PROJECT


def operate(arguments: Sequence[str], **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipeline.operating", *arguments]
    rest = {name: value for name, value in os.environ.items() if name not in ("PIPELINE_PROFILE", "DAGSTER_HOME")}
    return subprocess.run(command, env=rest | env, cwd=PROJECT, capture_output=True, text=True, check=False)


@pytest.fixture
def profile(tmp_path: Path) -> str:
    (tmp_path / "mine.yaml").write_text(f"extends: tiny\nstore: {tmp_path / 'store'}\n")
    return str(tmp_path / "mine.yaml")


def test_a_profile_that_cannot_be_used_is_told_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text("extends: tiny\nrecipe: 3\n")
    wrong = str(tmp_path / "wrong.yaml")
    for done in (operate(["run"], PIPELINE_PROFILE=wrong), operate(["report", "--profile", wrong])):
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
        assert f"{wrong}:2: recipe: unknown key; allowed here: name, store" in done.stdout.replace("\n", "")


def test_a_run_needs_a_place_for_its_records(profile: str) -> None:
    done = operate(["run", "--profile", profile])
    assert done.returncode == 2
    assert (
        done.stdout
        == "The environment variable DAGSTER_HOME names no folder to record runs in: set it, or run `make demo`, which does.\n"
    )


def test_a_report_of_a_store_that_has_nothing_says_what_to_do(profile: str, tmp_path: Path) -> None:
    done = operate(["report"], PIPELINE_PROFILE=profile)
    assert done.returncode == 1
    assert done.stdout.endswith(f"is not in the store {tmp_path / 'store'}: materialize it first\n")
    assert "Traceback" not in done.stderr


def test_the_help_names_the_commands_and_there_is_none_by_default() -> None:
    assert operate([]).returncode == 2
    help_text = operate(["--help"]).stdout
    assert "\n    run  " in help_text
    assert "\n    report  " in help_text
