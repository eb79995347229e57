"""Engines behind one interface (`pipeline.engines.requests.Engine`). Imported only by workers.

vLLM in the worker, or in replicas on a Ray cluster; any OpenAI-compatible server; recorded answers.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.engines.requests import Engine
from pipeline.engines.spec import EngineSpec
from pipeline.models.checkpoints import identity, pinned, resolve
from pipeline.models.precision import precision_of
from pipeline.settings import PROJECT, Checkpoint, Server
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
        thinks = checkpoint.chat_template_kwargs
        return LazyEngine(model, revision, _served(checkpoint, server), lambda: OpenAIEngine(server, log, thinks))
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
    if checkpoint.chat_template_kwargs:
        template += f"\0{json.dumps(checkpoint.chat_template_kwargs, sort_keys=True)}"
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


def _served(checkpoint: Checkpoint, server: Server) -> str:
    """What an answer depends on beside model, messages, sampling and seed where a server writes the prompt; other names for the same don't count."""
    left_out = sorted(parameter for parameter, name in server.parameters.items() if name is None)
    said = {
        "template": checkpoint.chat_template_kwargs,
        "body": server.extra_body,
        "left_out": left_out,
        "begins_thought": server.begins_thought,  # what was read otherwise may be half a thought
    }
    return f"server\0{json.dumps(said, sort_keys=True)}" if any(said.values()) else "server"
