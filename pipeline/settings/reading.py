"""Reading profiles from YAML. A wrong key or value is refused with the file, the line, the place and what is allowed there."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from pipeline.settings.profile import Profile
from pipeline.settings.section import PROFILES, ProfileError

Step = str | int
"""A key of a mapping, or a position in a list; several lead to a place in a profile."""


def load_profile(name: str | os.PathLike[str] | None = None) -> Profile:
    """Read a profile by name or path; without one, what `PIPELINE_PROFILE` says, else `tiny`.

    Raises `ProfileError` with file, line, place and what is allowed.
    """
    documents = _with_bases(_find(os.fspath(name or os.environ.get("PIPELINE_PROFILE") or "tiny")))
    merged: dict[str, Any] = {}
    for document in reversed(documents):
        merged = _merge(merged, document.values)
    try:
        return Profile.model_validate(merged)
    except ValidationError as error:
        schema = Profile.model_json_schema()
        refused = [_refusal(documents, schema, problem) for problem in error.errors()]
        raise ProfileError("\n".join(refused)) from None


# ------------------------------------------------------------------------------------------------------------------------ documents


class _Document:
    def __init__(self, path: Path) -> None:
        self.path = path
        text = path.read_text(encoding="utf-8")
        try:
            self.node = yaml.compose(text, Loader=yaml.SafeLoader)
            self.values: dict[str, Any] = yaml.safe_load(text) or {}
        except yaml.YAMLError as error:
            raise ProfileError(f"{path}: is not YAML: {error}") from None
        if not isinstance(self.values, dict):
            raise ProfileError(f"{path}: a profile is a mapping of sections, not a {type(self.values).__name__}")
        self.base = self.values.pop("extends", None)

    def line(self, place: Sequence[Step]) -> tuple[int, int]:
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
            f"There is no profile {name!r} ({path} is not a file). Profiles here: {known}; or give a path to a .yaml file"
        )
    return path


def _with_bases(path: Path) -> list[_Document]:
    """A document, the one that it extends, the one that this extends, and so on."""
    documents = [_Document(path)]
    while documents[-1].base is not None:
        base = _find(str(documents[-1].base))
        if any(base.samefile(document.path) for document in documents):
            raise ProfileError(f"{documents[-1].path}: extends: {documents[-1].base!r} extends itself")
        documents.append(_Document(base))
    return documents


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        known = merged.get(key)
        if isinstance(known, dict) and value is None:  # takes away what the other profile has
            del merged[key]
            continue
        merged[key] = _merge(known, value) if isinstance(known, dict) and isinstance(value, dict) else value
    return merged


# ------------------------------------------------------------------------------------------------------------------------- refusals


def _refusal(documents: Sequence[_Document], schema: Mapping[str, Any], problem: ErrorDetails) -> str:
    place, allowed = _place(schema, problem["loc"])
    document = max(documents, key=lambda d: d.line(place)[0])
    where = f"{document.path}:{document.line(place)[1]}: {'.'.join(map(str, place)) or 'profile'}"
    if problem["type"] == "extra_forbidden":
        return f"{where}: unknown key; allowed here: {', '.join(allowed)}"
    if problem["type"] == "missing":
        return f"{where}: is missing"
    message, given = problem["msg"].removeprefix("Value error, "), problem["input"]
    return f"{where}: {message}" + (f" (given: {given!r})" if isinstance(given, str | int | float | bool) else "")


_KEY = "[key]"
"""Last step of pydantic's way to a key that is itself wrong."""


def _place(schema: Mapping[str, Any], way: Sequence[Step]) -> tuple[list[Step], list[str]]:
    """Pydantic's way to a value as the file has it, and the keys that the models allow beside its last step.

    On its way pydantic also names the variant of a union that the value was taken for; the file has no such step.
    """
    node: Mapping[str, Any] = schema
    place, allowed = list[Step](), list[str]()
    for step in way[:-1] if way[-1:] == (_KEY,) else way:
        node = _resolved(schema, node)
        if "discriminator" in node:
            node = {"$ref": node["discriminator"]["mapping"][step]}
        else:
            place.append(step)
            allowed = list(node.get("properties", {}))
            node = _inside(node, step)
    return place, allowed


def _resolved(schema: Mapping[str, Any], node: Mapping[str, Any]) -> Mapping[str, Any]:
    """A node without references; of a value that may be null, that of the value."""
    while "$ref" in node or "anyOf" in node:
        node = schema["$defs"][node["$ref"].rsplit("/", 1)[1]] if "$ref" in node else node["anyOf"][0]
    return node


def _inside(node: Mapping[str, Any], step: Step) -> Mapping[str, Any]:
    """The node of a value in a mapping or a list; an empty one where the models know no such value."""
    named = node.get("properties", {}).get(step)
    of_any_name = next(iter(node.get("patternProperties", {}).values()), None)
    inside: Mapping[str, Any] = named or of_any_name or node.get("additionalProperties") or node.get("items") or {}
    return inside
