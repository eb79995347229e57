"""Which assets are out of date, by the reckoning with which the UI marks an asset as stale.

Dagster has no public interface to it: this module alone uses its private ones, and a test compares what they say with the answer that the UI
gets from its server.

- `CachingStaleStatusResolver` (`dagster._core.definitions.data_version`): the reckoning itself;
- `AssetGraphView` (`dagster._core.asset_graph_view.asset_graph_view`) and `TemporalContext`
  (`dagster._core.definitions.temporal_context`): through which the resolver reads the event log;
- `Definitions.resolve_asset_graph`, which has no promise of staying either: the graph that both of them take.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import dagster as dg
from dagster._core.asset_graph_view.asset_graph_view import AssetGraphView
from dagster._core.definitions.data_version import CachingStaleStatusResolver
from dagster._core.definitions.temporal_context import TemporalContext

from pipeline.store import Store


def out_of_date(
    instance: dg.DagsterInstance,
    definitions: dg.Definitions,
    store: Store,
    members: Sequence[dg.AssetSpec],
    partition: str | None,
) -> list[dg.AssetSpec]:
    """The assets of a job that are missing from the store or stale, and those of the job downstream of them.

    members: the job's assets, upstream first, as the answer is. partition: the one that those with partitions are looked at in.
    """
    status, stale = staleness(instance, definitions), dict[dg.AssetKey, dg.AssetSpec]()
    for spec in members:
        own = partition if spec.partitions_def else None
        follows = any(dep.asset_key in stale for dep in spec.deps)
        if follows or not store.manifest(spec.key.to_user_string(), own) or status(spec.key, own) != "FRESH":
            stale[spec.key] = spec
    return list(stale.values())


def staleness(instance: dg.DagsterInstance, definitions: dg.Definitions) -> Callable[[dg.AssetKey, str | None], str]:
    """A function that gives the status of an asset and partition now, as the UI has it: FRESH, STALE or MISSING."""
    graph, now = definitions.resolve_asset_graph(), TemporalContext(effective_dt=datetime.now(UTC), last_event_id=None)
    view = AssetGraphView(temporal_context=now, instance=instance, asset_graph=graph)
    resolver = CachingStaleStatusResolver(instance, graph, view)
    return lambda key, partition: str(resolver.get_status(key, partition).value)
