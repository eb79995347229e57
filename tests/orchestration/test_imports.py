"""The import contracts hold, and fail where a stage looks ahead: lazily, too."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
LINT = "import sys; sys.path.insert(0, '.'); from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
LAZY = """

def _look_ahead() -> object:
    from {} import {}

    return {}
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the project that imports can be planted in."""
    for package in ("pipeline", "assets", "resources"):
        shutil.copytree(PROJECT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROJECT / "pyproject.toml", tmp_path)
    return tmp_path


def lint(tree: Path) -> tuple[bool, str]:
    """Whether all contracts are kept, and what is said."""
    done = subprocess.run([sys.executable, "-c", LINT], cwd=tree, capture_output=True, text=True)
    return done.returncode == 0, done.stdout + done.stderr


def plant(tree: Path, file: str, package: str, name: str) -> None:
    path = tree / file
    path.write_text(path.read_text() + LAZY.format(package, name, name))


def test_the_contracts_are_kept(tree: Path) -> None:
    kept, said = lint(tree)
    assert kept, said
    assert "0 broken" in said


@pytest.mark.parametrize(
    ("file", "package", "name", "said"),
    [
        ("pipeline/prompts/sampling.py", "pipeline.dataset", "build", "pipeline.prompts is not allowed to import pipeline.dataset"),
        ("pipeline/prompts/sampling.py", "pipeline.responses", "plan", "pipeline.prompts is not allowed to import pipeline.responses"),
        ("pipeline/reward_model/sides.py", "pipeline.evaluation", "weights", "pipeline.reward_model is not allowed to import pipeline.evaluation"),
        ("pipeline/models/encoding.py", "pipeline.reward_model", "schema", "pipeline.models is not allowed to import pipeline.reward_model"),
        ("pipeline/store.py", "pipeline", "gate", "pipeline.store is not allowed to import pipeline.gate"),
        ("pipeline/dataset/build.py", "resources", "storage", "resources"),
        ("pipeline/dataset/build.py", "dagster", "asset", "dagster"),
        ("pipeline/dataset/schema.py", "pipeline.dataset", "build", "No circle"),
    ],
)  # fmt: skip
def test_a_lazy_import_against_the_stream_breaks_a_contract(
    tree: Path, file: str, package: str, name: str, said: str
) -> None:
    plant(tree, file, package, name)
    kept, told = lint(tree)
    assert not kept
    assert said in told


def test_a_new_package_that_no_contract_knows_is_told(tree: Path) -> None:
    (tree / "pipeline" / "elsewhere").mkdir()
    (tree / "pipeline" / "elsewhere" / "__init__.py").write_text("")
    kept, told = lint(tree)
    assert not kept
    assert "pipeline.elsewhere" in told
