"""The jobs, worked out from the assets: one a stretch of the chain that `pipeline.partitions` declares. What runs is defined in `assets`."""

from collections.abc import Sequence
from graphlib import TopologicalSorter
from typing import Any

import dagster as dg

from pipeline import partitions
from pipeline.partitions import Stretch
from pipeline.settings import Profile


def jobs(profile: Profile, specs: Sequence[dg.AssetSpec]) -> list[Any]:
    """The jobs of a code location's assets, as `dg.define_asset_job` gives them, in the order of the chain.

    Raises `LookupError` where an asset has partitions that no stretch declares.
    """
    return [
        dg.define_asset_job(
            stretch.job,
            [spec.key for spec in members],
            description=stretch.description,
            partitions_def=stretch.partitions,
        )
        for stretch, members in stretches(profile, specs)
    ]


def plan(profile: Profile, specs: Sequence[dg.AssetSpec], dynamic: Sequence[str]) -> list[tuple[str, str | None]]:
    """Jobs with the partition that each is run on, in the order in which the whole chain needs them.

    dynamic: the keys of dynamic partitions to run on; of static ones, all are. What stands apart is left out.
    """
    steps: list[tuple[str, str | None]] = []
    for stretch, _ in stretches(profile, specs):
        match stretch.partitions:
            case None:
                steps += [] if stretch.apart else [(stretch.job, None)]
            case dg.DynamicPartitionsDefinition():
                steps += [(stretch.job, key) for key in dynamic]
            case static:
                steps += [(stretch.job, key) for key in static.get_partition_keys()]
    return steps


def stretches(profile: Profile, specs: Sequence[dg.AssetSpec]) -> list[tuple[Stretch, list[dg.AssetSpec]]]:
    """Every stretch that has assets, with them, upstream first.

    A partitioned asset is of the stretch with its partitions. One without is of the last stretch that is upstream of it, or of its
    own stage's where that comes later; with no partition upstream, of the first.
    """
    declared, ordered = partitions.chain(profile), in_order(specs)
    own = {spec.key: n for spec in specs if (n := _own(declared, spec)) is not None}
    stages: dict[str | None, int] = {}
    for spec in specs:
        if spec.partitions_def is not None:
            stages[spec.group_name] = min(own[spec.key], stages.get(spec.group_name, len(declared)))
    place: dict[dg.AssetKey, int] = {}
    for spec in ordered:
        upstream = max((place[d.asset_key] for d in spec.deps if d.asset_key in place), default=0)
        with_stage = max(upstream, stages.get(spec.group_name, 0)) if upstream else 0
        place[spec.key] = own.get(spec.key, with_stage)
    found = [(s, [spec for spec in ordered if place[spec.key] == n]) for n, s in enumerate(declared)]
    return [(stretch, members) for stretch, members in found if members]


def _own(declared: Sequence[Stretch], spec: dg.AssetSpec) -> int | None:
    """The place of the stretch that an asset belongs to by its partitions or its name; None where neither says."""
    for n, stretch in enumerate(declared):
        if (
            spec.key.to_user_string() in stretch.apart
            or (spec.partitions_def is not None and stretch.partitions == spec.partitions_def)
            or (spec.partitions_def is None and stretch.stage is not None and stretch.stage == spec.group_name)
        ):
            return n
    if spec.partitions_def is None:
        return None
    raise LookupError(
        f"{spec.key.to_user_string()} has partitions that no stretch of the chain declares; add them to "
        "pipeline.partitions.chain"
    )


def in_order(specs: Sequence[dg.AssetSpec]) -> list[dg.AssetSpec]:
    """Assets with everything upstream of one before it; by their keys where neither is."""
    by_key = {spec.key: spec for spec in sorted(specs, key=lambda spec: spec.key)}
    upstream = {key: [d.asset_key for d in spec.deps if d.asset_key in by_key] for key, spec in by_key.items()}
    return [by_key[key] for key in TopologicalSorter(upstream).static_order()]
