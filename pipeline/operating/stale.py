"""Which assets are out of date, by the same reckoning that marks an asset as stale in the UI."""

from datetime import UTC, datetime

import dagster as dg
from dagster._core.asset_graph_view.asset_graph_view import AssetGraphView
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.definitions.temporal_context import TemporalContext

from pipeline.automation import jobs
from pipeline.operating.location import definitions
from pipeline.settings import load_profile
from pipeline.store import Store


def out_of_date(instance: dg.DagsterInstance, store: Store, job: str, partition: str | None) -> list[dg.AssetKey]:
    """Assets of a job that are missing from the store or stale, and those of the job that depend on them, parents first."""
    graph = definitions().resolve_asset_graph()
    now = TemporalContext(effective_dt=datetime.now(UTC), last_event_id=None)
    resolver = CachingStaleStatusResolver(
        instance, graph, AssetGraphView(temporal_context=now, instance=instance, asset_graph=graph)
    )
    members = next(j for j in jobs.jobs(load_profile()) if j.name == job).selection.resolve(graph)
    stale: set[dg.AssetKey] = set()
    for key in graph.toposorted_asset_keys:
        if key in members:
            own = partition if graph.get(key).is_partitioned else None
            missing = store.manifest(key.to_user_string(), own) is None
            if missing or graph.get(key).parent_keys & stale or resolver.get_status(key, own) != StaleStatus.FRESH:
                stale.add(key)
    return [key for key in graph.toposorted_asset_keys if key in stale]
