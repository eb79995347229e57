"""Settings of the machinery: where workers run, where curves go, when a delivery opens."""

from typing import Literal

from pydantic import Field

from pipeline.settings.section import Section


class RayCluster(Section):
    """A Ray cluster that takes workers as jobs. Every node has this project installed and sees the store at the same path."""

    address: str = Field(
        "http://127.0.0.1:8265", pattern=r"^https?://", description="of its dashboard, where jobs are handed in"
    )
    python: str | None = Field(None, description="the interpreter on its nodes; without it, this one's path")
    cpus: int = Field(1, ge=1, description="cores of each replica of an engine")
    job_cpus: int = Field(2, ge=1, description="cores of a worker that computes itself: training, scoring, embedding")
    in_flight: int = Field(1024, ge=1, description="requests that a replica holds at a time")
    deaths: int = Field(3, ge=1, description="replicas that may die in a row with nothing answered in between")
    start_s: float = Field(1800, gt=0, description="how long to wait for the first replica")


class Compute(Section):
    """Where workers run."""

    kind: Literal["local", "ray"] = "local"
    ray: RayCluster = RayCluster()
    steps_at_once: int = Field(1, ge=1, description="steps of one run that go on at the same time")
    device: Literal["cpu", "cuda"] = "cpu"
    processes: int = Field(
        1,
        ge=1,
        description="that train a reward model together, one an accelerator: weights are sharded over them (FSDP)",
    )
    kv_cache_gib: int = Field(1, ge=1, description="vLLM's key-value cache on a CPU")


class Tracking(Section):
    """Where the curves of a training go, as TensorBoard's event files."""

    folder: str | None = Field(None, description="without it `.tracking` in the store, where that is a local folder")


class Schedule(Section):
    """When a new delivery is opened."""

    cron: str = "0 6 * * 1"
    timezone: str = "UTC"
