"""Engines behind one interface (`pipeline.engines.requests.Engine`). Imported only by workers.

vLLM in the worker, or in replicas on a Ray cluster; any OpenAI-compatible server; recorded answers.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.engines.requests import Engine
from pipeline.engines.spec import EngineSpec
from pipeline.models.checkpoints import identity, pinned, resolve
from pipeline.models.precision import precision_of
from pipeline.settings import PROJECT
from pipeline.worker import Log


@dataclass
class LazyEngine:
    """An iterable of one engine that is started at the first use, and serves all later ones.

    model, revision, template (and the weights' precision): what of it a request's key depends on. precision: None where it isn't ours.
    """

    model: str
    revision: str
    template: str
    start: Callable[[], Engine]
    precision: str | None = None
    _engine: Engine | None = None

    def __iter__(self) -> Iterator[Engine]:
        if self._engine is None:
            self._engine = self.start()
        yield self._engine


def engine_of(spec: EngineSpec, log: Log) -> LazyEngine:
    """The engine that a worker asks. Weights are downloaded or unpacked here, and loaded at the first request."""
    checkpoint, device, seed = pinned(spec.checkpoint), spec.device, spec.profile_seed
    model, revision = identity(checkpoint)
    if checkpoint.server:
        from pipeline.engines.openai import OpenAIEngine

        server = checkpoint.server
        log(f"The model {model} (revision {revision}) is asked at {server.base_url}")
        return LazyEngine(model, revision, "server", lambda: OpenAIEngine(server, log))
    if checkpoint.recording:
        from pipeline.engines.recorded import RecordedEngine

        path = PROJECT / Path(checkpoint.recording.path).expanduser()
        return LazyEngine(model, revision, "recorded", lambda: RecordedEngine(path))
    from transformers import AutoTokenizer

    from pipeline.engines.vllm import VLLMEngine, template_of
    from pipeline.models.templates import DATE, in_keys, writes_date

    precision = precision_of(checkpoint.dtype, device)
    checkpoint = checkpoint.model_copy(update={"dtype": precision})
    folder = resolve(checkpoint, spec.cache)
    log(f"The weights of {model} (revision {revision}) are in {folder}; it answers in {precision}")
    # numbers of another precision write other texts
    asked_through = template_of(AutoTokenizer.from_pretrained(folder), checkpoint)
    template = f"{in_keys(asked_through)}\0{precision}"
    if writes_date(asked_through):
        log(f"The chat template of {model} writes today's date; it is given {DATE}, so that prompts stay the same")
    if cluster := spec.cluster:
        from pipeline.engines.ray import RayEngine

        return LazyEngine(
            model,
            revision,
            template,
            lambda: RayEngine(checkpoint, spec.cache, device, seed, cluster, log),
            precision,
        )
    return LazyEngine(model, revision, template, lambda: VLLMEngine(folder, checkpoint, device, seed), precision)
