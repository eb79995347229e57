"""The assets, one module a stage. Each has `build(profile)`, which makes its definitions; a body reads, calls `pipeline`, publishes."""

from collections.abc import Sequence
from typing import Any

import dagster as dg
from pydantic import BaseModel

from pipeline import gate
from pipeline.rules import Rule
from pipeline.settings import digest

OWNERS = ["team:data"]
ENGINE_POOL = "engine"
"""Pool of the steps that hold an accelerator, or all cores: one at a time by default."""


def code_version(version: str, *parts: BaseModel | str | int | float) -> str:
    """Version of an asset: of its code, and of the part of the profile that it depends on."""
    return f"{version}-{digest([p.model_dump(mode='json') if isinstance(p, BaseModel) else p for p in parts])}"


def options(
    key: str, stage: str, rules: Sequence[Rule], version: str, deps: Sequence[str] = (), kinds: Sequence[str] = ("parquet",), **more: Any
) -> dict[str, Any]:
    """Arguments of `@dg.asset` that every asset here has."""
    return {
        "key": gate.asset_key(key),
        "deps": [gate.asset_key(d) for d in deps],
        "group_name": stage,
        "owners": OWNERS,
        "kinds": set(kinds),
        "code_version": version,
        "check_specs": gate.check_specs(key, rules),
        **more,
    }


DELIVERIES = dg.DynamicPartitionsDefinition(name="delivery")
"""One partition a batch of tasks that is sent to annotators."""
