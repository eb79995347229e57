"""A code location of three assets behind the real gate: `pool` (no partition) -> `batch` [delivery] -> `report` [delivery].

What `pool` publishes stands in the file that GATE_LOCATION_INPUT names; a number above 4 breaks its rule.
"""

import json
import os
import time
from functools import partial
from pathlib import Path

import dagster as dg
import pyarrow as pa

from assets.published import Published
from pipeline.gate import Made
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


published = partial(Published, stage="test", schema=SCHEMA, rules=RULES, version="1", modules=())


@published("pool").asset
def pool(context: dg.AssetExecutionContext, storage: Storage) -> Made:
    given = json.loads(INPUT.read_text())
    time.sleep(given.get("seconds", 0))
    return Made(pa.table({"rating": given["ratings"]}))


@published("batch", deps=("pool",), partitions=DELIVERIES).asset
def batch(context: dg.AssetExecutionContext, storage: Storage) -> Made:
    return Made(storage.store().read("pool"))


@published("report", deps=("batch",), partitions=DELIVERIES).asset
def report(context: dg.AssetExecutionContext, storage: Storage) -> Made:
    return Made(storage.store().read("batch", context.partition_key))


defs = dg.Definitions(
    assets=[pool, batch, report], resources={"storage": Storage(uri=os.environ["GATE_LOCATION_STORE"])}
)
