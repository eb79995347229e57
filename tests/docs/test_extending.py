"""docs/extending.md, followed to the letter in a copy of the project: each extension that it shows is there and works."""

import os
import re
import shutil
import subprocess
import sys
from itertools import takewhile
from pathlib import Path

import pytest

from tests.docs.extended import USES
from tests.docs.pages import HEADING, PROJECT, Code, blocks

PAGE = PROJECT / "docs/extending.md"
FILE = re.compile(r"# ([\w./]+)")
PLACE = re.compile(r"# ([\w./]+), (instead of|below|above): (.+)")
LINT = "import sys; sys.path.insert(0, '.'); from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
COPIED = ("pipeline", "assets", "resources", "tests", "measurements")

pytestmark = pytest.mark.together


def section(block: Code) -> str:
    """The heading that a block of the page stands under."""
    above = PAGE.read_text().splitlines()[: block.line]
    return next(found[1] for line in reversed(above) if line.startswith("## ") and (found := HEADING.match(line)))


def follow(tree: Path, block: Code) -> None:
    """Write the file that a block is, or the line that it registers something by."""
    said, _, text = block.text.partition("\n")
    if whole := FILE.fullmatch(said):
        path = tree / whole[1]
        assert not path.exists()
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return
    place = PLACE.fullmatch(said)
    assert place, f"{block}: names no file, and no place"
    path, lines = tree / place[1], (tree / place[1]).read_text().splitlines()
    (at,) = (n for n, line in enumerate(lines) if line.strip() == place[3])
    indent = "".join(takewhile(str.isspace, lines[at]))
    new = [indent + line for line in text.splitlines()]
    before, after = {"instead of": (at, at + 1), "below": (at + 1, at + 1), "above": (at, at)}[place[2]]
    path.write_text("\n".join([*lines[:before], *new, *lines[after:]]) + "\n")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with all that the page adds."""
    folder = tmp_path_factory.mktemp("tree")
    for package in COPIED:
        shutil.copytree(PROJECT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROJECT / "pyproject.toml", folder)
    for block in blocks(PAGE):
        if block.language in ("python", "text"):
            follow(folder, block)
    return folder


def run(tree: Path, *arguments: str) -> None:
    env = {**os.environ, "PYTHONPATH": str(tree)}
    done = subprocess.run([sys.executable, *arguments], cwd=tree, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("what", USES)
def test_what_the_page_adds_works(tree: Path, tmp_path: Path, what: str) -> None:
    for block in blocks(PAGE):
        if block.language == "yaml" and section(block) == what:
            (tmp_path / "profile.yaml").write_text(f"extends: tiny\n{block.text}")
    run(tree, "-m", "tests.docs.extended", what, str(tmp_path))


def test_the_import_contracts_hold_with_what_the_page_adds(tree: Path) -> None:
    run(tree, "-c", LINT)


def test_the_table_counts_files_and_lines_as_they_are() -> None:
    counted = re.findall(r"^\| \[(.+?)\]\(.+?\) \| (\d) \| (\d)", PAGE.read_text(), re.MULTILINE)
    assert len(counted) == 5
    for what, files, lines in counted:
        mine = [block for block in blocks(PAGE) if block.language in ("python", "text") and section(block) == what]
        registering = [block for block in mine if PLACE.match(block.text)]
        assert len(mine) - len(registering) == int(files)
        assert [block.text.count("\n") for block in registering] == [2] * int(lines), "a place, and a line"
