"""A code location of three assets behind the real gate: `pool` (no partition) -> `batch` [delivery] -> `report` [delivery].

What `pool` publishes stands in the file that GATE_LOCATION_INPUT names; a number above 4 breaks its rule.
"""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pyarrow as pa

from assets import options
from pipeline import gate
from pipeline.partitions import DELIVERIES
from pipeline.rules import Rule
from resources.storage import Storage

SCHEMA = pa.schema([("rating", pa.int64())])
RULES = (
    Rule(
        "in_range",
        "Ratings go from 0 to 4.",
        "ExpectColumnValuesToBeBetween",
        {"column": "rating", "min_value": 0, "max_value": 4},
    ),
)
INPUT = Path(os.environ["GATE_LOCATION_INPUT"])


@dg.asset(**options("pool", "test", RULES, "1"))
def pool(context: dg.AssetExecutionContext, storage: Storage) -> Iterator[gate.Event]:
    given = json.loads(INPUT.read_text())
    time.sleep(given.get("seconds", 0))
    yield from gate.publish(context, storage.store(), "pool", pa.table({"rating": given["ratings"]}), SCHEMA, RULES)


@dg.asset(**options("batch", "test", RULES, "1", deps=["pool"]), partitions_def=DELIVERIES)
def batch(context: dg.AssetExecutionContext, storage: Storage) -> Iterator[gate.Event]:
    yield from gate.publish(context, storage.store(), "batch", storage.store().read("pool"), SCHEMA, RULES)


@dg.asset(**options("report", "test", RULES, "1", deps=["batch"]), partitions_def=DELIVERIES)
def report(context: dg.AssetExecutionContext, storage: Storage) -> Iterator[gate.Event]:
    table = storage.store().read("batch", context.partition_key)
    yield from gate.publish(context, storage.store(), "report", table, SCHEMA, RULES)


defs = dg.Definitions(
    assets=[pool, batch, report], resources={"storage": Storage(uri=os.environ["GATE_LOCATION_STORE"])}
)
