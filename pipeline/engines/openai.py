"""Any server with OpenAI's chat-completions interface: many requests in flight, tried again with patience where the server stumbles."""

import asyncio
import json
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import httpx
import stamina

from pipeline.engines.patience import (
    AGAIN,
    FIRST_WAIT,
    LONGEST_WAIT,
    RetryError,
    _Limit,
    again,
    authorization,
    seconds_of,
)
from pipeline.engines.requests import FAILED, REFUSED, Answer, Request
from pipeline.models.marks import WELL_KNOWN
from pipeline.settings import Server
from pipeline.worker import Log

FINISHED = {"stop", "length"}
Answers = queue.Queue[Answer | BaseException | None]

stamina.instrumentation.set_on_retry_hooks([])  # what is tried again is told in our own log, without contents


class OpenAIEngine:
    """A client of one server. The API key is read from the environment and stands in no message."""

    def __init__(self, server: Server, log: Log) -> None:
        """Raises ValueError where the key's environment variable is not set, or holds no key."""
        self._server, self._log = server, log
        self._headers = authorization(server.key_env, server.base_url) if server.key_env else {}
        self._said = 0.0

    def answer(self, requests: Sequence[Request]) -> Iterator[Answer]:
        """See `Engine.answer`. A request that the server will not take is refused, one that it doesn't answer in time has failed: both alone."""
        answers: Answers = queue.Queue()
        loop = asyncio.new_event_loop()
        task = loop.create_task(self._all(requests, answers))

        def run() -> None:
            try:
                loop.run_until_complete(task)
            except asyncio.CancelledError:
                pass
            except BaseException as error:  # handed to the consumer, which raises it
                answers.put(error)
            finally:
                loop.close()
                answers.put(None)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            while (answer := answers.get()) is not None:
                if isinstance(answer, BaseException):
                    raise answer
                yield answer
        finally:  # whoever stops listening stops the requests too
            if thread.is_alive():
                with suppress(RuntimeError):  # closed meanwhile
                    loop.call_soon_threadsafe(task.cancel)
                thread.join()

    async def _all(self, requests: Sequence[Request], answers: "Answers") -> None:
        """Keep `concurrency` requests in flight."""
        waiting, limit = iter(requests), _Limit(self._server.requests_per_minute)
        limits = httpx.Limits(
            max_connections=self._server.concurrency, max_keepalive_connections=self._server.concurrency
        )
        async with httpx.AsyncClient(
            base_url=self._server.base_url.rstrip("/") + "/",
            headers=self._headers,
            timeout=self._server.timeout_s,
            limits=limits,
        ) as client:

            async def one_after_another() -> None:
                for request in waiting:
                    answers.put(await self._one(client, request, limit))

            await asyncio.gather(*(one_after_another() for _ in range(min(self._server.concurrency, len(requests)))))

    async def _one(self, client: httpx.AsyncClient, request: Request, limit: "_Limit") -> Answer:
        # what template a server writes is not known, and most take such a mark in a text for their own
        if marks := sorted({m for message in request.messages for m in WELL_KNOWN.findall(message["content"])}):
            return Answer(
                request.key, "", REFUSED, f"control tokens of language models in the text: {' '.join(marks)}", 0, 0
            )
        try:
            async for attempt in stamina.retry_context(
                on=again,
                attempts=None,
                timeout=self._server.patience_s,
                wait_initial=FIRST_WAIT,
                wait_max=LONGEST_WAIT,
                wait_jitter=min(1.0, FIRST_WAIT),
            ):
                with attempt:
                    await limit.turn()
                    return await self._try(client, request)
        except RetryError as error:
            return Answer(
                request.key,
                "",
                FAILED,
                f"no answer came within {self._server.patience_s:g} s; the last failure: {error}",
                0,
                0,
            )
        raise AssertionError("a retry ends with an answer or an error")

    async def _try(self, client: httpx.AsyncClient, request: Request) -> Answer:
        try:
            reply = await client.post("chat/completions", json=self._body(request))
        except httpx.TransportError as error:
            self._tell(f"{type(error).__name__}: {error}")
            raise RetryError(f"{type(error).__name__}: {error}") from error
        if reply.status_code in AGAIN:
            self._tell(f"status {reply.status_code}")
            raise RetryError(
                f"status {reply.status_code}: {reply.text[:200]}", seconds_of(reply.headers.get("retry-after"))
            )
        if reply.status_code in (401, 403, 404):
            raise RuntimeError(
                f"{self._server.base_url}: the server answers status {reply.status_code} to requests for the model "
                f"{self._server.model}: {reply.text[:300]}"
            )
        if reply.status_code != 200:
            return Answer(request.key, "", REFUSED, f"status {reply.status_code}: {reply.text[:300]}", 0, 0)
        return _answer(request.key, reply)

    def _body(self, request: Request) -> dict[str, Any]:
        """What is asked; settings beyond OpenAI's own only where they differ from doing nothing."""
        sampling = request.sampling
        body: dict[str, Any] = {
            "model": self._server.model,
            "messages": [dict(m) for m in request.messages],
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
            "seed": request.seed,
            "stream": False,
        }
        if request.form:
            form = {"name": "answer", "schema": json.loads(request.form), "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        if sampling.top_k:
            body["top_k"] = sampling.top_k
        if sampling.repetition_penalty != 1:
            body["repetition_penalty"] = sampling.repetition_penalty
        return body

    def _tell(self, trouble: str) -> None:
        """Say what troubles the server, at most every ten seconds."""
        if time.monotonic() - self._said > 10:
            self._said = time.monotonic()
            self._log(f"{self._server.base_url}: {trouble}; the request is tried again")


def _answer(key: str, reply: httpx.Response) -> Answer:
    """The answer in a reply. Raises RetryError where it is malformed: a proxy's page, half a body."""
    try:
        content = reply.json()
        choice, usage = content["choices"][0], content.get("usage") or {}
        text, reason = choice["message"]["content"] or "", choice["finish_reason"]
        tokens = [int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens")]
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise RetryError(f"a malformed answer ({type(error).__name__}): {reply.text[:200]}") from error
    if not isinstance(text, str) or reason not in FINISHED:
        return Answer(key, "", REFUSED, f"the answer ended with finish reason {reason!r}", *tokens)
    return Answer(key, text.strip(), reason, None, *tokens)
