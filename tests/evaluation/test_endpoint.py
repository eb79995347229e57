"""A server that scores: vLLM's own on loopback, and a double with every trouble."""

import json
import math
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer
from upath import UPath

from pipeline.evaluation.scorers.endpoint import PROBES, Endpoint, EndpointError
from pipeline.evaluation.scorers.model import LocalModel
from pipeline.evaluation.scorers.scorer import Conversation
from pipeline.evaluation.scorers.specs import EndpointSpec, ModelSpec
from pipeline.evaluation.scoring import score
from pipeline.models.checkpoints import resolve
from pipeline.models.classifier import new_model, set_head
from pipeline.models.encoding import prepare_tokenizer
from pipeline.settings import load_profile
from tests.engines.test_engines import FaultyServer
from tests.engines.test_server import VLLMServer
from tests.evaluation.models import QUESTION, answered
from tests.helpers import PATIENCE, quiet

CARD = {"id": "smol", "root": "organisation/smol", "max_model_len": 64}
PROBED = {probe.response for probe in PROBES}


class ScoringServer(FaultyServer):
    """Test double of vLLM's `/classify` and `/pooling`: a response's outputs are its length, and minus it."""

    def __init__(self, trouble: list[str], cards: list[dict[str, Any]] | None = None, form: str = "classify") -> None:
        self.cards, self.form = [CARD] if cards is None else cards, form
        super().__init__(trouble)
        self.url = self.url.removesuffix("/v1")

    def listed(self, handler: BaseHTTPRequestHandler) -> None:
        self.send(handler, 200, {"object": "list", "data": self.cards})

    def reply(self, handler: BaseHTTPRequestHandler, body: dict[str, Any], kind: str) -> None:
        text = body["messages"][-1]["content"]
        if text in PROBED:
            kind = "good"
        if kind == "refused" or text == "refuse me":
            self.send(handler, 400, {"error": "not this one"})
        elif kind == "not a number":
            self.send(handler, 200, {"data": [{"probs": [None]}], "usage": {"prompt_tokens": 3}})
        elif text == "overflow":
            self.send(handler, 200, {"data": [{"probs": [math.nan, math.inf]}], "usage": {"prompt_tokens": 3}})
        else:
            super().reply(handler, body, kind)

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        length = float(len(body["messages"][-1]["content"]))
        outputs = {"one": [length], "even": [1.0]}.get(self.form, [length, -length])
        item = {"index": 0, "probs": outputs}
        if self.form == "tokens":
            item = {"index": 0, "data": [[0.0, 0.0], outputs]}
        return {"data": [item], "usage": {"prompt_tokens": min(64, 7 + int(length))}}


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.evaluation.scorers.endpoint.FIRST_WAIT", 0.02)
    monkeypatch.setattr("pipeline.evaluation.scorers.endpoint.LONGEST_WAIT", 0.1)


@pytest.fixture
def started() -> Iterator[list[ScoringServer]]:
    servers: list[ScoringServer] = []
    yield servers
    for server in servers:
        server.stop()


def spec_of(server: ScoringServer, path: str = "", **changes: Any) -> EndpointSpec:
    fields = {
        "url": server.url + path,
        "concurrency": 8,
        "timeout_s": 60,
        "patience_s": PATIENCE,
        "outputs": ("helpfulness", "verbosity"),
    }
    return EndpointSpec(**{**fields, **changes})


@pytest.mark.parametrize(("form", "path"), [("classify", ""), ("classify", "/classify"), ("tokens", "/pooling")])
def test_a_storm_of_every_trouble_loses_nothing(
    started: list[ScoringServer], tmp_path: Path, form: str, path: str
) -> None:
    server = ScoringServer(
        ["good", "good", "429", "500", "503", "drop", "half", "malformed", "wait", "not a number"], form=form
    )
    started.append(server)
    pairs = [("x" * n, "y" * (n + 1)) for n in range(1, 21)]
    said = list[str]()
    scorer = Endpoint(spec_of(server, path), said.append)
    table, figures = score(
        scorer, answered(pairs), UPath(tmp_path), said.append, {"helpfulness": 1.0, "verbosity": -1.0}
    )
    lengths = [float(len(text)) for pair in pairs for text in pair]
    assert table["helpfulness"].to_pylist() == lengths
    assert table["goodness"].to_pylist() == [2 * n for n in lengths]
    assert (figures["scored"], figures["not_scored"]) == (40, 0)
    assert figures["tokens"] == sum(7 + n for n in lengths)
    assert server.most_at_once <= 2 * 8, "a reply counts until its thread ends"
    assert all(body["use_activation"] is False and body["truncate_prompt_tokens"] == 64 for body in server.bodies)
    assert {body.get("task") for body in server.bodies} == ({"classify"} if path == "/pooling" else {None})
    before = len(server.bodies)
    again, figures = score(
        Endpoint(spec_of(server, path), quiet), answered(pairs), UPath(tmp_path), quiet, {"helpfulness": 1.0}
    )
    assert (figures["scored"], len(server.bodies)) == (0, before + len(PROBES))
    assert again["helpfulness"].to_pylist() == lengths


