"""Nothing on the pages is out of date: links, profiles, commands, options, paths, the graph, a figure that a command prints."""

import ast
import json
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from pipeline.settings import PROFILES, Profile, load_profile
from tests.docs import commands
from tests.docs.pages import PAGES, PROJECT, README, Code, anchors, blocks, inline, links

BLOCKS = [block for page in PAGES for block in blocks(page)]
CODE = [code for page in PAGES for code in inline(page)]
COMMANDS = dict(
    found for block in BLOCKS if block.language == "sh" for found in commands.commands_of(block)
) | dict(
    found for code in CODE if commands.INLINE.match(code.text) and "<" not in code.text for found in commands.commands_of(code)
)  # fmt: skip
LANGUAGES = {"sh", "yaml", "jsonl", "python", "mermaid", "text"}
"""Of fenced blocks: the first four are checked by what stands in them."""
PATH = re.compile(r"(pipeline|assets|resources|tests|measurements|requirements|docs)/[\w./-]*")
MODULE = re.compile(r"(pipeline|assets|resources|measurements)(\.\w+)+")
GRAPH = json.loads((PROJECT / "tests/orchestration/graph.json").read_text())


def test_the_readme_stays_short() -> None:
    assert README.stat().st_size < 9_000


# ---------------------------------------------------------------------------------------------------------------------------- links


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_within_the_project_leads_somewhere(page: Path) -> None:
    for line, target in links(page):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        other = (page.parent / name).resolve() if name else page
        assert other.is_file(), f"{page.name}:{line}: {target}: no such file"
        if anchor:
            assert anchor in anchors(other), f"{page.name}:{line}: {target}: no such heading"


def test_every_page_can_be_reached_from_the_readme() -> None:
    linked = {(README.parent / target.partition("#")[0]).resolve() for _, target in links(README)}
    assert {page for page in PAGES if page != README and page.name != "index.md"} <= linked


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


def test_the_site_builds_with_a_page_for_every_page(site: Path) -> None:
    assert {page.stem for page in PAGES if page != README} <= {page.stem for page in site.glob("*.html")}


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    for page in site.glob("*.html"):
        text = page.read_text()
        loaded = re.findall(r"""<(?:script|img|iframe|link)\b[^>]*\b(?:src|href)=["']?((?:https?:)?//[^"'> ]+)""", text)
        assert not loaded, f"{page.name} loads {loaded}"
        assert 'class="mermaid"' not in text, f"{page.name}: Material would load mermaid from a CDN"


# --------------------------------------------------------------------------------------------------------------------------- blocks


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_every_block_is_of_a_known_language(block: Code) -> None:
    assert block.language in LANGUAGES
    if block.language == "jsonl":
        for line in block.text.splitlines():
            json.loads(line)
    if block.language == "python":
        compile(block.text, str(block), "exec")


PROFILES_SHOWN = [b for b in BLOCKS if b.language == "yaml" and b.page.name != "extending.md"]
"""Those of that page name what it adds: tests/docs/test_extending.py loads them."""


@pytest.mark.parametrize("block", PROFILES_SHOWN, ids=str)
def test_every_profile_on_the_pages_is_valid(block: Code, tmp_path: Path) -> None:
    values = yaml.safe_load(block.text)
    assert set(values) <= {"extends", *Profile.model_fields}, "this is no profile, nor a part of one"
    whole = block.text if "extends" in values else f"extends: tiny\n{block.text}"
    (tmp_path / "shown.yaml").write_text(whole)
    load_profile(tmp_path / "shown.yaml")


@pytest.mark.parametrize("name", sorted(path.stem for path in PROFILES.glob("*.yaml")))
def test_every_profile_that_ships_is_valid_and_described(name: str) -> None:
    assert load_profile(name).name == name
    assert f"| `{name}`" in (PROJECT / "docs/own-data.md").read_text()


# ------------------------------------------------------------------------------------------------------------------------- commands


