"""An asset that is published into the store: what is said of it once, and how its body's result goes through the gate.

A body reads, calls `pipeline`, and returns what it made (`pipeline.gate.Made`); checking, publishing and what the UI shows follow from the
declaration. Explained in docs/architecture.md.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any

import dagster as dg
import pyarrow as pa

from pipeline import gate
from pipeline.gate import Contract, Made
from pipeline.rules import Rule
from pipeline.settings import Section, digest
from pipeline.store import Store, read_table, write_table
from pipeline.worker import Spec
from resources.compute import Compute

OWNERS = ["team:data"]
MADE_BY, SECTIONS = "made by", "sections of the profile"
"""Metadata of a definition: the function and modules that make the asset, and what kinds of section its version depends on."""
Part = Section | str | int | float | bool | None
"""A part of the profile that an asset depends on: a section, or a single value."""


@dataclass(frozen=True)
class Published:
    """What is said of an asset.

    key: in Dagster and in the store, `responses/careful` say. stage: the asset's group. schema: of its table; None for a model's folder.
    rules: what must hold before it is published. version: of the code that makes it; raise it where results change. parts: of the profile
    that results depend on. modules: where results are made, without what they import (tests/orchestration/versions.json has a hash of all
    of it). deps: keys of the assets that it reads. pool: Dagster's, of steps that must not run at the same time.
    """

    key: str
    stage: str
    schema: pa.Schema | None
    rules: Sequence[Rule]
    version: str
    modules: Sequence[str]
    parts: Sequence[Part] = ()
    deps: Sequence[str] = ()
    kinds: Sequence[str] = ("parquet",)
    partitions: dg.PartitionsDefinition[str] | None = None
    pool: str | None = None
    description: str | None = None

    @property
    def contract(self) -> Contract:
        """Key, columns and rules, for the gate."""
        return Contract(self.key, self.schema, self.rules)

    @property
    def code_version(self) -> str:
        """Version of the code, and of the part of the profile that the asset depends on."""
        return f"{self.version}-{digest(self.parts)}"

    def asset(self, body: Callable[..., Made]) -> dg.AssetsDefinition:
        """Decorator of a body, which takes the context, `storage`, and other resources by name, and returns what it made."""

        @wraps(body)
        def checked_and_published(context: dg.AssetExecutionContext, **given: Any) -> Iterator[gate.Event]:
            yield from self.publish(context, given["storage"].store(), body(context, **given))

        checked_and_published.__annotations__ = {**body.__annotations__, "return": Iterator[gate.Event]}
        decorator: Callable[..., dg.AssetsDefinition] = dg.asset(
            key=gate.asset_key(self.key),
            deps=[gate.asset_key(d) for d in self.deps],
            check_specs=gate.check_specs(self.contract),
            partitions_def=self.partitions,
            pool=self.pool,
            **self._said(f"{body.__module__}.{body.__qualname__}"),
        )
        return decorator(checked_and_published)

    def spec(self, body: str) -> dg.AssetSpec:
        """The asset as one of several that a step makes, the function `body`; the step publishes each with `publish`."""
        return dg.AssetSpec(gate.asset_key(self.key), deps=[gate.asset_key(d) for d in self.deps], **self._said(body))

    def publish(self, context: dg.AssetExecutionContext, store: Store, made: Made) -> Iterator[gate.Event]:
        """Check what was made, and publish it. See `pipeline.gate.publish`."""
        return gate.publish(context, store, self.contract, made)

    def _said(self, body: str) -> dict[str, Any]:
        sections = sorted(
            f"{type(part).__module__}.{type(part).__name__}" for part in self.parts if isinstance(part, Section)
        )
        return {
            "metadata": {MADE_BY: [body, *self.modules], SECTIONS: list(dict.fromkeys(sections))},
            "group_name": self.stage,
            "owners": OWNERS,
            "kinds": set(self.kinds),
            "code_version": self.code_version,
            "description": self.description,
        }


@dataclass(frozen=True)
class Worked:
    """What a worker left: its figures, and the tables that were asked for, by the names of their files without the ending."""

    figures: dict[str, Any]
    tables: Mapping[str, pa.Table]

    def __getitem__(self, name: str) -> pa.Table:
        return self.tables[name]


def work(
    context: dg.AssetExecutionContext,
    compute: Compute,
    store: Store,
    key: str,
    spec: Callable[..., Spec],
    reads: Sequence[str],
    given: pa.Table | None = None,
) -> Worked:
    """Run a worker, read the tables that it left, and remove its folder; where it fails, the folder stays for whoever looks for the reason.

    key: whose staging it is. spec: makes the worker's spec, given `out`, the folder that it writes into, and `input` where there is a table
    for it to read, `given`. reads: names of the tables, without their ending.
    """
    out = store.staging(key, gate.partition_of(context))
    if given is not None:
        spec = partial(spec, input=out / "input.parquet")
        write_table(given, out / "input.parquet")
    figures = compute.run(context, spec(out=out))
    tables = {name: read_table(out / f"{name}.parquet") for name in reads}
    out.fs.rm(str(out), recursive=True)
    return Worked(figures, tables)
