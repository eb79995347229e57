"""Settings of the machinery: where workers run, where curves go, when a delivery opens."""

from typing import Literal

from pydantic import Field

from pipeline.settings.section import Section


class RayCluster(Section):
    """A Ray cluster that takes workers as jobs. Every node has this project installed and sees the store at the same path."""

    address: str = Field(
        "http://127.0.0.1:8265",
        pattern=r"^https?://",
        description="URL of the cluster's dashboard, where jobs are handed in",
    )
    python: str | None = Field(
        None, description="path of the Python interpreter on the nodes; null: the path of the one here"
    )
    cpus: int = Field(1, ge=1, description="cores that each replica of an engine has")
    job_cpus: int = Field(
        2, ge=1, description="cores that a worker has which computes by itself: training, scoring, embedding"
    )
    in_flight: int = Field(1024, ge=1, description="largest number of requests that a replica holds at a time")
    deaths: int = Field(
        3, ge=1, description="number of replicas that may die in a row with nothing answered in between"
    )
    start_s: float = Field(1800, gt=0, description="seconds to wait for the first replica")


class Compute(Section):
    """Where workers run."""

    kind: Literal["local", "ray"] = Field("local", description="processes on this machine, or jobs on a Ray cluster")
    ray: RayCluster = Field(RayCluster(), description="the cluster, where kind is ray")
    steps_at_once: int = Field(1, ge=1, description="largest number of steps of one run that go on at the same time")
    device: Literal["cpu", "cuda"] = Field("cpu", description="what models run on")
    processes: int = Field(
        1,
        ge=1,
        description="number of processes that train a reward model together, one an accelerator; weights are sharded over them (FSDP)",
    )
    kv_cache_gib: int = Field(1, ge=1, description="size of vLLM's key-value cache on a CPU, in GiB")


class Tracking(Section):
    """Where the curves of a training go, as TensorBoard's event files."""

    folder: str | None = Field(
        None, description="folder of the event files; null: `.tracking` in the store, where that is a local folder"
    )


class Schedule(Section):
    """When a new delivery is opened."""

    cron: str = Field(
        "0 6 * * 1", description="cron expression: minute, hour, day of the month, month, day of the week"
    )
    timezone: str = Field("UTC", description="time zone of the cron expression, by its IANA name")
