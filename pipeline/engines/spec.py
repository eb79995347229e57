"""The part of a worker's spec that says which engine it asks, and how. Light: assets make it."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field
from upath import UPath

from pipeline.settings import Checkpoint, Profile, RayCluster, Section
from pipeline.worker import Spec, Uri


class EngineSpec(Section):
    """One checkpoint's engine."""

    checkpoint: Checkpoint
    cache: Path = Field(description="folder of checkpoints that were unpacked")
    device: Literal["cpu", "cuda"]
    profile_seed: int
    cluster: RayCluster | None = Field(None, description="where its replicas run; without it, in the worker")

    @classmethod
    def of(cls, profile: Profile, checkpoint: str, cache: UPath) -> Self:
        """The engine of a profile's checkpoint."""
        compute = profile.compute
        return cls(
            checkpoint=profile.checkpoints[checkpoint],
            cache=Path(str(cache)),
            device=compute.device,
            profile_seed=profile.seed,
            cluster=compute.ray if compute.kind == "ray" else None,
        )


class AskingSpec(Spec):
    """A worker that asks an engine."""

    input: Uri = Field(description="Parquet file of what is asked about")
    work: Uri = Field(description="folder of the finished requests")
    engine: EngineSpec
