import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from upath import UPath

from pipeline.engines.finished import FinishedRequests, Journal, finish, outcomes
from pipeline.engines.requests import Answer, Request, request_key
from pipeline.settings import PROJECT, RaterSampling, Sampling
from pipeline.store import write_table
from tests.helpers import PATIENCE, quiet

SAMPLING = Sampling()


def request(n: int) -> Request:
    return Request(f"key-{n}", [{"role": "user", "content": str(n)}], SAMPLING, n)


class CountingEngine:
    """Test double: answers at once, remembers what it was asked, and dies after `die_after` answers."""

    def __init__(self, die_after: int | None = None, refuse: frozenset[str] = frozenset()) -> None:
        self.asked: list[str] = []
        self.die_after, self.refuse = die_after, refuse

    def answer(self, requests: Sequence[Request]) -> Iterator[Answer]:
        for n, r in enumerate(requests):
            if n == self.die_after:
                raise RuntimeError("engine died")
            self.asked.append(r.key)
            reason = "refused" if r.key in self.refuse else "stop"
            yield Answer(r.key, f"text of {r.key}", reason, "too long" if reason == "refused" else None, 1, 2)


@pytest.fixture
def finished(tmp_path: Path) -> FinishedRequests:
    return FinishedRequests(UPath(tmp_path / "work"))


def test_finished_requests_are_never_asked_again(finished: FinishedRequests) -> None:
    first, second = CountingEngine(), CountingEngine()
    finish([request(n) for n in range(10)], [first], finished, quiet)
    tally = finish([request(n) for n in range(15)], [second], finished, quiet)
    assert second.asked == [f"key-{n}" for n in range(10, 15)]
    assert (tally.reused, tally.answered) == (10, 5)


def test_an_engine_is_not_started_when_nothing_is_left(finished: FinishedRequests) -> None:
    finish([request(1)], [CountingEngine()], finished, quiet)
    assert finish([request(1)], [], finished, quiet).answered == 0


def test_an_engine_that_dies_half_way_keeps_what_was_done(finished: FinishedRequests) -> None:
    requests = [request(n) for n in range(100)]
    with pytest.raises(RuntimeError, match="engine died"):
        finish(requests, [CountingEngine(die_after=50)], finished, quiet, every=8)
    assert len(finished.read()) == 50
    again = CountingEngine()
    finish(requests, [again], finished, quiet)
    assert len(again.asked) == 50
    assert sorted(finished.read()["request_key"].to_pylist()) == sorted(r.key for r in requests)


def test_an_engine_that_ends_early_without_an_error_is_one(finished: FinishedRequests) -> None:
    class Short(CountingEngine):  # test double
        def answer(self, requests: Sequence[Request]) -> Iterator[Answer]:
            yield from super().answer(requests[:3])

    with pytest.raises(RuntimeError, match="2 of 5 requests unanswered"):
        finish([request(n) for n in range(5)], [Short()], finished, quiet)


def test_a_refused_request_is_told_and_tried_again(finished: FinishedRequests) -> None:
    requests = [request(n) for n in range(3)]
    tally = finish(requests, [CountingEngine(refuse=frozenset({"key-1"}))], finished, quiet)
    assert tally.refused == {"key-1": "too long"}
    again = CountingEngine()
    assert finish(requests, [again], finished, quiet).refused == {}
    assert again.asked == ["key-1"]


