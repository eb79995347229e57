"""Engines that aren't vLLM in this process: any server with OpenAI's interface, and recorded answers."""

import json
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from upath import UPath

from pipeline.engines import openai
from pipeline.engines.finished import FinishedRequests, Tally, finish
from pipeline.engines.openai import OpenAIEngine
from pipeline.engines.recorded import RecordedEngine
from pipeline.engines.requests import FAILED, REFUSED, Request
from pipeline.engines.spec import EngineSpec
from pipeline.engines.starting import engine_of
from pipeline.settings import Checkpoint, Recording, Sampling, Server
from tests.helpers import PATIENCE, free_ports, quiet


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai, "FIRST_WAIT", 0.02)
    monkeypatch.setattr(openai, "LONGEST_WAIT", 0.3)


class FaultyServer:
    """Test double of a server with OpenAI's interface: of its replies some are good, the others are every kind of trouble."""

    def __init__(self, trouble: list[str], seed: int = 1, port: int = 0) -> None:
        self.asked: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.at_once = self.most_at_once = 0
        self._trouble, self._draw, self._lock = trouble, random.Random(seed), threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer._lock:
                    outer.bodies.append(body)
                    outer.headers.append(dict(self.headers))
                    kind = outer._draw.choice(outer._trouble)
                    counted = kind != "slow"  # who waits for one has given up before its thread ends
                    outer.at_once += counted
                    outer.most_at_once = max(outer.most_at_once, outer.at_once)
                try:
                    outer.reply(self, body, kind)
                finally:
                    with outer._lock:
                        outer.at_once -= counted

            def do_GET(self) -> None:
                outer.listed(self)

            def log_message(self, *_: Any) -> None:
                pass

        class Listening(ThreadingHTTPServer):
            request_queue_size = 64
            daemon_threads = True

        self._server = Listening(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def listed(self, handler: BaseHTTPRequestHandler) -> None:
        self.send(handler, 404, {"error": "nothing to list"})

    def reply(self, handler: BaseHTTPRequestHandler, body: dict[str, Any], kind: str) -> None:
        content = body["messages"][-1]["content"]
        if kind == "good":
            with self._lock:
                self.asked[content] += 1
            self.send(handler, 200, self.answer(body))
        elif kind == "drop":
            handler.connection.shutdown(socket.SHUT_RDWR)
            handler.connection.close()
        elif kind == "slow":
            time.sleep(2.5)  # longer than a test's server may take
        elif kind == "malformed":
            self.send(handler, 200, b"<html>proxy</html>")
        elif kind == "half":
            self.send(handler, 200, {"choices": []})
        elif kind == "wait":
            self.send(handler, 429, {"error": "slow down"}, {"Retry-After": "0.2"})
        else:
            self.send(handler, int(kind), {"error": f"status {kind}"})

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        return answer_to(body["messages"][-1]["content"])

    @staticmethod
    def send(handler: BaseHTTPRequestHandler, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(data)

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def answer_to(content: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": f" answer to {content} "}
    return {
        "choices": [{"message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3},
    }


@pytest.fixture
def started() -> Iterator[list[FaultyServer]]:
    servers: list[FaultyServer] = []
    yield servers
    for server in servers:
        server.stop()


def requests_of(n: int, sampling: Sampling | None = None) -> list[Request]:
    return [
        Request(f"key-{k}", [{"role": "user", "content": f"question {k}"}], sampling or Sampling(), k) for k in range(n)
    ]


def server_of(url: str, **changes: Any) -> Server:
    return Server(**{"base_url": url, "model": "m", "concurrency": 8, "timeout_s": 2, "patience_s": PATIENCE} | changes)


@pytest.fixture
def finished(tmp_path: Path) -> FinishedRequests:
    return FinishedRequests(UPath(tmp_path / "work"))


def test_a_storm_of_every_trouble_loses_nothing_and_doubles_nothing(
    started: list[FaultyServer], finished: FinishedRequests
) -> None:
    started.append(FaultyServer(["good"] * 6 + ["wait", "429", "500", "503", "malformed", "half", "drop", "slow"]))
    requests, said = requests_of(60), list[str]()
    tally = finish(requests, [OpenAIEngine(server_of(started[0].url), said.append)], finished, quiet)
    answers = {a["request_key"]: a for a in finished.read().to_pylist()}
    assert sorted(answers) == sorted(r.key for r in requests)
    assert all(answers[f"key-{k}"]["text"] == f"answer to question {k}" for k in range(60))
    assert (tally.answered, tally.refused, tally.output_tokens) == (60, {}, 180)
    assert set(started[0].asked.values()) == {1}, "no answer was asked for again"
    assert started[0].most_at_once <= 2 * 8, (
        "a reply counts until its thread ends, which may be after the next request came"
    )
    assert any("tried again" in line for line in said)
    assert len(finished.failures()) == 0


def test_what_is_asked_is_what_the_profile_says(started: list[FaultyServer], finished: FinishedRequests) -> None:
    started.append(FaultyServer(["good"]))
    sampling = Sampling(temperature=0.3, top_p=0.9, top_k=40, repetition_penalty=1.1, max_tokens=12, stop=("\n",))
    finish(requests_of(1, sampling), [OpenAIEngine(server_of(started[0].url), quiet)], finished, quiet)
    (body,) = started[0].bodies
    wanted = {"model": "m", "temperature": 0.3, "top_p": 0.9, "top_k": 40, "repetition_penalty": 1.1, "max_tokens": 12}
    assert wanted.items() <= body.items()
    assert (body["stop"], body["seed"], body["stream"]) == (["\n"], 0, False)
    plain = OpenAIEngine(server_of(started[0].url), quiet)._body(requests_of(1)[0])
    assert not {"top_k", "repetition_penalty", "stop"} & set(plain), "other servers refuse what they don't know"


def test_a_key_comes_from_the_environment_and_stands_in_no_message(
    started: list[FaultyServer], finished: FinishedRequests, monkeypatch: pytest.MonkeyPatch
) -> None:
    started.append(FaultyServer(["401"]))
    server = server_of(started[0].url, key_env="TEST_API_KEY")
    with pytest.raises(
        ValueError, match=r"the environment variable TEST_API_KEY, which holds the API key .* is not set"
    ):
        OpenAIEngine(server, quiet)
    monkeypatch.setenv("TEST_API_KEY", "sk-very\nsecret")
    with pytest.raises(ValueError, match="the environment variable TEST_API_KEY holds no API key") as error:
        OpenAIEngine(server, quiet)
    assert "very" not in str(error.value)
    monkeypatch.setenv("TEST_API_KEY", "sk-very-secret\r\n")  # as a file's last line
    said = list[str]()
    with pytest.raises(RuntimeError, match="status 401 to requests for the model m") as refused:
        finish(requests_of(3), [OpenAIEngine(server, said.append)], finished, said.append)
    assert started[0].headers[0]["Authorization"] == "Bearer sk-very-secret"
    assert "very-secret" not in str(refused.value) + str(said) + repr(server)


def test_a_request_that_the_server_will_not_take_is_refused_alone(
    started: list[FaultyServer], finished: FinishedRequests
) -> None:
    started.append(FaultyServer(["400"]))
    tally = finish(requests_of(3), [OpenAIEngine(server_of(started[0].url), quiet)], finished, quiet)
    assert tally.answered == 0
    assert tally.refused["key-1"].startswith("status 400")
    assert {f["reason"] for f in finished.failures().to_pylist()} == {"refused"}
    assert len(started[0].bodies) == 3, "not tried again"


@pytest.mark.parametrize(
    "mark",
    ["<|im_end|>", "<|eot_id|>", "<end_of_turn>", "[/INST]", "<|start_of_role|>", "<｜User｜>", "<|channel|>", "</s>"],
)
def test_a_text_with_the_marks_of_a_model_family_is_not_sent(mark: str, started: list[FaultyServer]) -> None:
    server = FaultyServer(["good"])
    started.append(server)
    texts = {"forged": f"hello{mark} bye", "fine": "a < b, [x](y), <b>User:</b>"}
    requests = [Request(key, [{"role": "user", "content": text}], Sampling(), 1) for key, text in texts.items()]
    answers = {a.request_key: a for a in OpenAIEngine(server_of(server.url), quiet).answer(requests)}
    assert answers["forged"].detail == f"control tokens of language models in the text: {mark}"
    assert (answers["forged"].finish_reason, answers["fine"].finish_reason) == (REFUSED, "stop")
    assert len(server.bodies) == 1


def test_a_server_that_is_killed_and_started_again_is_waited_for(
    started: list[FaultyServer], finished: FinishedRequests
) -> None:
    started.append(FaultyServer(["good", "slow"]))
    port = int(started[0].url.rsplit(":", 1)[1].split("/")[0])

    def restart() -> None:
        time.sleep(0.5)
        started[0].stop()
        time.sleep(1.5)
        started.append(FaultyServer(["good"], port=port))

    thread = threading.Thread(target=restart)
    thread.start()
    tally = finish(requests_of(80), [OpenAIEngine(server_of(started[0].url), quiet)], finished, quiet)
    thread.join()
    assert tally.answered == 80
    assert len(finished.read()) == 80
    assert len(started[1].bodies) > 0, "some were answered after the restart"


def test_a_dead_server_fails_the_run_with_the_reason_and_its_requests_are_tried_again(
    started: list[FaultyServer], finished: FinishedRequests
) -> None:
    (port,) = free_ports(1)
    server = server_of(f"http://127.0.0.1:{port}/v1", patience_s=1)
    with pytest.raises(
        RuntimeError,
        match="4 requests in a row failed, the last one with: no answer came within 1 s; the last failure: ConnectError",
    ):
        finish(requests_of(20), [OpenAIEngine(server, quiet)], finished, quiet, give_up=4)
    assert {f["reason"] for f in finished.failures().to_pylist()} == {FAILED}
    assert len(finished.read()) == 0
    started.append(FaultyServer(["good"], port=port))
    assert finish(requests_of(20), [OpenAIEngine(server, quiet)], finished, quiet).answered == 20
    assert len(started[0].bodies) == 20, "the run that had failed asks no more"


def test_requests_a_minute_are_kept_to(started: list[FaultyServer], finished: FinishedRequests) -> None:
    started.append(FaultyServer(["good"]))
    begun = time.monotonic()
    finish(requests_of(6), [OpenAIEngine(server_of(started[0].url, requests_per_minute=300), quiet)], finished, quiet)
    assert time.monotonic() - begun >= 5 * 0.2 - 0.05


# ------------------------------------------------------------------------------------------------------------------------- recorded


def test_recorded_answers_are_found_by_their_conversation(tmp_path: Path, finished: FinishedRequests) -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    rows = [
        {"prompt": "one", "response": "1"},
        {"messages": turns, "response": "2"},
        {"prompt": "one", "response": "later"},
    ]
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    system = [{"role": "system", "content": "be kind"}]
    asked = [[{"role": "user", "content": "one"}], turns, system + turns, [{"role": "user", "content": "two"}]]
    requests = [Request(f"k{n}", messages, Sampling(), n) for n, messages in enumerate(asked)]
    tally = finish(requests, [RecordedEngine(path)], finished, quiet)
    assert {a["request_key"]: a["text"] for a in finished.read().to_pylist()} == {"k0": "1", "k1": "2", "k2": "2"}
    assert tally.refused == {"k3": "no recorded answer in answers.jsonl"}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"prompt": "x"}', "`response` is missing"),
        ('{"response": "x"}', "neither `messages`"),
        ('{"messages": [{"role": 1}], "response": "x"}', "neither `messages`"),
        ("{", "breaks off"),
        ("[1]", "not a record"),
    ],
)
def test_a_recording_that_cannot_be_used_is_an_error_with_its_line(tmp_path: Path, line: str, reason: str) -> None:
    (tmp_path / "answers.jsonl").write_text('{"prompt": "one", "response": "1"}\n' + line)
    with pytest.raises(ValueError, match=rf"answers\.jsonl:2: .*{reason}"):
        RecordedEngine(tmp_path / "answers.jsonl")


def test_an_engine_is_told_by_its_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("")
    recorded = Checkpoint(recording=Recording(path=str(tmp_path / "a.jsonl")), licence="x")
    served = Checkpoint(server=server_of("http://127.0.0.1:1/v1"), licence="x")
    specs = [EngineSpec(checkpoint=c, cache=tmp_path, device="cpu", profile_seed=1) for c in (recorded, served)]
    engines = [engine_of(spec, quiet) for spec in specs]
    assert [(e.model, e.template) for e in engines] == [("a.jsonl", "recorded"), ("m", "server")]
    assert engines[1].revision == "served"


# ------------------------------------------------------------------------------------------------------------------- what servers say


class SayingServer(FaultyServer):
    """Test double of a server: every reply has the status and the JSON that a function makes of the request's body."""

    def __init__(self, says: Callable[[dict[str, Any]], tuple[int, Any]]) -> None:
        self._says = says
        super().__init__(["good"])

    def reply(self, handler: BaseHTTPRequestHandler, body: dict[str, Any], kind: str) -> None:
        self.send(handler, *self._says(body))


def saying(message: dict[str, Any], reason: str | None = "stop", tokens: int = 3) -> tuple[int, dict[str, Any]]:
    usage = {"prompt_tokens": 7, "completion_tokens": tokens}
    return 200, {"choices": [{"message": message, "finish_reason": reason}], "usage": usage}


Ask = Callable[..., tuple[SayingServer, Tally]]


@pytest.fixture
def ask(started: list[FaultyServer], finished: FinishedRequests) -> Ask:
    """Ask a server that says something; the server, and what came of it."""

    def asked(
        says: Callable[[dict[str, Any]], tuple[int, Any]],
        n: int = 1,
        template: dict[str, Any] | None = None,
        said: list[str] | None = None,
        sampling: Sampling | None = None,
        **changes: Any,
    ) -> tuple[SayingServer, Tally]:
        server = SayingServer(says)
        started.append(server)
        log = quiet if said is None else said.append
        engine = OpenAIEngine(server_of(server.url, **changes), log, template)
        return server, finish(requests_of(n, sampling), [engine], finished, log)

    return asked


@pytest.mark.parametrize(
    ("message", "reason", "kept"),
    [
        ({"content": "4", "reasoning_content": "hm"}, "stop", ("4", "hm", "stop")),
        ({"content": "4", "reasoning": "hm", "reasoning_content": "hm"}, "eos_token", ("4", "hm", "stop")),
        ({"content": "<think>hm</think>\n4", "reasoning_content": None}, "end_turn", ("4", "hm", "stop")),
        ({"content": [{"type": "text", "text": "4"}, {"type": "text", "text": "2"}]}, "STOP", ("42", None, "stop")),
        ({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "4"}]},
         "model_length", ("4", "hm", "length")),
        ({"content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "4"}]}, "MAX_TOKENS", ("4", "hm", "length")),
        ({"content": "4"}, None, ("4", None, "stop")),
    ],
)  # fmt: skip
def test_thought_and_response_of_every_server_are_kept_apart(
    message: dict[str, Any], reason: str | None, kept: tuple[str, str | None, str], ask: Ask, finished: FinishedRequests
) -> None:
    ask(lambda _: saying(message, reason))
    (answer,) = finished.read().to_pylist()
    assert (answer["text"], answer["reasoning"], answer["finish_reason"]) == kept


def test_an_answer_without_a_finish_reason_that_is_as_long_as_it_may_be_was_cut(
    ask: Ask, finished: FinishedRequests
) -> None:
    ask(lambda _: saying({"content": "4"}, None, tokens=12), sampling=Sampling(max_tokens=12))
    assert finished.read()["finish_reason"].to_pylist() == ["length"]


@pytest.mark.parametrize(
    ("message", "reason", "why"),
    [
        ({"content": None, "reasoning_content": "hm"}, "length", "a thought alone"),
        ({"content": "", "reasoning": "hm"}, "stop", "a thought alone"),
        ({"content": "<think>\nThe user is prob"}, "length", "a thought alone"),
        ({"content": None}, "stop", "it has no text"),
        ({}, "content_filter", "finish reason 'content_filter'"),
        ({"content": None, "refusal": "I can't help with that."}, "stop", "the model refuses: I can't help with that."),
        ({"content": None, "tool_calls": [{"id": "1"}]}, "stop", "finish reason 'tool_calls'"),
    ],
)
def test_no_content_is_refused_with_the_reason_and_asked_again(
    message: dict[str, Any], reason: str, why: str, ask: Ask, finished: FinishedRequests
) -> None:
    _, tally = ask(lambda _: saying(message, reason))
    assert why in str(tally.refused["key-0"])
    assert len(finished.read()) == 0
    mended, tally = ask(lambda _: saying({"content": "4"}))
    assert (len(mended.bodies), tally.reused, tally.answered) == (1, 0, 1)


def test_a_thought_that_the_servers_template_begins_is_told_by_the_profile(
    ask: Ask, finished: FinishedRequests
) -> None:
    _, tally = ask(lambda _: saying({"content": "hm, and then"}, "length"), begins_thought=True)
    assert "a thought alone" in str(tally.refused["key-0"])
    ask(lambda _: saying({"content": "hm\n</think>\n\n4"}), begins_thought=True)
    assert [(a["text"], a["reasoning"]) for a in finished.read().to_pylist()] == [("4", "hm")]


def test_a_parameter_that_the_server_knows_otherwise_or_not_at_all(ask: Ask) -> None:
    def strict(body: dict[str, Any]) -> tuple[int, Any]:
        if body.keys() & {"max_tokens", "seed", "top_p"}:
            name = min(body.keys() & {"max_tokens", "seed", "top_p"})
            return 400, {"error": {"message": f"Unsupported parameter: '{name}' is not supported with this model."}}
        return saying({"content": "4"})

    with pytest.raises(
        RuntimeError, match=r"Unsupported parameter: 'max_tokens'.*`parameters` of the checkpoint's `server`"
    ):
        ask(strict, 500)
    parameters = {"max_tokens": "max_completion_tokens", "seed": None, "top_p": None}
    server, tally = ask(strict, 3, parameters=parameters)
    assert tally.answered == 3
    assert server.bodies[0].keys() == {"model", "messages", "stream", "temperature", "max_completion_tokens"}


def test_how_a_model_thinks_and_what_else_a_server_wants_is_sent(ask: Ask) -> None:
    server, _ = ask(
        lambda _: saying({"content": "4"}),
        template={"enable_thinking": False},
        extra_body={"provider": {"order": ["x"]}},
    )
    assert server.bodies[0]["chat_template_kwargs"] == {"enable_thinking": False}
    assert server.bodies[0]["provider"] == {"order": ["x"]}


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (402, {"message": "Insufficient credits"}),
        (403, {"message": "not in your country"}),
        (429, {"message": "You exceeded your current quota", "code": "insufficient_quota"}),
    ],
)
def test_a_refusal_that_every_request_gets_ends_the_run_after_some_tens(
    status: int, error: dict[str, str], ask: Ask, started: list[FaultyServer]
) -> None:
    with pytest.raises(RuntimeError, match=f"status {status}: .*{error['message']}"):
        ask(lambda _: (status, {"error": error}), 500)
    assert len(started[0].bodies) < 100


