"""Test doubles that tests of several stages use."""

import importlib
from typing import Any

from upath import UPath

from resources.compute import LocalCompute


class ComputeDouble(LocalCompute):
    """Test double of the compute: the worker in this process, which has imported what it needs."""

    def run(self, context: Any, worker: str, spec: dict[str, Any], out: UPath) -> dict[str, Any]:
        work = importlib.import_module(worker).work
        return {**work({**spec, "out": str(out)}, context.log.info), "peak_memory_gib": 0.0}
