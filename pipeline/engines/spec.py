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
    cache: Path = Field(description="folder of unpacked checkpoints")
    device: Literal["cpu", "cuda"]
    profile_seed: int
    cluster: RayCluster | None = Field(
        None, description="Ray cluster on which the engine's replicas run; null: the engine runs in the worker"
    )

    @classmethod
    def of(cls, profile: Profile, checkpoint: str | Checkpoint, cache: UPath | Path) -> Self:
        """The engine of a checkpoint: one of the profile's, by its name, or another."""
        compute = profile.compute
        return cls(
            checkpoint=profile.checkpoints[checkpoint] if isinstance(checkpoint, str) else checkpoint,
            cache=Path(str(cache)),
            device=compute.device,
            profile_seed=profile.seed,
            cluster=compute.ray if compute.kind == "ray" else None,
        )


class AskingSpec(Spec):
    """A worker that asks an engine."""

    input: Uri = Field(description="Parquet file of what the model is asked about")
    work: Uri = Field(description="folder that keeps finished requests from run to run")
    engine: EngineSpec