class Saying(CountingEngine):
    """Test double: says the texts, or refuses for the reasons, that it is given by key; anything else is answered."""

    def __init__(self, texts: Mapping[str, str] | None = None, refused: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self.texts, self.refused = texts or {}, refused or {}

    def answer(self, requests: Sequence[Request]) -> Iterator[Answer]:
        for answer in super().answer(requests):
            key = answer.request_key
            if key in self.refused:
                yield replace(answer, text="", finish_reason="refused", detail=self.refused[key])
            else:
                yield replace(answer, text=self.texts.get(key, answer.text))


def test_an_answer_without_a_response_is_recorded_and_asked_again(finished: FinishedRequests) -> None:
    requests = [request(n) for n in range(3)]
    texts = {"key-0": "<think>hm</think>4", "key-1": "<think>hm", "key-2": " "}
    tally = finish(requests, [Saying(texts)], finished, quiet)
    assert tally.answered == 1
    assert set(tally.refused) == {"key-1", "key-2"}
    assert [(a["text"], a["reasoning"]) for a in finished.read().to_pylist()] == [("4", "hm")]
    found = outcomes([r.key for r in requests], finished, tally.refused)
    assert found["text"].to_pylist() == ["4", "", ""]
    again = CountingEngine()
    assert finish(requests, [again], finished, quiet).reused == 1
    assert again.asked == ["key-1", "key-2"]
    assert finished.failures()["request_key"].to_pylist() == ["key-1", "key-2"]


def test_what_an_older_version_kept_without_a_response_is_asked_again(finished: FinishedRequests) -> None:
    rows = [("key-0", "text"), ("key-1", ""), ("key-2", "<think>hm</think>4")]
    old = pa.table(
        {
            "request_key": [key for key, _ in rows],
            "text": [text for _, text in rows],
            "finish_reason": ["stop"] * 3,
            "detail": pa.nulls(3, pa.string()),
            "prompt_tokens": pa.array([1] * 3, pa.int32()),
            "output_tokens": pa.array([2] * 3, pa.int32()),
        }
    )
    write_table(old, finished.folder / "part-old.parquet")
    line = {"request_key": "key-3", "text": "", "finish_reason": "stop", "detail": None, "prompt_tokens": 1, "output_tokens": 2}  # fmt: skip
    lines = [line, line | {"request_key": "key-4", "text": "<think>hm</think>4"}]
    (finished.folder / "journal-old.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    engine = CountingEngine()
    assert finish([request(n) for n in range(5)], [engine], finished, quiet).reused == 2
    assert engine.asked == ["key-1", "key-2", "key-3"]
    texts = {a["request_key"]: (a["text"], a["reasoning"]) for a in finished.read().to_pylist()}
    assert texts["key-0"] == ("text", None)
    assert texts["key-1"] == ("text of key-1", None)
    assert texts["key-4"] == ("4", "hm")


def test_refusals_that_all_requests_get_end_the_run_with_their_reason(finished: FinishedRequests) -> None:
    requests = [request(n) for n in range(500)]
    broke = {r.key: f"status 402: no credits left of account {n}, request req_{n}x" for n, r in enumerate(requests)}
    for _ in range(2):
        engine = Saying(refused={key: reason for key, reason in broke.items() if int(key[4:]) >= 100})
        with pytest.raises(RuntimeError, match=r"32 conversations after one another .* status 402: no credits left"):
            finish(requests, [engine], finished, quiet)
        assert len(engine.asked) <= 132, "the next run doesn't begin with those that are known to be refused"
    assert len(finished.read()) == 100
    assert len(finished.failures()) == 64


def test_refusals_of_single_requests_end_no_run_however_many_there_are(finished: FinishedRequests) -> None:
    requests = [request(n) for n in range(500)]
    long = {r.key: f"context overflow: {n} tokens" for n, r in enumerate(requests) if n % 4}

    class First(Saying):  # test double: tells what it refuses before anything else, as vLLM does
        def answer(self, requests: Sequence[Request]) -> Iterator[Answer]:
            yield from sorted(super().answer(requests), key=lambda answer: answer.finish_reason)

    assert finish(requests, [First(refused=long)], finished, quiet).answered == 125
    tally = finish(requests, [First(refused=long)], finished, quiet)
    assert (tally.answered, len(tally.refused)) == (0, 375), "all that is left is refused again"


def test_candidates_of_one_conversation_are_refused_as_one(finished: FinishedRequests) -> None:
    messages = [[{"role": "user", "content": str(n)}] for n in range(31)]
    requests = [Request(f"key-{n}-{c}", messages[n], SAMPLING, c) for n in range(31) for c in range(4)]
    refused = dict.fromkeys((r.key for r in requests), "context overflow: 5000 tokens")
    assert len(finish(requests, [Saying(refused=refused)], finished, quiet).refused) == 124


def test_a_request_that_stands_twice_is_asked_once(finished: FinishedRequests) -> None:
    engine = CountingEngine()
    finish([request(1), request(1)], [engine], finished, quiet)
    assert engine.asked == ["key-1"]


def test_an_answer_kept_twice_is_read_once(finished: FinishedRequests) -> None:
    answer = Answer("k", "text", "stop", None, 1, 2)
    finished.append([answer])
    finished.append([answer])
    assert len(finished.read()) == 1


def test_a_half_written_part_is_not_read(finished: FinishedRequests) -> None:
    finished.append([Answer("k", "text", "stop", None, 1, 2)])
    (finished.folder / ".part-x.parquet.tmp").write_bytes(b"PAR1 cut")
    assert len(finished.read()) == 1


@pytest.mark.parametrize("changed", [0, 1, 2, 3, 4, 5])
def test_the_key_depends_on_everything_that_an_answer_depends_on(changed: int) -> None:
    base = [[{"role": "user", "content": "a"}], "model", "revision", "template", SAMPLING, 1]
    other = [[{"role": "user", "content": "b"}], "model2", "revision2", "template2", Sampling(temperature=0.1), 2]
    mixed = [*base[:changed], other[changed], *base[changed + 1 :]]
    assert request_key(*base) == request_key(*base)
    assert request_key(*mixed) != request_key(*base)


def test_failures_are_recorded_and_are_no_answers(finished: FinishedRequests) -> None:
    finish([request(n) for n in range(3)], [CountingEngine(refuse=frozenset({"key-1"}))], finished, quiet)
    finish([request(n) for n in range(3)], [CountingEngine()], finished, quiet)
    (failure,) = finished.failures().to_pylist()
    assert (failure["request_key"], failure["reason"], failure["detail"]) == ("key-1", "refused", "too long")
    assert len(finished.read()) == 3


def test_many_small_parts_become_one(finished: FinishedRequests) -> None:
    for n in range(70):
        finished.append([Answer(f"k{n}", f"text {n}", "stop", None, 1, 2)])
    before = finished.read().sort_by("request_key")
    finished.compact()
    assert len(list(finished.folder.glob("part-*"))) == 1
    assert finished.read().sort_by("request_key").equals(before)
    assert sorted(finished.keys().to_pylist()) == sorted(f"k{n}" for n in range(70))


def test_a_compaction_that_is_cut_off_loses_nothing(
    finished: FinishedRequests, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(70):
        finished.append([Answer(f"k{n}", "text", "stop", None, 1, 2)])

    def killed(self: UPath, missing_ok: bool = False) -> None:  # test double: the process dies before the old parts go
        raise KeyboardInterrupt

    monkeypatch.setattr(type(finished.folder), "unlink", killed)
    with pytest.raises(KeyboardInterrupt):
        finished.compact()
    monkeypatch.undo()
    assert len(finished.read()) == 70


def test_outcomes_come_in_the_order_asked_with_reasons_for_the_others(finished: FinishedRequests) -> None:
    finished.append([Answer(f"k{n}", f"text {n}", "stop", None, 1, 2) for n in range(3)])
    found = outcomes(["k2", "x", "k0", "k2"], finished, {"x": "too long"}).to_pylist()
    assert [(a["request_key"], a["text"], a["detail"]) for a in found] == [
        ("k2", "text 2", None),
        ("x", "", "too long"),
        ("k0", "text 0", None),
        ("k2", "text 2", None),
    ]
    with pytest.raises(KeyError, match="1 of 1 requests have neither an answer nor a reason"):
        outcomes(["gone"], finished, {})


def test_a_full_disk_ends_the_run_and_what_was_kept_stays(
    finished: FinishedRequests, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, writes = finished._answers.append, list[int]()

    def full(rows: pa.Table) -> None:  # test double: the third write fails
        writes.append(len(rows))
        if len(writes) > 2:
            raise OSError(28, "No space left on device")
        real(rows)

    monkeypatch.setattr(finished._answers, "append", full)
    with pytest.raises(OSError, match="No space left"):
        finish([request(n) for n in range(40)], [CountingEngine()], finished, quiet, every=8)
    monkeypatch.undo()
    assert len(finished.read()) == 16
    again = CountingEngine()
    finish([request(n) for n in range(40)], [again], finished, quiet)
    assert len(again.asked) == 16, "those of the part that could not be written stood in the journal"


def test_every_answer_that_came_survives_a_kill(tmp_path: Path) -> None:
    script = """
import os, signal, sys
from upath import UPath
from pipeline.engines.finished import FinishedRequests, finish
from tests.engines.test_requests import CountingEngine, request
from tests.helpers import quiet

class Killed(CountingEngine):  # test double: its process is killed before the 14th answer
    def answer(self, requests):
        for n, answer in enumerate(super().answer(requests)):
            if n == 13:
                os.kill(os.getpid(), signal.SIGKILL)
            yield answer

finish([request(n) for n in range(20)], [Killed()], FinishedRequests(UPath(sys.argv[1])), quiet, every=5)
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], cwd=PROJECT, check=False)
    assert done.returncode == -signal.SIGKILL
    finished, engine = FinishedRequests(UPath(tmp_path)), CountingEngine()
    assert len(finished.keys()) == 10, "two parts of five"
    assert finish([request(n) for n in range(20)], [engine], finished, quiet).reused == 13
    assert engine.asked == [f"key-{n}" for n in range(13, 20)]
    assert len(finished.read()) == 20
    assert not list(tmp_path.glob("journal-*"))


def test_a_line_that_was_cut_off_is_asked_again(finished: FinishedRequests) -> None:
    journal = finished.journal()
    (first, second) = CountingEngine().answer([request(1), request(2)])
    journal.add(first)
    (path,) = finished.folder.glob("journal-*.jsonl")
    journal.add(second)
    path.write_bytes(path.read_bytes()[:-2])
    assert finished.recover() == 1
    assert finished.keys().to_pylist() == ["key-1"]


@pytest.mark.parametrize("killed", [False, True])
def test_half_of_a_character_blocks_nothing(finished: FinishedRequests, killed: bool) -> None:
    answer = Answer("key-1", "cut \ud83d", "stop", None, 1, 2)
    if killed:
        finished.journal().add(answer)
        assert finished.recover() == 1
    else:
        finished.append([answer])
    finished.record_failures([Answer("key-2", "", "refused", "cut \ud83d", 0, 0)])
    assert finished.read()["text"].to_pylist() == ["cut \ufffd"]
    assert finished.failures()["detail"].to_pylist() == ["cut \ufffd"]


def test_answers_stay_in_their_journal_where_no_other_can_be_begun(
    finished: FinishedRequests, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, begun = FinishedRequests.journal, list[int]()

    def one_alone(self: FinishedRequests) -> Journal:  # test double of a disk without room for another file
        begun.append(1)
        if len(begun) > 1:
            raise OSError(28, "No space left on device")
        return begin(self)

    monkeypatch.setattr(FinishedRequests, "journal", one_alone)
    with pytest.raises(OSError, match="No space left"):
        finish([request(n) for n in range(10)], [CountingEngine()], finished, quiet, every=5)
    assert finished.recover() == 5
    assert sorted(finished.keys().to_pylist()) == [f"key-{n}" for n in range(5)]


def test_answers_are_kept_in_time_while_the_next_one_takes_long(finished: FinishedRequests) -> None:
    kept = list[int]()

    class Pausing(CountingEngine):  # test double
        def answer(self, requests: Sequence[Request]) -> Iterator[Answer]:
            for n, answer in enumerate(super().answer(requests)):
                if n == 5:
                    deadline = time.monotonic() + PATIENCE
                    while len(finished.read()) < 5 and time.monotonic() < deadline:
                        time.sleep(0.05)
                    kept.append(len(finished.read()))
                yield answer

    finish([request(n) for n in range(10)], [Pausing()], finished, quiet, seconds=0.1)
    assert kept == [5], "an engine that is killed now has lost none of them"


def test_a_really_full_disk_loses_nothing_that_was_kept(tmp_path: Path) -> None:
    inside = ["unshare", "--map-root-user", "--mount"]
    if shutil.which("unshare") is None or subprocess.run([*inside, "true"], check=False).returncode:
        pytest.skip("no mount namespaces for this user: a small file system can't be made")
    script = [sys.executable, "-m", "tests.engines.full_disk", str(tmp_path)]
    done = subprocess.run([*inside, *script], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


class LaterSampling(Sampling):
    """`Sampling` with a field that it may get."""

    min_p: float = 0.0


KEYED = Sampling(temperature=0.7, top_p=0.9, top_k=40, repetition_penalty=1.1, max_tokens=64, stop=("\n",))
TALK = ([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Wie geht es?"}], "org/model", "abc123", "tokenizer")  # fmt: skip


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ((Sampling(), 7), "31e951e9d7d3595f710d1b6b04a58ec23c967c39f35f5cb4e142053896e0a1ca"),
        ((KEYED, 7), "172d137433e4d175298d4c7f1e4fcb76ba5dee45077ac94b38a14408a90c5adc"),
        (
            (RaterSampling(), 7, '{"type": "object"}'),
            "249c6e885451bc20dce76f4a801e311500d3e762bbd2b6e9225f082d6a613d54",
        ),
    ],
)
def test_a_finished_request_keeps_the_key_that_it_was_kept_under(more: tuple[Any, ...], key: str) -> None:
    assert request_key(*TALK, *more) == key


@pytest.mark.parametrize("sampling", [Sampling(), KEYED])
def test_a_new_field_of_sampling_counts_only_where_it_is_used(sampling: Sampling) -> None:
    values = sampling.model_dump()
    assert request_key(*TALK, LaterSampling(**values), 7) == request_key(*TALK, sampling, 7)
    assert request_key(*TALK, LaterSampling(**values, min_p=0.05), 7) != request_key(*TALK, sampling, 7)
