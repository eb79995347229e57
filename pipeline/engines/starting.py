"""Engines behind one interface (`pipeline.engines.requests.Engine`). Imported only by workers.

vLLM in the worker, or in replicas on a Ray cluster; any OpenAI-compatible server; recorded answers.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.engines.requests import Engine
from pipeline.models.checkpoints import identity, resolve
from pipeline.settings import PROJECT, Checkpoint, RayCluster
from pipeline.worker import Log, Spec


@dataclass
class LazyEngine:
    """An iterable of one engine that is started at the first use, and serves all later ones.

    model, revision, template (and the weights' precision): what of it a request's key depends on.
    """

    model: str
    revision: str
    template: str
    start: Callable[[], Engine]
    _engine: Engine | None = None

    def __iter__(self) -> Iterator[Engine]:
        if self._engine is None:
            self._engine = self.start()
        yield self._engine


def engine_of(spec: Spec, log: Log) -> LazyEngine:
    """The engine of a worker's spec: checkpoint, cache, device, profile_seed, and cluster where its replicas run on one.

    Weights are downloaded or unpacked here, and loaded at the first request.
    """
    checkpoint, cache, device, seed = (
        Checkpoint.model_validate(spec["checkpoint"]),
        Path(spec["cache"]),
        spec["device"],
        spec["profile_seed"],
    )
    model, revision = identity(checkpoint)
    if checkpoint.server:
        from pipeline.engines.openai import OpenAIEngine

        server = checkpoint.server
        log(f"{model} ({revision}) at {server.base_url}")
        return LazyEngine(model, revision, "server", lambda: OpenAIEngine(server, log))
    if checkpoint.recording:
        from pipeline.engines.recorded import RecordedEngine

        path = PROJECT / Path(checkpoint.recording.path).expanduser()
        return LazyEngine(model, revision, "recorded", lambda: RecordedEngine(path))
    from transformers import AutoTokenizer

    from pipeline.engines.vllm import VLLMEngine, template_of

    folder = resolve(checkpoint, cache)
    log(f"{model} ({revision}) in {folder}")
    # numbers of another precision write other texts
    template = f"{template_of(AutoTokenizer.from_pretrained(folder), checkpoint)}\0{checkpoint.dtype}"
    if spec.get("cluster"):
        from pipeline.engines.ray import RayEngine

        cluster = RayCluster.model_validate(spec["cluster"])
        return LazyEngine(model, revision, template, lambda: RayEngine(checkpoint, cache, device, seed, cluster, log))
    return LazyEngine(model, revision, template, lambda: VLLMEngine(folder, checkpoint, device, seed))
