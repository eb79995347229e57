"""The record of asset versions, `versions.json`: each asset's version beside a hash of the code that makes it, and the defaults of its settings.

A version that stands still while its code moves would leave old results looking fresh. `python -m tests.orchestration.versions` writes the record
anew; where code moved and results are the same, `--same WHY` says so in it.
"""

import argparse
import ast
import hashlib
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

import pipeline.definitions
from assets.published import MADE_BY, SECTIONS
from pipeline.settings import Profile, Push, load_profile

PROJECT = Path(__file__).parents[2]
RECORD = Path(__file__).with_name("versions.json")
CARRIERS = ("columns", "gate", "hub", "parts", "partitions", "plots", "settings", "shown", "store", "worker")
"""Modules of `pipeline` that check, keep, carry or show what others make; values of settings are in each version by themselves."""
SHOWING = ("shown", "expectations", "tracking")
"""Modules of a stage that decide what people see of a result, or whether it is published."""
DATA = re.compile(r"[\"']([\w.]+\.(?:jinja|jsonl|html))[\"']")


def profiles() -> dict[str, Profile]:
    """Profiles that have every asset and every way of making one; the first has most."""
    tiny = load_profile("tiny")
    dataset = tiny.dataset.model_copy(update={"push": Push(repo="team/data")})
    return {
        "tiny": tiny.model_copy(update={"dataset": dataset}),
        "published": load_profile("published"),
        "gpu": load_profile("gpu"),
    }


@cache
def assets() -> dict[str, dict[str, Any]]:
    """Each asset's version, the function and modules that make it, and the sections that it depends on; a generator stands for all."""
    found: dict[str, dict[str, Any]] = {}
    for name, profile in profiles().items():
        for spec in pipeline.definitions.build_defs(profile).resolve_all_asset_specs():
            said = {
                "version": str(spec.code_version).partition("-")[0],
                "made by": list(spec.metadata[MADE_BY]),
                "sections": list(spec.metadata[SECTIONS]),
            }
            key = spec.key.path[0]
            if found.get(key, said)["made by"] != said["made by"]:
                key = f"{key} [{name}]"
            found.setdefault(key, said)
    return found


def code_of(made_by: Sequence[str]) -> str:
    """Hash of the syntax trees that make an asset, 12 hex digits: its function with what that calls beside it, its modules with all that they import.

    Comments, docstrings and layout don't count; templates and data files that a module names do.
    """
    body, *modules = made_by
    hashed = hashlib.sha256(function_code(body).encode())
    for module in sorted(closure(modules)):
        hashed.update(f"{module}\0{module_code(module)}".encode())
    return hashed.hexdigest()[:12]


def closure(modules: Iterable[str]) -> set[str]:
    """Modules with those of the project that they import, however deep and wherever in them, but for those that make nothing."""
    found, waiting = set[str](), list(modules)
    while waiting:
        module = waiting.pop()
        if module not in found and makes(module):
            found.add(module)
            waiting += imports(module)
    return found


def makes(module: str) -> bool:
    """Whether a module of the project decides what a result is."""
    package, _, rest = module.partition(".")
    if package == "resources":
        return rest.startswith("desks")
    return package == "pipeline" and rest.split(".")[0] not in CARRIERS and rest.rpartition(".")[2] not in SHOWING


@cache
def imports(module: str) -> tuple[str, ...]:
    """Modules of the project that a module imports, also within functions, and those that it may import by a name that it makes up."""
    found = []
    for node in ast.walk(ast.parse(source(module))):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            modules = [name for name in inner if is_module(name)]
            found += modules + ([node.module] if len(modules) < len(inner) and is_module(node.module) else [])
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "import_module":
            found += named(node.args[0])
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if is_module(alias.name)]
    return tuple(found)


def named(name: ast.expr) -> list[str]:
    """Modules that a name may be of, f"package.begin{end}": all in the package that begin so."""
    assert isinstance(name, ast.JoinedStr), "a module is imported by a name that nobody can read here"
    package, _, begin = ast.literal_eval(name.values[0]).rpartition(".")
    return [f"{package}.{file.stem}" for file in sorted(PROJECT.joinpath(*package.split(".")).glob(f"{begin}*.py"))]


@cache
def module_code(module: str) -> str:
    """A module's syntax tree as text, with the files beside it that it names."""
    text = source(module)
    named = [file_of(module).with_name(name) for name in sorted(set(DATA.findall(text)))]
    return "\0".join([plain(ast.parse(text)), *(file.read_text() for file in named if file.is_file())])


