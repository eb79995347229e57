"""Test doubles that tests of several stages use."""

import importlib
from typing import Any

from pipeline.worker import Figures, Spec
from resources.compute import LocalCompute


class ComputeDouble(LocalCompute):
    """Test double of the compute: the worker in this process, which has imported what it needs."""

    def run(self, context: Any, spec: Spec) -> Figures:
        work = importlib.import_module(spec.worker).work
        return {**work(spec, context.log.info), "peak_memory_gib": 0.0}