@pytest.mark.parametrize(("text", "reason"), [("refuse me", "status 400"), ("overflow", "its outputs are not finite")])
def test_a_conversation_without_outputs_has_no_score_and_a_long_one_is_counted(
    started: list[ScoringServer], tmp_path: Path, text: str, reason: str
) -> None:
    started.append(ScoringServer(["good"]))
    said = list[str]()
    scorer = Endpoint(spec_of(started[0]), said.append)
    table, figures = score(scorer, answered([(text, "x" * 500)]), UPath(tmp_path), said.append, {"helpfulness": 1.0})
    assert np.isnan(table["goodness"].to_numpy()).tolist() == [True, False]
    assert (figures["not_scored"], figures["cut"]) == (1, 1)
    assert any(line.startswith(f"A conversation is not scored: {reason}") for line in said)


@pytest.mark.parametrize(("kind", "reason"), [("402", "status 402"), ("unpaid", "insufficient_quota")])
def test_a_server_that_wants_money_ends_the_run(
    started: list[ScoringServer], tmp_path: Path, kind: str, reason: str
) -> None:
    class Unpaid(ScoringServer):
        def reply(self, handler: BaseHTTPRequestHandler, body: dict[str, Any], kind: str) -> None:
            if kind == "unpaid" and body["messages"][-1]["content"] not in PROBED:
                self.send(handler, 429, {"error": {"code": "insufficient_quota"}})
            else:
                super().reply(handler, body, kind)

    started.append(Unpaid([kind]))
    scorer = Endpoint(spec_of(started[0]), quiet)
    with pytest.raises(EndpointError, match=reason):
        score(scorer, answered([("a", "b")]), UPath(tmp_path), quiet, {"helpfulness": 1.0})


def test_what_the_server_says_to_every_conversation_ends_the_run(started: list[ScoringServer], tmp_path: Path) -> None:
    started.append(ScoringServer(["refused"]))
    pairs = [("x" * n, "y" * n) for n in range(1, 80)]
    with pytest.raises(
        EndpointError, match=r"32 conversations .* refused for the same reason.* status 400: .*not this"
    ):
        score(Endpoint(spec_of(started[0]), quiet), answered(pairs), UPath(tmp_path), quiet, {"helpfulness": 1.0})
    assert len(started[0].bodies) < 100


def test_other_weights_behind_the_same_name_are_another_model(started: list[ScoringServer]) -> None:
    started.append(ScoringServer(["good"]))
    before = Endpoint(spec_of(started[0]), quiet)
    assert Endpoint(spec_of(started[0]), quiet).identity == before.identity
    started[0].answer = lambda body: {
        "data": [{"probs": [len(body["messages"][-1]["content"]) / 2, 0.0]}],
        "usage": {"prompt_tokens": 1},
    }  # type: ignore[method-assign]
    assert Endpoint(spec_of(started[0]), quiet).version != before.version


def test_a_single_output_is_the_reward(started: list[ScoringServer]) -> None:
    started.append(ScoringServer(["good"], form="one"))
    (scored,) = Endpoint(spec_of(started[0], outputs=None), quiet).score([Conversation(QUESTION, "abc")])
    assert scored.outputs.tolist() == [[3.0]]