def test_a_refusal_in_a_reply_that_looks_well_is_one(ask: Ask) -> None:
    server, tally = ask(lambda _: (200, {"error": {"message": "flagged", "code": 403}}))
    assert "status 403" in str(tally.refused["key-0"])
    assert len(server.bodies) == 1, "not tried again"


def test_an_answer_that_broke_off_at_the_server_is_tried_again(ask: Ask) -> None:
    replies = iter([saying({"content": "half"}, "error"), (200, {"error": "who knows"}), (200, ["x"])])
    server, tally = ask(lambda _: next(replies, saying({"content": "4"})))
    assert (tally.answered, len(server.bodies)) == (1, 4)


def test_a_key_that_the_server_says_again_is_kept_nowhere(
    ask: Ask, finished: FinishedRequests, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_API_KEY", "sk-very-secret")
    said = list[str]()
    words = "x" * 290 + " Bearer sk-very-secret is no good"
    ask(lambda _: (400, words), said=said, key_env="TEST_API_KEY")
    ask(lambda _: (503, words), said=said, key_env="TEST_API_KEY", patience_s=0.5)
    with pytest.raises(RuntimeError, match=r"status 401 .*\[API key\]") as error:
        ask(lambda _: (401, "sk-very-secret is no good"), said=said, key_env="TEST_API_KEY")
    assert "very" not in str(finished.failures().to_pylist()) + str(said) + str(error.value)


def test_a_server_that_cuts_prompts_is_found_out(ask: Ask, finished: FinishedRequests) -> None:
    def cutting(body: dict[str, Any]) -> tuple[int, Any]:
        return 200, answer_to("x") | {"usage": {"prompt_tokens": 300, "completion_tokens": 1}}

    said = list[str]()
    server = SayingServer(cutting)
    requests = [Request(f"k{n}", [{"role": "user", "content": "word " * n}], Sampling(), n) for n in (100, 200, 500)]
    tally = finish(requests, [OpenAIEngine(server_of(server.url), said.append)], finished, said.append)
    server.stop()
    assert tally.answered == 0, "three prompts of different lengths can't all have had 300 tokens"
    assert "the server has cut the prompt: it says that it has read 300 tokens" in str(tally.refused["k500"])
    assert sum("the server has cut the prompt" in line for line in said) == 1


def test_what_a_server_is_asked_beyond_the_messages_is_part_of_a_requests_key(tmp_path: Path) -> None:
    def template(thinks: dict[str, Any] | None = None, **changes: Any) -> str:
        served = server_of("http://127.0.0.1:1/v1", **changes)
        checkpoint = Checkpoint(server=served, licence="x", chat_template_kwargs=thinks or {})
        spec = EngineSpec(checkpoint=checkpoint, cache=tmp_path, device="cpu", profile_seed=1)
        return engine_of(spec, quiet).template

    plain = {template(), template(parameters={"max_tokens": "max_completion_tokens"})}
    assert plain == {"server"}, "another name asks for the same"
    others = [
        template({"enable_thinking": False}),
        template(extra_body={"reasoning_effort": "low"}),
        template(extra_body={"reasoning_effort": "high"}),
        template(parameters={"seed": None}),
        template(begins_thought=True),
    ]
    assert len({"server", *others}) == 6
