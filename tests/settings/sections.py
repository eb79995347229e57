"""The sections of a profile as its models have them: where each may stand, and what a typo in it is told."""

from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pipeline.settings import Profile, Section

Step = str | int | dict[str, str]
"""A key, a position, or what a mapping must say to be taken for a variant of a union."""


def sections(model: Any = Profile, way: tuple[Step, ...] = ()) -> Iterator[tuple[tuple[Step, ...], type[Section]]]:
    """Every place of a profile that has a section, and its class: each variant of a union, and what stands in it, too."""
    args = [a for a in get_args(model) if a is not type(None)]
    if isinstance(model, type) and issubclass(model, Section):
        yield way, model
        for name, field in model.model_fields.items():
            yield from sections(field.annotation, (*way, name))
    elif get_origin(model) is Annotated:
        yield from sections(args[0], way)
    elif get_origin(model) in (Union, UnionType):
        for member in args:
            yield from sections(member, (*way, *([{"kind": kind_of(member)}] if len(args) > 1 else [])))
    elif get_origin(model) is dict:
        yield from sections(args[1], (*way, "mine"))
    elif get_origin(model) is tuple:
        yield from sections(args[0], (*way, 0))


def kind_of(section: type[Section]) -> str:
    (kind,) = get_args(section.model_fields["kind"].annotation)
    return str(kind)


def variants() -> list[type[Section]]:
    return [section for way, section in sections() if way and isinstance(way[-1], dict)]


def with_key(way: tuple[Step, ...], key: str) -> Any:
    """A document that has one key at a place."""
    value: Any = {key: 1}
    for step in reversed(way):
        value = {**step, **value} if isinstance(step, dict) else [value] if step == 0 else {step: value}
    return value
