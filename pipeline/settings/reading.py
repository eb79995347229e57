"""Reading profiles from YAML. A wrong key or value is refused with the file, the line, the place and what is allowed there."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from pipeline.settings.profile import Profile
from pipeline.settings.section import PROFILES, ProfileError


def load_profile(name: str | os.PathLike[str] | None = None) -> Profile:
    """Read a profile by name or path; without one, what `PIPELINE_PROFILE` says, else `tiny`.

    Raises `ProfileError` with file, line, place and what is allowed.
    """
    chain = _read_chain(_find(os.fspath(name or os.environ.get("PIPELINE_PROFILE") or "tiny")))
    merged: dict[str, Any] = {}
    for document in reversed(chain):
        merged = _merge(merged, document.values)
    try:
        return Profile.model_validate(merged)
    except ValidationError as error:
        lines = [_describe(chain, merged, problem) for problem in error.errors()]
        raise ProfileError("\n".join(lines)) from None


class _Document:
    def __init__(self, path: Path) -> None:
        self.path = path
        text = path.read_text(encoding="utf-8")
        try:
            self.node = yaml.compose(text, Loader=yaml.SafeLoader)
            self.values: dict[str, Any] = yaml.safe_load(text) or {}
        except yaml.YAMLError as error:
            raise ProfileError(f"{path}: not YAML: {error}") from None
        if not isinstance(self.values, dict):
            raise ProfileError(f"{path}: a profile is a mapping of sections, not a {type(self.values).__name__}")
        self.base = self.values.pop("extends", None)

    def line(self, place: Sequence[str | int]) -> tuple[int, int]:
        """Depth reached on the way to a place, and its line."""
        node, line, depth = self.node, 1, 0
        for step in place:
            if isinstance(node, yaml.MappingNode):
                found = next(((k, v) for k, v in node.value if k.value == str(step)), None)
                if found is None:
                    break
                line, node = found[0].start_mark.line + 1, found[1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
                node = node.value[step]
                line = node.start_mark.line + 1
            else:
                break
            depth += 1
        return depth, line


def _find(name: str) -> Path:
    path = Path(name) if name.endswith((".yaml", ".yml")) or os.sep in name else PROFILES / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in PROFILES.glob("*.yaml")))
        raise ProfileError(
            f"no profile {name!r} ({path} is not a file). Profiles here: {known}; or give a path to a .yaml file"
        )
    return path


def _read_chain(path: Path) -> list[_Document]:
    chain = [_Document(path)]
    while chain[-1].base is not None:
        base = _find(str(chain[-1].base))
        if any(base.samefile(document.path) for document in chain):
            raise ProfileError(f"{chain[-1].path}: extends: {chain[-1].base!r} extends itself")
        chain.append(_Document(base))
    return chain


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        known = merged.get(key)
        if isinstance(known, dict) and value is None:  # takes away what the other profile has
            del merged[key]
            continue
        merged[key] = _merge(known, value) if isinstance(known, dict) and isinstance(value, dict) else value
    return merged


def _describe(chain: Sequence[_Document], values: Any, problem: Any) -> str:
    place: list[str | int] = []
    for step in problem["loc"]:
        present = isinstance(values, dict) and step in values
        if (
            present or step not in _VARIANTS
        ):  # pydantic puts the variant of a union among the steps; the file doesn't have it
            place.append(step)
            values = values[step] if present else None if isinstance(values, dict) else values
    document = max(chain, key=lambda d: d.line(place)[0])
    where = f"{document.path}:{document.line(place)[1]}: {'.'.join(map(str, place)) or 'profile'}"
    if problem["type"] == "extra_forbidden":
        allowed = _allowed(place[:-1], problem["loc"][:-1])
        return f"{where}: unknown key; allowed here: {allowed}"
    if problem["type"] == "missing":
        return f"{where}: is missing"
    message = problem["msg"].removeprefix("Value error, ")
    given = problem.get("input")
    return f"{where}: {message}" + (f" (given: {given!r})" if isinstance(given, str | int | float | bool) else "")


_VARIANTS = {
    "next_user_turn",
    "reward_model",
    "sharegpt",
    "files",
    "hub",
    "simulated",
    "helpsteer2",
    "helpsteer",
    "oasst",
    "hh_rlhf",
    "models",
    "builtin",
    "collected",
    "file",
    "[key]",
}


def _allowed(place: Sequence[str | int], variants: Sequence[str | int]) -> str:
    """Keys that the schema allows at a place."""
    schema: dict[str, Any] = Profile.model_json_schema()
    node = schema
    for step in place:
        node = _resolve(schema, node, variants)
        node = (
            node.get("properties", {}).get(step)
            or next(iter(node.get("patternProperties", {}).values()), None)
            or node.get("additionalProperties")
            or {}
        )
    return ", ".join(_resolve(schema, node, variants).get("properties", {})) or "nothing"


def _resolve(schema: Mapping[str, Any], node: Any, variants: Sequence[str | int]) -> dict[str, Any]:
    while True:
        if "$ref" in node:
            node = schema["$defs"][node["$ref"].rsplit("/", 1)[1]]
        elif "discriminator" in node:
            mapping = node["discriminator"]["mapping"]
            kind = next((v for v in reversed(variants) if v in mapping), next(iter(mapping)))
            node = {"$ref": mapping[kind]}
        elif "allOf" in node or "anyOf" in node:  # the other of `anyOf` is null
            node = node.get("allOf", node.get("anyOf"))[0]
        else:
            return dict(node)
