"""A server that scores: vLLM's `/classify`, or `/pooling`, with many requests in flight, tried again with patience where it stumbles."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx
import numpy as np
import stamina

from pipeline.engines.alike import ALIKE, reason_of
from pipeline.engines.patience import (
    AGAIN,
    FIRST_WAIT,
    LONGEST_WAIT,
    RetryError,
    again,
    authorization,
    seconds_of,
    without_key,
)
from pipeline.evaluation.scorers.scorer import Conversation, Scored, kept_outputs
from pipeline.evaluation.scorers.specs import EndpointSpec
from pipeline.models.marks import WELL_KNOWN, as_text
from pipeline.settings import digest
from pipeline.worker import Log

PATHS = ("/classify", "/pooling")
PROBES = (
    Conversation([{"role": "user", "content": "What is the capital of France?"}], "The capital of France is Paris."),
    Conversation([{"role": "user", "content": "What is the capital of France?"}], "no idea lol"),
)
"""Are scored when a run begins: a server's weights can't be hashed, so these scores stand for them in what a score is kept under."""

NOT_FINITE = 3
"""Attempts after which outputs that are not finite are no passing trouble: the conversation has no score."""


class EndpointError(RuntimeError):
    """A server that can't be scored with; the message says why."""


class Endpoint:
    """A client of one server; see `Scorer`. The API key is read from the environment and stands in no message."""

    def __init__(self, spec: EndpointSpec, log: Log) -> None:
        """Ask the server what it has. Raises ValueError where the key's variable is not set, EndpointError where the server is of no use."""
        self._spec, self._log, self._said = spec, log, 0.0
        headers = authorization(spec.key_env, spec.url) if spec.key_env else {}
        base, self._path = _parts(spec.url)
        limits = httpx.Limits(max_connections=spec.concurrency, max_keepalive_connections=spec.concurrency)
        self._client = httpx.Client(base_url=base, headers=headers, timeout=spec.timeout_s, limits=limits)
        card = self._card()
        self._model = str(card["id"])
        self._max_tokens = min(spec.max_tokens, int(card.get("max_model_len") or spec.max_tokens))
        first, second = (self._one(probe) for probe in PROBES)
        if isinstance(first, str) or isinstance(second, str):
            raise EndpointError(
                f"{spec.url}: the server gives no scores: {first if isinstance(first, str) else second}"
            )
        if first[0] == second[0]:
            raise EndpointError(
                f"{spec.url}: the server gives different responses the same outputs {first[0]}, so it normalises "
                f"them; have it give raw outputs (vLLM: use_activation)"
            )
        own = [f"LABEL_{n}" for n in range(len(first[0]))]
        self.outputs, self._places = kept_outputs(own, spec.outputs, spec.url)
        self.name, self.device = self._model, urlsplit(base).netloc
        self.identity: dict[str, Any] = {
            "served": self._model,
            "root": card.get("root"),
            "url": base,
            "scores": [[float(f"{value:.3g}") for value in values] for values, _ in (first, second)],
            "max_tokens": self._max_tokens,
            "outputs": list(self.outputs),
        }
        self.version = digest(self.identity)

    def score(self, conversations: Sequence[Conversation]) -> Iterator[Scored]:
        """See `Scorer.score`. What the server will not take has no score; the log says why, once for each reason."""
        said, alike, last = set[str](), 0, ""
        with ThreadPoolExecutor(self._spec.concurrency) as pool:
            asked = {pool.submit(self._one, conversation): n for n, conversation in enumerate(conversations)}
            try:
                for done in as_completed(asked):
                    found = done.result()
                    if isinstance(found, str):
                        alike = alike + 1 if reason_of(found) == last else 1
                        last = reason_of(found)
                        if alike >= ALIKE:
                            raise EndpointError(
                                f"{self._spec.url}: {ALIKE} conversations after one another were refused for the same reason, so it is not "
                                f"theirs: {found}. The scores so far are kept"
                            )
                        if found not in said:
                            said.add(found)
                            self._log(f"A conversation is not scored: {found}")
                        values, tokens = np.full(len(self.outputs), np.nan), 0
                    elif max(self._places) >= len(found[0]):
                        raise EndpointError(
                            f"{self._spec.url}: the server gave {len(found[0])} outputs for a conversation, and another number before"
                        )
                    else:
                        values, tokens = (
                            np.array([found[0][place] for place in self._places], dtype=np.float64),
                            found[1],
                        )
                        last = ""
                    yield Scored(
                        np.array([asked[done]]),
                        values[None],
                        np.array([tokens]),
                        np.array([tokens >= self._max_tokens]),
                    )
            finally:  # whoever stops listening stops the requests too
                pool.shutdown(wait=False, cancel_futures=True)

    def _card(self) -> dict[str, Any]:
        """The server's own description of the model that is asked for."""
        try:
            reply = self._client.get("/v1/models")
            reply.raise_for_status()
            cards = {str(card["id"]): card for card in reply.json()["data"]}
        except httpx.TransportError as error:
            raise EndpointError(
                f"{self._spec.url}: no server answers at this address ({type(error).__name__}: {error})"
            ) from None
        except (httpx.HTTPStatusError, ValueError, KeyError, TypeError) as error:
            raise EndpointError(
                f"{self._spec.url}: the server's list of models (/v1/models) can't be read: {error}"
            ) from None
        wanted = self._spec.served_model or (next(iter(cards)) if len(cards) == 1 else None)
        if wanted not in cards:
            raise EndpointError(
                f"{self._spec.url}: the server has the models {', '.join(cards) or 'none'}; name one of them with --served-model"
            )
        return dict(cards[wanted])

    def _one(self, conversation: Conversation) -> tuple[list[float], int] | str:
        """A conversation's outputs and tokens, or why the server won't take it."""
        messages = [*conversation.messages, {"role": "assistant", "content": conversation.response}]
        body = {
            "model": self._model,
            "messages": [{**m, "content": as_text(m["content"], WELL_KNOWN)} for m in messages],
            "add_generation_prompt": False,
            "use_activation": False,
            "truncate_prompt_tokens": self._max_tokens,
            "truncation_side": "left",
        } | ({"task": "classify"} if self._path == "/pooling" else {})
        try:
            for attempt in stamina.retry_context(
                on=again,
                attempts=None,
                timeout=self._spec.patience_s,
                wait_initial=FIRST_WAIT,
                wait_max=LONGEST_WAIT,
                wait_jitter=min(1.0, FIRST_WAIT),
            ):
                with attempt:
                    found = self._try(body)
                    if isinstance(found, str) or np.isfinite(found[0]).all():
                        return found
                    if attempt.num >= NOT_FINITE:
                        return "its outputs are not finite"
                    raise RetryError(f"its outputs are not finite: {found[0]}")
        except RetryError as error:
            raise EndpointError(
                f"{self._spec.url}: no answer came within {self._spec.patience_s:g} s; the last failure: {error}. The scores so far are kept"
            ) from None
        raise AssertionError("a retry ends with an answer or an error")

    def _try(self, body: dict[str, Any]) -> tuple[list[float], int] | str:
        try:
            reply = self._client.post(self._path, json=body)
        except httpx.TransportError as error:
            self._tell(f"{type(error).__name__}: {error}")
            raise RetryError(f"{type(error).__name__}: {error}") from error
        text = without_key(reply.text, self._client.headers)
        unpaid = "insufficient_quota" in reply.text  # a 429 that no time mends
        if reply.status_code in AGAIN and not unpaid:
            self._tell(f"status {reply.status_code}")
            wait = seconds_of(reply.headers.get("retry-after"))
            raise RetryError(f"status {reply.status_code}: {text[:200]}", wait)
        if reply.status_code in (401, 402, 403, 404, 405) or unpaid:
            raise EndpointError(
                f"{self._spec.url}: the server answers status {reply.status_code} to {self._path}: {text[:300]}"
            )
        if reply.status_code != 200:
            return f"status {reply.status_code}: {text[:300]}"
        return _outputs(reply)

    def _tell(self, trouble: str) -> None:
        """Say what troubles the server, at most every ten seconds."""
        if time.monotonic() - self._said > 10:
            self._said = time.monotonic()
            self._log(f"{self._spec.url}: {trouble}; the request is tried again")


def _parts(url: str) -> tuple[str, str]:
    """Address of the server, and the path that scores."""
    parts = urlsplit(url)
    path = parts.path.rstrip("/")
    scores = next((p for p in PATHS if path.endswith(p)), "")
    base = path.removesuffix(scores).removesuffix("/v1")
    return urlunsplit((parts.scheme, parts.netloc, base, "", "")), scores or PATHS[0]


def _outputs(reply: httpx.Response) -> tuple[list[float], int]:
    """Outputs and number of tokens in a reply. Raises RetryError where it is malformed: a proxy's page, half an answer."""
    try:
        content = reply.json()
        (item,) = content["data"]
        values = item["probs"] if "probs" in item else item["data"]
        values = (
            values[-1] if values and isinstance(values[-1], list) else values
        )  # a row a token: the last one's counts
        found, tokens = [float(value) for value in values], int(content["usage"]["prompt_tokens"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RetryError(f"a malformed answer ({type(error).__name__}): {reply.text[:200]}") from error
    if not found:
        raise RetryError(f"a malformed answer: {reply.text[:200]}")
    return found, tokens
