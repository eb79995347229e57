"""A code location of four assets, `source` -> `batch` [delivery] -> `board`, `tried` [method], and the same with changed code of `batch`.

What `source` has stands in the file `source.txt` of the folder that STALE_LOCATION names.
"""

import os
from pathlib import Path

import dagster as dg

from pipeline.partitions import DELIVERIES

METHODS = dg.StaticPartitionsDefinition(["first", "second"])


def build(batch_version: str) -> dg.Definitions:
    @dg.asset(code_version="1")
    def source() -> dg.MaterializeResult[None]:
        content = (Path(os.environ["STALE_LOCATION"]) / "source.txt").read_text()
        return dg.MaterializeResult(data_version=dg.DataVersion(content))

    @dg.asset(code_version=batch_version, deps=["source"], partitions_def=DELIVERIES)
    def batch() -> None: ...

    @dg.asset(code_version="1", deps=["batch"])
    def board() -> None: ...

    @dg.asset(code_version="1", deps=["board"], partitions_def=METHODS)
    def tried() -> None: ...

    return dg.Definitions(assets=[source, batch, board, tried])


defs, changed = build("1"), build("2")
