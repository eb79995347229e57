"""Replicas of one engine on a Ray cluster, fed from one queue. Imported only by the worker, which runs there as a job.

The store has one writer, this process; replicas take requests and give back answers. Each holds its share of what is left, `in_flight` at
most, so that one that answers faster gets more. What a replica held when it died goes back to the queue, and another takes its place.
"""

import logging
import math
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError

from pipeline.engines.requests import Answer, Request
from pipeline.models.checkpoints import resolve
from pipeline.settings import Checkpoint, RayCluster
from pipeline.worker import Log

CALL_SECONDS = 0.5
"""For how long a replica goes on before it gives back what is finished."""
CALLS = 2
"""Calls that a replica has at a time: the next one is there already when one ends, so that none waits for us."""


class Replica:
    """One engine, in an actor of its own."""

    def __init__(self, checkpoint: dict[str, Any], cache: str, device: str, seed: int) -> None:
        from pipeline.engines.vllm import VLLMEngine

        parsed = Checkpoint.model_validate(checkpoint)
        self._engine = VLLMEngine(resolve(parsed, Path(cache)), parsed, device, seed)

    def go_on(self, requests: list[Request]) -> tuple[list[Answer], bool]:
        """Take more requests and work on all for a while: the answers that are finished by then, and whether there are more to come."""
        answers, until = self._engine.add(requests), time.monotonic() + CALL_SECONDS
        while self._engine.busy and time.monotonic() < until:
            answers += self._engine.step()
        return answers, self._engine.busy


@dataclass(eq=False)
class _Member:
    """A replica as seen from here: what it was given and has not answered."""

    actor: Any
    number: int
    requests: dict[str, Request] = field(default_factory=dict)
    calls: int = 0
    ready: bool = False


class RayEngine:
    """As many replicas of a checkpoint's engine as it asks for."""

    def __init__(
        self, checkpoint: Checkpoint, cache: Path, device: str, seed: int, cluster: RayCluster, log: Log
    ) -> None:
        """Returns when the first replica stands; the others join as they come. Raises RuntimeError where none does in `start_s`."""
        ray.init(ignore_reinit_error=True, log_to_driver=False, logging_level=logging.WARNING)
        self._cluster, self._wanted, self._log = cluster, checkpoint.replicas, log
        self._needs: dict[str, Any] = {"num_cpus": cluster.cpus}
        if device == "cuda":
            self._needs["num_gpus"] = checkpoint.tensor_parallel
        if checkpoint.accelerator:
            self._needs["accelerator_type"] = checkpoint.accelerator
        self._arguments = (checkpoint.model_dump(mode="json"), str(cache), device, seed)
        self._members, self._calls = list[_Member](), dict[Any, _Member]()
        self._waiting, self._started, self._deaths = deque[Request](), 0, 0
        for _ in range(self._wanted):
            self._start()
        deadline = time.monotonic() + cluster.start_s
        while not any(member.ready for member in self._members):
            if time.monotonic() > deadline:
                raise RuntimeError(
                    f"no replica was ready after {cluster.start_s:g} s. Each needs {self._needs}; the cluster has "
                    f"{ray.cluster_resources()}, of which {ray.available_resources()} is free"
                )
            self._listen()

    def answer(self, requests: Sequence[Request]) -> Iterator[Answer]:
        """See `Engine.answer`. Raises RuntimeError where replicas die, one after another, and nothing is answered."""
        # the longest first: none is left over alone
        self._waiting = deque(sorted(requests, key=_size, reverse=True))
        left = len(requests)
        while left:
            for member in self._members:
                self._feed(member)
            for answer in self._listen():
                left -= 1
                yield answer

    def _start(self) -> None:
        self._started += 1
        # vLLM itself would bind every replica to the same cores
        threads = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(self._cluster.cpus)}
        environment = {"env_vars": threads}
        actor = ray.remote(Replica).options(**self._needs, runtime_env=environment).remote(*self._arguments)
        member = _Member(actor, self._started)
        self._members.append(member)
        self._call(member, [])

    def _feed(self, member: _Member) -> None:
        """Give a replica that stands its share of what nobody has, and calls enough to go on."""
        held = sum(len(m.requests) for m in self._members)
        share = math.ceil((len(self._waiting) + held) / self._wanted)
        room = min(share, self._cluster.in_flight) - len(member.requests)
        while member.ready and member.calls < CALLS:
            more = [self._waiting.popleft() for _ in range(min(room, len(self._waiting)))]
            room -= len(more)
            member.requests |= {request.key: request for request in more}
            if not member.requests:
                return
            self._call(member, more)

    def _call(self, member: _Member, requests: list[Request]) -> None:
        self._calls[member.actor.go_on.remote(requests)] = member
        member.calls += 1

    def _listen(self) -> list[Answer]:
        """What the next call that ends brings, if one does within a second."""
        answers = list[Answer]()
        for call in ray.wait(list(self._calls), num_returns=1, timeout=1.0)[0]:
            member = self._calls.pop(call)
            member.calls -= 1
            try:
                answers, busy = ray.get(call)
            except (RayActorError, RayTaskError) as error:
                self._replace(member, error)
                continue
            if not member.ready:
                member.ready = True
                self._log(f"replica {member.number} stands, {sum(m.ready for m in self._members)} of {self._wanted}")
            for answer in answers:
                del member.requests[answer.request_key]
                self._deaths = 0
            if member.requests and not busy and not member.calls:
                raise RuntimeError(f"replica {member.number} has lost {len(member.requests)} requests")
        return answers

    def _replace(self, member: _Member, error: Exception) -> None:
        """Give back to the queue what a dead replica held, and start another one."""
        ray.kill(member.actor)
        self._members.remove(member)
        self._calls = {call: m for call, m in self._calls.items() if m is not member}
        self._waiting.extendleft(reversed(member.requests.values()))
        self._deaths += 1
        if self._deaths >= self._cluster.deaths:
            raise RuntimeError(
                f"replicas that died in a row before anything was answered: {self._deaths}; the last one with: {error}"
            )
        self._log(
            f"Replica {member.number} died; its {len(member.requests)} requests are asked again. Its error: {str(error)[:500]}"
        )
        self._start()


def _size(request: Request) -> int:
    return sum(len(message["content"]) for message in request.messages) + 4 * request.sampling.max_tokens
