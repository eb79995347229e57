"""Engines that aren't vLLM in this process: any server with OpenAI's interface, and recorded answers."""

import json
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from upath import UPath

from pipeline.engines import openai
from pipeline.engines.finished import FinishedRequests, finish
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
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

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