@pytest.mark.parametrize("place", COMMANDS, ids=[place[:90] for place in COMMANDS])
def test_every_command_can_be_run_as_it_stands(place: str) -> None:
    commands.check(COMMANDS[place])


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("curl example.org", "not checked"),
        ("make dmo", "dmo"),
        ("make demo PYTHN=x", "takes no PYTHN"),
        ("HELPSTEER_ACCEPT_TERM=gemma make demo", "HELPSTEER_ACCEPT_TERM"),
        ("HELPSTEER_ACCEPT_TERMS=lama make demo", "no checkpoint has such terms"),
        ("PIPELINE_PROFILE=nowhere.yaml make demo", "no page has a profile"),
        (".venv/bin/python -m pipeline.annotation consensus a.csv b.csv", "there is no"),
        (".venv/bin/python -m pipeline.annotations consenus a.csv b.csv", "invalid choice"),
        (".venv/bin/python -m pipeline.annotations agreement a.csv --jsn", "unrecognized arguments"),
        (".venv/bin/python -m pipeline.reward_model train a.jsonl model/ --recipe nothing", "no recipe nothing"),
        (".venv/bin/pre-commit instal", "instal"),
        (".venv/bin/pre-commit install --hok-type x", "no option --hok-type"),
        (".venv/bin/no-such-program", "no program"),
    ],
)
def test_a_command_that_is_wrong_or_of_an_unknown_kind_is_refused(command: str, said: str) -> None:
    (words,) = commands.words_of(command)
    with pytest.raises((AssertionError, ValueError), match=re.escape(said)):
        commands.check(words)


def test_every_option_named_in_the_text_is_one_of_the_projects() -> None:
    sources = [p.read_text() for folder in ("pipeline", "measurements") for p in (PROJECT / folder).rglob("*.py")]
    known = set(re.findall(r'"(--[a-z][a-z0-9-]*)"', "\n".join(sources))) | {"--help"}
    named = [(str(code), option) for code in CODE for option in re.findall(r"(?<!\S)--[a-z][\w-]*", code.text)]
    assert not [found for found in named if found[1] not in known]


def test_the_plan_that_is_shown_is_the_plan_that_is_printed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.reward_model.__main__ import console, main

    monkeypatch.setattr(console, "width", 130)
    (shown,) = (block for block in BLOCKS if block.text.startswith("Work\n"))
    command = next(words for place, words in COMMANDS.items() if f"{shown.page.name}:" in place and "--rows" in words)
    assert main(command[3:]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line for line in shown.text.splitlines() if line != "..." and line not in printed] == []


def test_measurements_import_each_other_as_a_package() -> None:
    siblings = {path.stem for path in (PROJECT / "measurements").glob("*.py")}
    for path in (PROJECT / "measurements").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            assert not (isinstance(node, ast.ImportFrom) and node.module in siblings), f"{path.name}:{node.lineno}"


# ---------------------------------------------------------------------------------------------------------------------------- names


def test_every_path_and_module_named_in_the_text_exists() -> None:
    missing = []
    for code in CODE:
        if PATH.fullmatch(code.text):
            there = (PROJECT / code.text).exists()
        elif MODULE.fullmatch(code.text):
            path = PROJECT.joinpath(*code.text.split("."))
            there = path.is_dir() or path.with_suffix(".py").is_file()
        else:
            continue
        if not there:
            missing.append(f"{code}: {code.text}")
    assert not missing


def test_the_tree_in_the_architecture_is_the_projects() -> None:
    (tree,) = (block for block in BLOCKS if block.text.startswith("pipeline/ "))
    base, missing = PROJECT, []
    for line in tree.text.splitlines():
        names = re.split(r" {3,}", line.strip())[0].split()
        if not line.startswith(" "):
            base = PROJECT / names[0]
            names = [""]
        missing += [str(base / name) for name in names if not (base / name).exists()]
    assert not missing


def test_the_graph_in_the_readme_is_the_graph_on_record() -> None:
    (graph,) = (block for block in blocks(README) if block.language == "mermaid")
    text = re.sub(r'\["(.+?)"\]', "", graph.text)
    edges = set[tuple[str, str]]()
    for line in text.splitlines():
        nodes = re.findall(r"\w+", line.partition("-.")[0]) if "-->" in line else []
        edges |= set(pairwise(nodes))
    assert edges
    on_record = {(kind(d), kind(asset)) for asset, said in GRAPH.items() for d in said["deps"]}
    assert not edges - on_record
    assert {node for edge in edges for node in edge} == {kind(asset) for asset in GRAPH}


def test_the_table_of_assets_has_every_asset() -> None:
    text = (PROJECT / "docs/architecture.md").read_text().partition("## The assets")[2].partition("\n## ")[0]
    named = {name for row in text.splitlines() if row.startswith("| `") for name in re.findall(r"`([^`]+)`", row)}
    assert {kind(name) for name in named} == {kind(asset) for asset in GRAPH} | {"hub_dataset", "policy_rewards"}


def kind(asset: str) -> str:
    """An asset's key, with the generators' as one."""
    return asset.partition("/")[0]