@pytest.mark.parametrize(
    ("cards", "form", "changes", "reason"),
    [
        ([CARD, CARD | {"id": "other"}], "classify", {}, "has the models smol, other; name one of them"),
        ([CARD], "classify", {"served_model": "third"}, "has the models smol; name one"),
        ([], "classify", {}, "has the models none"),
        ([CARD], "even", {"outputs": None}, "gives different responses the same outputs"),
        ([CARD], "classify", {"outputs": None}, "its outputs LABEL_0, LABEL_1 are none of those known here"),
    ],
)
def test_a_server_that_is_of_no_use_is_refused(
    started: list[ScoringServer], cards: list[dict[str, Any]], form: str, changes: dict[str, Any], reason: str
) -> None:
    started.append(ScoringServer(["good"], cards, form))
    with pytest.raises((EndpointError, ValueError), match=reason):
        Endpoint(spec_of(started[0], **changes), quiet)


def test_no_server_and_a_server_that_goes_silent_are_told(started: list[ScoringServer], tmp_path: Path) -> None:
    with pytest.raises(EndpointError, match="no server answers at this address"):
        Endpoint(EndpointSpec(url="http://127.0.0.1:9"), quiet)
    started.append(ScoringServer(["500"]))
    scorer = Endpoint(spec_of(started[0], patience_s=0.3), quiet)
    with pytest.raises(
        EndpointError, match=r"no answer came within 0\.3 s; the last failure: status 500.*The scores so far are kept"
    ):
        score(scorer, answered([("a", "b")]), UPath(tmp_path), quiet, {"helpfulness": 1.0})


def test_the_key_comes_from_the_environment_and_stands_in_no_message(
    started: list[ScoringServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    started.append(ScoringServer(["good"]))
    with pytest.raises(ValueError, match="the environment variable SCORER_KEY, which holds the API key"):
        Endpoint(spec_of(started[0], key_env="SCORER_KEY"), quiet)
    monkeypatch.setenv("SCORER_KEY", "secret-123")
    scorer = Endpoint(spec_of(started[0], key_env="SCORER_KEY"), quiet)
    assert started[0].headers[-1]["Authorization"] == "Bearer secret-123"
    assert "secret-123" not in json.dumps(scorer.identity)


class VLLMClassifier(VLLMServer):
    """`vllm serve` of a sequence classifier."""

    OPTIONS = (
        "--runner pooling --served-model-name smol --host 127.0.0.1 --dtype float32 --max-model-len 256 --enforce-eager"
    )


@pytest.mark.engine
def test_vllms_own_server_gives_the_scores_of_the_model(tmp_path: Path, checkpoint_cache: Path) -> None:
    """The real vLLM on real weights (two layers of them): five raw outputs, the same turns, and the end of what is too long."""
    base = resolve(load_profile("tiny").checkpoints["smollm2_135m_instruct"], checkpoint_cache)
    tokenizer, names = prepare_tokenizer(AutoTokenizer.from_pretrained(base)), ("helpfulness", "verbosity")
    model = new_model(base, tokenizer.pad_token_id, names, layers=2)
    set_head(model, np.random.default_rng(0).normal(size=(2, model.config.hidden_size)) / 24)
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    texts = [
        "Paris.",
        "I don't know",
        "",
        "A very long answer. " * 200,
        "Nobody can say where it is, or whether it is.",
    ]
    items = answered([(text, text[::-1] + "?") for text in texts])
    served = VLLMClassifier(tmp_path / "model", tmp_path / "server.log")
    try:
        served.wait()
        weights, found = {"helpfulness": 1.0, "verbosity": -0.5}, []
        for path in ("/classify", "/pooling"):
            spec = EndpointSpec(url=f"http://127.0.0.1:{served.port}{path}", outputs=names, concurrency=4)
            table, figures = score(Endpoint(spec, quiet), items, UPath(tmp_path / path[1:]), quiet, weights)
            assert (figures["scored"], figures["not_scored"], figures["cut"]) == (10, 0, 2)
            found.append(table)
    finally:
        served.kill()
    here, _ = score(
        LocalModel(ModelSpec(model=str(tmp_path / "model"), max_tokens=256), quiet),
        items,
        UPath(tmp_path / "here"),
        quiet,
        weights,
    )
    fits = [
        n for n in range(10) if n not in (6, 7)
    ]  # of the long one a server cuts the beginning, as it can't tell texts from marks
    for table in found:
        for name in names:
            assert table[name].to_numpy()[fits] == pytest.approx(here[name].to_numpy()[fits], abs=1e-2)
