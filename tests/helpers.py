"""What tests of several stages call: readings of Dagster's results, small tables, ports."""

import socket
from collections.abc import Sequence
from typing import Any

import dagster as dg
import pyarrow as pa

from pipeline.benchmarks.schema import ITEMS

PATIENCE = 600.0
"""Seconds that a test waits for another process until it fails: many, as the machine may be busy with others."""


def quiet(message: str) -> None:
    """A log that nobody reads."""
    del message


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def failure(result: dg.ExecuteInProcessResult) -> str:
    """Why the one step that failed did: the reason that it gives to a user, else its error."""
    (event,) = [e for e in result.all_events if e.event_type == dg.DagsterEventType.STEP_FAILURE]
    data = event.step_failure_data
    return str((data.user_failure_data and data.user_failure_data.description) or data.error)


def metadata(result: dg.ExecuteInProcessResult, asset: str) -> dict[str, Any]:
    """What the one materialization of an asset shows, by name."""
    (event,) = result.asset_materializations_for_node(asset)
    return dict(event.metadata)


def items_of(*rows: tuple[str, str, Sequence[str], int], benchmark: str = "b", asked: str | None = None) -> pa.Table:
    """Items of a benchmark: subset, id, responses, and how many of those, the first ones, are good; by default each asks something else."""
    records = [
        {
            "benchmark": benchmark,
            "subset": subset,
            "item_id": item_id,
            "messages": [{"role": "user", "content": asked or f"{subset} {item_id}"}],
            "responses": list(responses),
            "good": [n < good for n in range(len(responses))],
        }
        for subset, item_id, responses, good in rows
    ]
    return pa.Table.from_pylist(records, schema=ITEMS)
