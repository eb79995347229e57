import os
import subprocess
import sys
from pathlib import Path

from pipeline.settings import PROJECT


def test_a_profile_that_cannot_be_used_is_told_in_a_line(tmp_path: Path) -> None:
    profile = tmp_path / "wrong.yaml"
    profile.write_text("extends: tiny\nrecipe: 3\n")
    env = {**os.environ, "PIPELINE_PROFILE": str(profile)}
    command = [sys.executable, "-m", "pipeline.operating", "run"]
    done = subprocess.run(command, env=env, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert f"{profile}:2: recipe: unknown key; allowed here: name, store" in done.stdout.replace("\n", "")