@cache
def function_code(name: str) -> str:
    """Syntax tree of an asset's function, `assets.stage.outer.<locals>.function`, and of the functions of its module that it calls."""
    _, stage, *path = name.split(".")
    tree = ast.parse(source(f"assets.{stage}"))
    beside = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    function: ast.AST = tree
    for step in path:
        if step != "<locals>":
            function = next(n for n in ast.walk(function) if isinstance(n, ast.FunctionDef) and n.name == step)
    found, waiting = {name: function}, [function]
    while waiting:
        called = {node.id for node in ast.walk(waiting.pop()) if isinstance(node, ast.Name)} & set(beside) - set(found)
        found |= {one: beside[one] for one in called}
        waiting += [beside[one] for one in called]
    return "\0".join(plain(without_decorators(found[one])) for one in sorted(found))


def without_decorators(function: ast.AST) -> ast.AST:
    """A function without what is declared of it: version, rules, settings."""
    return ast.FunctionDef(**{**dict(ast.iter_fields(function)), "decorator_list": []})


def plain(tree: ast.AST) -> str:
    """A syntax tree as text, without docstrings and other texts that stand by themselves."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [n for n in body if not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant))]  # type: ignore[attr-defined]
    return ast.dump(tree)


def source(module: str) -> str:
    """A module's text."""
    return file_of(module).read_text(encoding="utf-8")


def is_module(name: str) -> bool:
    """Whether the project has a module of that name."""
    return name.split(".")[0] in ("pipeline", "resources") and file_of(name).is_file()


def file_of(module: str) -> Path:
    """The file of a module of the project."""
    path = PROJECT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def defaults_of(section: type[BaseModel], found: dict[str, dict[str, Any]] | None = None) -> dict[str, dict[str, Any]]:
    """Defaults of a section's fields and of those of the sections in it, by section; a field without a default has none here."""
    found = {} if found is None else found
    name = f"{section.__module__}.{section.__qualname__}"
    if name not in found:
        found[name] = {
            field: json.loads(json.dumps(info.get_default(call_default_factory=True), default=_said))
            for field, info in section.model_fields.items()
            if not info.is_required()
        }
        for info in section.model_fields.values():
            for inner in _sections_in(info.annotation):
                defaults_of(inner, found)
    return found


def _said(value: object) -> Any:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else str(value)


def _sections_in(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for argument in get_args(annotation) for section in _sections_in(argument)]


def now() -> dict[str, Any]:
    """The record as it would be written now."""
    found, sections = {}, dict[str, dict[str, Any]]()
    for key, said in sorted(assets().items()):
        mine = dict[str, dict[str, Any]]()
        for name in said["sections"]:
            module, _, kind = name.rpartition(".")
            defaults_of(getattr(sys.modules[module], kind), mine)
        sections |= mine
        found[key] = {"version": said["version"], "code": code_of(said["made by"]), "sections": sorted(mine)}
    return {"assets": found, "defaults": dict(sorted(sections.items()))}


def problems(record: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """What the record says otherwise than the tree, and what to do about each; none where all is in order."""
    said = []
    for key, asset in current["assets"].items():
        known = record["assets"].get(key)
        if known is None:
            said.append(f"{key} is not on record: write the record anew")
            continue
        if known["version"] != asset["version"]:
            said.append(
                f"{key} has version {asset['version']}, and {known['version']} on record: write the record anew"
            )
            continue
        moved = ["its code"] if known["code"] != asset["code"] else []
        moved += [
            f"the default of {section}.{field}"
            for section in asset["sections"]
            for field, value in record["defaults"].get(section, {}).items()
            if current["defaults"][section].get(field, "gone") != value
        ]
        if moved:
            said.append(
                f"{key}: {', '.join(moved)} is another one, and its version is still {asset['version']}. Where results change, raise the version in "
                "assets/; where they are the same, say why: python -m tests.orchestration.versions --same WHY"
            )
    gone = set(record["assets"]) - set(current["assets"])
    return said + [f"{key} is on record, and there is no such asset: write the record anew" for key in sorted(gone)]


def main(arguments: list[str] | None = None) -> int:
    """Write the record; 1 where a version must be raised first, or a reason given."""
    parser = argparse.ArgumentParser(
        "python -m tests.orchestration.versions", description="Write the record of asset versions anew."
    )
    parser.add_argument(
        "--same", metavar="WHY", help="code or defaults moved, and results are the same: for this reason"
    )
    options = parser.parse_args(arguments)
    record, current = json.loads(RECORD.read_text()) if RECORD.is_file() else {"assets": {}, "defaults": {}}, now()
    standing = [line for line in problems(record, current) if "--same" in line]
    if standing and not options.same:
        print("\n".join(standing))
        return 1
    for key, asset in current["assets"].items():
        known = record["assets"].get(key, {})
        same = known.get("version") == asset["version"]
        if same and known.get("code") != asset["code"] and options.same:
            asset["same"] = options.same
        elif same and "same" in known:
            asset["same"] = known["same"]
    RECORD.write_text(json.dumps(current, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
