"""Attribute levels that a response is asked for, as a system message has them: generators are asked so, and SteerLM's policies are trained so."""

from collections.abc import Mapping

from pipeline.vocabulary import ATTRIBUTES, Attribute


def system_message(own: str | None, levels: Mapping[Attribute, int]) -> str:
    """A system message: a text of its own, and the attribute levels that are asked for, in SteerLM's form (method: F2); each may be missing."""
    wanted = ",".join(f"{a}:{levels[a]}" for a in ATTRIBUTES if a in levels)
    asked = f"Write a response with these attribute values, each from 0 to 4: {wanted}" if wanted else ""
    return "\n\n".join(filter(None, (own, asked)))
