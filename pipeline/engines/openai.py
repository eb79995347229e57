"""Any server with OpenAI's chat-completions interface: many requests in flight, tried again with patience where the server stumbles."""

import asyncio
import json
import queue
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, get_args

import httpx
import stamina
from pydantic import JsonValue

from pipeline.engines.content import MARKS
from pipeline.engines.cut import uncut
from pipeline.engines.patience import (
    AGAIN,
    FIRST_WAIT,
    LONGEST_WAIT,
    RetryError,
    _Limit,
    again,
    authorization,
    seconds_of,
    without_key,
)
from pipeline.engines.requests import FAILED, REFUSED, Answer, Request
from pipeline.models.marks import WELL_KNOWN
from pipeline.settings import Parameter, Server
from pipeline.worker import Log

_UNKNOWN = re.compile(
    r"(?i)unsupported|not support|unrecogni[sz]ed|unknown|unexpected|not permitted|not allowed|extra_forbidden"
)
Answers = queue.Queue[Answer | BaseException | None]

stamina.instrumentation.set_on_retry_hooks([])  # what is tried again is told in our own log, without contents


class OpenAIEngine:
    """A client of one server. The API key is read from the environment and stands in no message."""

    def __init__(self, server: Server, log: Log, chat_template_kwargs: Mapping[str, JsonValue] | None = None) -> None:
        """Raises ValueError where the key's environment variable is not set, or holds no key."""
        self._server, self._log = server, log
        self._more = dict(server.extra_body) | (
            {"chat_template_kwargs": dict(chat_template_kwargs)} if chat_template_kwargs else {}
        )
        self._headers = authorization(server.key_env, server.base_url) if server.key_env else {}
        self._said = 0.0

    def answer(self, requests: Sequence[Request]) -> Iterator[Answer]:
        """See `Engine.answer`. A request that the server will not take is refused, one that it doesn't answer in time has failed: both alone."""
        return uncut(self._answers(requests), requests, self._log)

    def _answers(self, requests: Sequence[Request]) -> Iterator[Answer]:
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
        status, content = _read(reply)
        said = without_key(reply.text, self._headers)[:300]
        if (
            status in AGAIN and "insufficient_quota" not in reply.text
        ):  # OpenAI's 429 where no credit is left: no time mends that
            self._tell(f"status {status}")
            raise RetryError(f"status {status}: {said}", seconds_of(reply.headers.get("retry-after")))
        if status in (401, 404):
            raise RuntimeError(
                f"{self._server.base_url}: the server answers status {status} to requests for the model {self._server.model}: {said}"
            )
        if status != 200:
            return Answer(request.key, "", REFUSED, f"status {status}: {said}{_hint(reply.text)}", 0, 0)
        try:
            return _answer(request, content, self._server.begins_thought)
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise RetryError(f"a malformed answer ({type(error).__name__}): {said}") from error

    def _body(self, request: Request) -> dict[str, Any]:
        """What is asked; settings beyond OpenAI's own only where they differ from doing nothing."""
        sampling = request.sampling
        asked: dict[Parameter, Any] = {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
            "seed": request.seed,
        }
        if request.form:
            form = {"name": "answer", "schema": json.loads(request.form), "strict": True}
            asked["response_format"] = {"type": "json_schema", "json_schema": form}
        if sampling.stop:
            asked["stop"] = list(sampling.stop)
        if sampling.top_k:
            asked["top_k"] = sampling.top_k
        if sampling.repetition_penalty != 1:
            asked["repetition_penalty"] = sampling.repetition_penalty
        named = {name: value for parameter, value in asked.items() if (name := self._server.name_of(parameter))}
        messages = [dict(m) for m in request.messages]
        return {"model": self._server.model, "messages": messages, **named, "stream": False, **self._more}

    def _tell(self, trouble: str) -> None:
        """Say what troubles the server, at most every ten seconds."""
        if time.monotonic() - self._said > 10:
            self._said = time.monotonic()
            self._log(f"{self._server.base_url}: {trouble}; the request is tried again")


def _hint(refusal: str) -> str:
    """What helps where a server refuses a parameter."""
    if _UNKNOWN.search(refusal) and any(name in refusal for name in get_args(Parameter)):
        return (
            "; `parameters` of the checkpoint's `server` give a parameter another name, or leave it out: "
            "{max_tokens: max_completion_tokens, seed: null}"
        )
    return ""


def _read(reply: httpx.Response) -> tuple[int, Any]:
    """A reply's status and JSON, None where it has none. Some gateways answer with 200, and say the status of an error in the JSON."""
    try:
        content = reply.json()
    except ValueError:
        return reply.status_code, None
    error = content.get("error") if isinstance(content, dict) and "choices" not in content else None
    code = error.get("code") if isinstance(error, dict) else None
    if reply.status_code == 200 and isinstance(code, int) and 400 <= code < 600:
        return code, content
    return reply.status_code, content


def _answer(request: Request, content: Any, begins_thought: bool) -> Answer:
    """The answer in a reply's JSON. Raises ValueError, KeyError, IndexError, TypeError or AttributeError where it is malformed, or an error."""
    choice, usage = content["choices"][0], content.get("usage") or {}
    message, reason = choice["message"], choice.get("finish_reason")
    prompt_tokens, output_tokens = (int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens"))
    if reason == "error":  # of the provider behind the server, in the middle of an answer
        raise ValueError(f"finish reason {reason}")
    text, *thoughts = _texts(message.get("content"))
    thoughts += [t for name in ("reasoning_content", "reasoning") if isinstance(t := message.get(name), str)]
    thought = "\n\n".join(dict.fromkeys(filter(None, map(str.strip, thoughts)))) or None
    if not text.strip() and message.get("refusal"):
        return Answer(
            request.key, "", REFUSED, f"the model refuses: {message['refusal']}", prompt_tokens, output_tokens, thought
        )
    if not text.strip() and message.get("tool_calls"):
        reason = "tool_calls"
    if reason is None:  # some servers say none
        reason = "length" if output_tokens >= request.sampling.max_tokens else "stop"
    if begins_thought and not (thought or request.form or any(closing in text for _, closing in MARKS)):
        text = MARKS[0][0] + text
    return Answer(request.key, text.strip(), str(reason), None, prompt_tokens, output_tokens, thought)


def _texts(content: Any) -> list[str]:
    """A message's content, and what of it are thoughts. It is a text, nothing, or a list of parts (Mistral's and Anthropic's thoughts among them)."""
    if not isinstance(content, list):
        return [content or ""]
    texts = [part["text"] for part in content if part["type"] in ("text", "output_text")]
    thoughts = [part["thinking"] for part in content if part["type"] == "thinking"]
    return ["".join(texts), *("".join(_texts(thought)) for thought in thoughts)]
