"""The card of a policy: what it came from, what it was tuned on, with whose ratings, under which licences."""

from collections.abc import Mapping
from typing import Any

import yaml

from pipeline.alignment.spec import TuningSpec


def card_of(spec: TuningSpec, start: tuple[str, str], figures: Mapping[str, Any]) -> str:
    """The card in Markdown, with the metadata that the hub reads. start: name and revision of the model that it started from."""
    head = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": [spec.method.kind, *([f"rated-by-{spec.rated_by.replace(' ', '-')}"] if spec.rated_by else [])],
    }
    settings = spec.method.model_dump(mode="json", exclude={"kind"}) | {"origin": spec.origin}
    rows = "\n".join(f"| {name.replace('_', ' ')} | {_cell(value)} |" for name, value in settings.items())
    said = "\n".join(f"| {name.replace('_', ' ')} | {_cell(value)} |" for name, value in figures.items())
    levels = ", ".join(f"{attribute}:{level}" for attribute, level in spec.levels.items())
    steered = (
        f"\nIt is asked for levels of attributes in the system message: "
        f"`Write a response with these attribute values, each from 0 to 4: {levels.replace(', ', ',')}`.\n"
        if levels
        else ""
    )
    licences = ", ".join(dict.fromkeys(spec.licences))
    note = f"\n{spec.ratings_note}\n" if spec.ratings_note else ""
    rewards = f", and its rewards are of the reward model {spec.recipe}" if spec.reward else ""
    return f"""---
{yaml.safe_dump(head, sort_keys=False).strip()}
---
# {spec.name}: {spec.method.kind}

It started from {start[0]} (revision {start[1]}){rewards}. Licences of the model and of the data:
{licences}.
{note}{steered}
| setting | value |
|---|---|
{rows}

| figure | value |
|---|---|
{said}
"""


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
