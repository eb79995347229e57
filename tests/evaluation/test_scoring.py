"""Scores of conversations: the same whatever the batch, each made once, and kept through kills."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig, BertForSequenceClassification
from upath import UPath

from pipeline import parts
from pipeline.evaluation import scoring
from pipeline.evaluation.schema import SCORES
from pipeline.evaluation.score_store import keep, score_store
from pipeline.evaluation.scorers import model as scorers_model
from pipeline.evaluation.scorers.model import LocalModel, scored_template
from pipeline.evaluation.scorers.scorer import Conversation, Scored, kept_outputs
from pipeline.evaluation.scorers.specs import BASELINES, BaselineSpec, EndpointSpec, ModelSpec, spec_of
from pipeline.evaluation.scorers.starting import scorer_of
from pipeline.evaluation.scoring import conversations, in_processes, reweighed, score, score_keys
from pipeline.models.checkpoints import CheckpointError
from pipeline.models.encoding import encode
from pipeline.models.loading import without_padding_mask
from pipeline.parts import PartError
from pipeline.settings import PROJECT
from pipeline.vocabulary import ATTRIBUTES
from tests.evaluation.models import QUESTION, answered, drawn_pairs, save_reward_model
from tests.helpers import quiet
from tests.reward_model.small import save_small_model


class Counting:
    """Test double of a scorer: a response's score is its number of letters; it can die after some conversations."""

    name, version, device = "counting", "1", None
    outputs: tuple[str, ...] = ("reward",)

    def __init__(self, die_after: int | None = None, **identity: Any) -> None:
        self.identity: dict[str, Any] = {"model": "counting"} | identity
        self.asked = list[str]()
        self._die_after = die_after

    def score(self, conversations: Sequence[Conversation]) -> Iterator[Scored]:
        for n, conversation in enumerate(conversations):
            if n == self._die_after:
                raise RuntimeError("out of memory")
            self.asked.append(conversation.response)
            yield Scored(
                np.array([n]), np.array([[float(len(conversation.response))]]), np.array([3]), np.array([False])
            )


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("models")
    save_reward_model(place / "one")
    save_reward_model(place / "five", ATTRIBUTES)
    return place


@pytest.fixture
def kept(tmp_path: Path) -> UPath:
    return UPath(tmp_path / "kept")


# --------------------------------------------------------------------------------------------------------------------- conversations


def test_a_conversation_that_stands_twice_is_scored_once(kept: UPath) -> None:
    items = answered([("a", "b"), ("c", "a"), ("b", "d")])
    asked, index = conversations(items)
    assert [c.response for c in asked] == ["a", "b", "c", "d"]
    assert index.tolist() == [0, 1, 2, 0, 1, 3]
    scorer = Counting()
    table, figures = score(scorer, items, kept, quiet)
    assert scorer.asked == ["a", "b", "c", "d"]
    assert (figures["conversations"], figures["responses"], figures["scored"]) == (4, 6, 4)
    assert table.schema == SCORES
    assert table["item_id"].to_pylist() == ["0", "0", "1", "1", "2", "2"]
    assert table["response"].to_pylist() == [0, 1, 0, 1, 0, 1]
    assert table["good"].to_pylist() == [True, False] * 3


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.text(max_size=4), min_size=2, max_size=5), min_size=1, max_size=8))
def test_every_response_has_its_own_conversations_score(responses: list[list[str]]) -> None:
    rows = [
        {
            "benchmark": "b",
            "subset": "s",
            "item_id": str(n),
            "messages": QUESTION,
            "responses": r,
            "good": [True] + [False] * (len(r) - 1),
        }
        for n, r in enumerate(responses)
    ]
    items = pa.Table.from_pylist(rows, schema=answered([("a", "b")]).schema)
    asked, index = conversations(items)
    flat = [text for texts in responses for text in texts]
    assert [asked[n].response for n in index] == flat
    assert len({c.content() for c in asked}) == len(asked) == len(set(flat))
    table = scoring.table_of(items, np.arange(len(flat), dtype=float)[:, None], ("reward",), np.ones(1))
    assert table["characters"].to_pylist() == [len(text) for text in flat]
    assert table["goodness"].to_pylist() == list(range(len(flat)))


@pytest.mark.parametrize(
    "other",
    [
        ({"model": "other"}, Conversation(QUESTION, "a")),
        ({"model": "m", "max_tokens": 8}, Conversation(QUESTION, "a")),
        ({"model": "m"}, Conversation(QUESTION, "a ")),
        ({"model": "m"}, Conversation([{"role": "system", "content": "one two"}], "a")),
        ({"model": "m"}, Conversation([*QUESTION, {"role": "assistant", "content": "a"}], "")),
    ],
)
def test_a_score_is_kept_under_all_that_it_depends_on(other: tuple[dict[str, Any], Conversation]) -> None:
    (key,) = score_keys({"model": "m"}, [Conversation(QUESTION, "a")])
    assert len(key) == 64
    assert score_keys(other[0], [other[1]]) != [key]
    assert score_keys({"model": "m"}, [Conversation([dict(QUESTION[0])], "a")]) == [key]


# ---------------------------------------------------------------------------------------------------------------------- what is kept


def test_what_is_scored_is_never_scored_again_also_in_another_benchmark(kept: UPath) -> None:
    first, _ = score(Counting(), answered([("a", "bb")]), kept, quiet)
    again = Counting()
    table, figures = score(again, answered([("bb", "a"), ("a", "ccc")], "another"), kept, quiet)
    assert again.asked == ["ccc"]
    assert (figures["scored_before"], figures["scored"], figures["tokens"]) == (2, 1, 9)
    assert table["goodness"].to_pylist() == [2, 1, 1, 3]
    assert first["goodness"].to_pylist() == [1, 2]


def test_another_models_scores_are_not_taken(kept: UPath) -> None:
    score(Counting(), answered([("a", "b")]), kept, quiet)
    other = Counting(model="another")
    score(other, answered([("a", "b")]), kept, quiet)
    assert other.asked == ["a", "b"]


def test_a_scorer_that_fails_half_way_keeps_what_was_done(kept: UPath) -> None:
    with pytest.raises(RuntimeError, match="out of memory"):
        score(Counting(die_after=3), answered([("a", "b"), ("c", "d"), ("e", "f")]), kept, quiet)
    again = Counting()
    score(again, answered([("a", "b"), ("c", "d"), ("e", "f")]), kept, quiet)
    assert again.asked == ["d", "e", "f"]


def test_a_killed_process_loses_the_part_in_flight_alone(tmp_path: Path) -> None:
    script = """
import os, signal, sys
from upath import UPath
from pipeline.evaluation import scoring
from tests.evaluation.models import answered
from tests.evaluation.test_scoring import Counting
from tests.helpers import quiet

class Killed(Counting):  # test double: its process is killed before the 8th conversation
    def score(self, conversations):
        for n, scored in enumerate(super().score(conversations)):
            if n == 7:
                os.kill(os.getpid(), signal.SIGKILL)
            yield scored
            if n == 4:
                scoring.KEEP_SECONDS = 3600

scoring.KEEP_SECONDS = 0.0
scoring.score(Killed(), answered([(f"a{n}", f"b{n}") for n in range(6)]), UPath(sys.argv[1]), quiet)
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], cwd=PROJECT, check=False)
    assert done.returncode == -signal.SIGKILL
    again = Counting()
    table, figures = score(again, answered([(f"a{n}", f"b{n}") for n in range(6)]), UPath(tmp_path), quiet)
    assert figures["scored_before"] == 5
    assert len(again.asked) == 7
    assert table["goodness"].to_pylist() == [2.0] * 12


def test_a_full_disk_is_told_and_what_was_kept_stays(kept: UPath, monkeypatch: pytest.MonkeyPatch) -> None:
    real, writes = parts.write_table, list[UPath]()

    def full(table: pa.Table, path: UPath) -> int:  # test double: the third write finds no room
        writes.append(path)
        if len(writes) > 2:
            raise OSError(28, "No space left on device")
        return real(table, path)

    monkeypatch.setattr(parts, "write_table", full)
    monkeypatch.setattr(scoring, "KEEP_SECONDS", 0.0)
    with pytest.raises(OSError, match="No space left"):
        score(Counting(), answered([("a", "b"), ("c", "d")]), kept, quiet)
    monkeypatch.undo()
    again = Counting()
    score(again, answered([("a", "b"), ("c", "d")]), kept, quiet)
    assert again.asked == ["c", "d"]


def test_a_broken_part_is_named(kept: UPath) -> None:
    score(Counting(), answered([("a", "b")]), kept, quiet)
    (part,) = kept.glob("part-*.parquet")
    part.write_bytes(part.read_bytes()[:40])
    with pytest.raises(PartError, match=r"part-.*Remove the file: only what it held is done again"):
        score(Counting(), answered([("a", "b")]), kept, quiet)


def test_many_small_parts_become_one_and_a_score_kept_twice_is_read_once(kept: UPath) -> None:
    store = score_store(kept)
    for n in (*range(70), 3):
        scored = Scored(np.array([0]), np.array([[float(n)]]), np.array([1]), np.array([False]))
        keep(store, [f"k{n}"], scored, 0.1)
    store.compact()
    assert len(list(kept.glob("part-*.parquet"))) == 1
    table = store.read()
    assert sorted(table["key"].to_pylist()) == sorted(f"k{n}" for n in range(70))


def test_what_has_no_finite_score_is_not_kept_and_loses(kept: UPath) -> None:
    class Refusing(Counting):  # test double
        def score(self, conversations: Sequence[Conversation]) -> Iterator[Scored]:
            for scored in super().score(conversations):
                scored.outputs[0] = np.nan
                yield scored

    table, figures = score(Refusing(), answered([("a", "b")]), kept, quiet)
    assert np.isnan(table["goodness"].to_numpy()).all()
    assert (figures["scored"], figures["not_scored"]) == (0, 2)
    again = Counting()
    score(again, answered([("a", "b")]), kept, quiet)
    assert again.asked == ["a", "b"]


# ------------------------------------------------------------------------------------------------------------------------ a model here


def plain(folder: Path, texts: Sequence[str]) -> np.ndarray:
    """What transformers gives for each conversation alone: no batch, no padding."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForSequenceClassification.from_pretrained(folder)
    found = []
    for text in texts:
        turns = [*QUESTION, {"role": "assistant", "content": text}]
        with torch.no_grad():
            found.append(
                model(**tokenizer.apply_chat_template(turns, return_tensors="pt", return_dict=True)).logits[0].numpy()
            )
    return np.array(found)


@pytest.mark.parametrize("tokens", [32, 100, 4096])
def test_padding_and_batches_do_not_change_a_score(models: Path, kept: UPath, tokens: int) -> None:
    pairs = drawn_pairs(20)
    scorer = LocalModel(ModelSpec(model=str(models / "five"), tokens_a_batch=tokens), quiet)
    weights = dict(zip(ATTRIBUTES, (0.65, 0.8, 0.45, 0.55, -0.4), strict=True))
    table, figures = score(scorer, answered(pairs), kept, quiet, weights)
    wanted = plain(models / "five", [text for pair in pairs for text in pair])
    found = np.stack([table[a].to_numpy() for a in ATTRIBUTES], axis=1)
    assert found == pytest.approx(wanted, abs=1e-4)
    assert table["goodness"].to_numpy() == pytest.approx(wanted @ list(weights.values()), abs=1e-4)
    assert table["reward"].null_count == len(table)
    assert figures["tokens"] > 0
    assert figures["cut"] == 0


def test_an_empty_response_is_scored_as_an_empty_answer(models: Path, kept: UPath) -> None:
    scorer = LocalModel(ModelSpec(model=str(models / "one")), quiet)
    table, figures = score(scorer, answered([("", "one two")]), kept, quiet)
    assert table["reward"].to_numpy() == pytest.approx(plain(models / "one", ["", "one two"])[:, 0], abs=1e-4)
    assert figures["empty"] == 1


def test_what_the_chat_template_refuses_has_no_score_and_the_rest_has(tmp_path: Path, kept: UPath) -> None:
    folder = save_reward_model(tmp_path / "model")
    wanted = plain(folder, ["one", "two two", "three"])[:, 0]
    template = folder / "chat_template.jinja"
    refusal = "{%- if messages[-1]['content'] == 'bad' %}{{ raise_exception('no such turn') }}{% endif -%}"
    template.write_text(refusal + template.read_text())
    said = list[str]()
    scorer = LocalModel(ModelSpec(model=str(folder), tokens_a_batch=32), quiet)
    scorer._log = said.append
    table, figures = score(scorer, answered([("one", "bad"), ("two two", "three")]), kept, quiet)
    found = table["reward"].to_numpy()
    assert np.isnan(found).tolist() == [False, True, False, False]
    assert found[[0, 2, 3]] == pytest.approx(wanted, abs=1e-4)
    assert figures["not_scored"] == 1
    assert said == ["1 conversations are not scored, because the chat template of model refuses them: no such turn"]


def test_a_response_of_twenty_thousand_tokens_loses_its_middle_and_is_counted(models: Path, kept: UPath) -> None:
    said = list[str]()
    scorer = LocalModel(ModelSpec(model=str(models / "one"), max_tokens=4096), said.append)
    long = "one two " * 10_000 + "good"
    table, figures = score(scorer, answered([(long, "bad")]), kept, quiet)
    assert any("reads at most 128 tokens of a conversation, not the 4096" in line for line in said)
    assert figures["cut"] == 1
    ids = encode(AutoTokenizer.from_pretrained(models / "one"), QUESTION, long, 128).ids
    model = AutoModelForSequenceClassification.from_pretrained(models / "one")
    with torch.no_grad():
        wanted = model(torch.tensor([ids])).logits[0, 0].item()
    assert table["reward"][0].as_py() == pytest.approx(wanted, abs=1e-4)


def test_a_model_without_a_padding_token_has_the_same_scores(models: Path, tmp_path: Path, kept: UPath) -> None:
    folder = save_reward_model(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"pad_token_id": None}))
    pairs = drawn_pairs(10)
    table, _ = score(LocalModel(ModelSpec(model=str(folder)), quiet), answered(pairs), kept, quiet)
    assert table["reward"].to_numpy() == pytest.approx(plain(folder, [t for p in pairs for t in p])[:, 0], abs=1e-4)


def test_an_encoder_keeps_its_mask(tmp_path: Path) -> None:
    config = BertConfig(
        vocab_size=30, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, num_labels=1
    )
    model = BertForSequenceClassification(config).eval()
    assert not without_padding_mask(model)
    ids, padded = torch.tensor([[5, 6, 7]]), torch.tensor([[5, 6, 7, 0, 0]])
    mask = (padded > 0).long()
    with torch.no_grad():
        assert model(padded, attention_mask=mask).logits.item() == pytest.approx(model(ids).logits.item(), abs=1e-5)


def test_the_identity_of_a_model_is_its_content(models: Path, tmp_path: Path) -> None:
    spec = ModelSpec(model=str(models / "one"))
    one = LocalModel(spec, quiet).identity
    moved = tmp_path / "elsewhere"
    moved.symlink_to(models / "one")
    assert LocalModel(spec.model_copy(update={"model": str(moved)}), quiet).identity == one
    assert LocalModel(ModelSpec(model=str(save_reward_model(tmp_path / "other", seed=1))), quiet).identity != one
    assert LocalModel(spec.model_copy(update={"precision": "bfloat16"}), quiet).identity != one


def test_what_is_no_reward_model_is_refused(models: Path, tmp_path: Path) -> None:
    base = save_small_model(tmp_path / "base")
    with pytest.raises(ValueError, match="is not a reward model: LlamaForCausalLM writes text and has no head"):
        LocalModel(ModelSpec(model=str(base)), quiet)
    # a configuration that claims a head, and weights that have none
    claims = json.loads((models / "one" / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(claims))
    scorer = LocalModel(ModelSpec(model=str(base)), quiet)
    with pytest.raises(ValueError, match="not a reward model: it has no weights for score"):
        list(scorer.score([Conversation(QUESTION, "a")]))


def test_weights_that_may_run_code_are_not_read(models: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pickled"
    folder.mkdir()
    for path in (models / "one").iterdir():
        (folder / path.name.replace("model.safetensors", "pytorch_model.bin")).write_bytes(path.read_bytes())
    with pytest.raises(ValueError, match="has no weights in safetensors"):
        LocalModel(ModelSpec(model=str(folder)), quiet)


def test_a_date_in_a_template_is_fixed_and_a_template_must_be_there() -> None:
    llama = "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}Today: {{ date_string }}"
    assert "26 Jul 2024" in scored_template(llama, "m")
    with pytest.raises(ValueError, match="has no chat template"):
        scored_template(None, "m")


def test_a_fixed_date_is_what_the_tokenizer_writes(models: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(models / "one")
    body = "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}Today: {{ date_string }}"
    tokenizer.chat_template = scored_template(body, "m")
    assert tokenizer.apply_chat_template(QUESTION, tokenize=False) == "Today: 26 Jul 2024"


@pytest.mark.engine
def test_two_processes_have_the_scores_of_one(models: Path, tmp_path: Path) -> None:
    spec, items, weights = (
        ModelSpec(model=str(models / "five")),
        answered(drawn_pairs(30)),
        dict.fromkeys(ATTRIBUTES, 0.2),
    )
    said = list[str]()
    alone, _ = score(LocalModel(spec, quiet), items, UPath(tmp_path / "alone"), quiet, weights)
    both, figures = score(
        LocalModel(spec, quiet), items, UPath(tmp_path / "both"), said.append, weights, in_processes(spec, 2)
    )
    assert both["goodness"].to_numpy() == pytest.approx(alone["goodness"].to_numpy(), abs=1e-4)
    assert figures["scored"] == 60
    assert any("60/60" in line for line in said)
    assert len(list((tmp_path / "both").glob("part-*"))) == 2


@pytest.mark.engine
def test_what_fails_in_one_of_several_processes_is_said(models: Path, tmp_path: Path, kept: UPath) -> None:
    spec = ModelSpec(model=str(models / "one"))
    scorer = LocalModel(spec, quiet)
    gone = spec.model_copy(update={"model": str(tmp_path / "gone" / "away" / "model")})
    with pytest.raises(RuntimeError, match=r"scoring process \d ended with status 1:\n\w+Error: .*gone/away/model"):
        score(scorer, answered([("a", "b")]), kept, quiet, None, in_processes(gone, 2))


# ------------------------------------------------------------------------------------------------------------------ outputs, weights


def test_outputs_are_named_or_refused() -> None:
    assert kept_outputs(["LABEL_0"], None, "m") == (("reward",), [0])
    assert kept_outputs(["helpfulness"], None, "m") == (("helpfulness",), [0])
    assert kept_outputs(["LABEL_0", "LABEL_1", "LABEL_2"], ["-", "verbosity", "helpfulness"], "m") == (
        ("verbosity", "helpfulness"),
        [1, 2],
    )
    for names, given_, reason in (
        (["negative", "positive"], None, "its outputs negative, positive are none of those known here"),
        (["a", "b"], ["reward"], "has 2 outputs .a, b., but 1 names were given"),
        (["a", "b"], ["reward", "reward"], "each name may appear only once"),
        (["a"], ["-"], "at least one must be kept"),
    ):
        with pytest.raises(ValueError, match=reason):
            kept_outputs(names, given_, "m")


def test_several_outputs_need_weights_of_their_own(models: Path, kept: UPath) -> None:
    scorer = LocalModel(ModelSpec(model=str(models / "five")), quiet)
    with pytest.raises(ValueError, match="their weights are needed"):
        score(scorer, answered([("a", "b")]), kept, quiet)
    with pytest.raises(ValueError, match="weights: five has no output reward; its outputs are helpfulness"):
        score(scorer, answered([("a", "b")]), kept, quiet, {"reward": 1.0})


def test_outputs_that_were_named_in_their_order_are_kept(models: Path, kept: UPath) -> None:
    names = ("-", "-", "helpfulness", "-", "verbosity")
    some = LocalModel(ModelSpec(model=str(models / "five"), outputs=names), quiet)
    table, _ = score(some, answered([("one", "two")]), kept, quiet, {"helpfulness": 1.0, "verbosity": -1.0})
    wanted = plain(models / "five", ["one", "two"])
    assert table["helpfulness"].to_numpy() == pytest.approx(wanted[:, 2], abs=1e-4)
    assert table["goodness"].to_numpy() == pytest.approx(wanted[:, 2] - wanted[:, 4], abs=1e-4)


def test_scores_are_weighed_anew_by_benchmark(models: Path, kept: UPath) -> None:
    scorer = LocalModel(ModelSpec(model=str(models / "five")), quiet)
    items = pa.concat_tables([answered([("a", "b")], "x"), answered([("good", "bad")], "y")])
    table, _ = score(scorer, items, kept, quiet, dict.fromkeys(ATTRIBUTES, 1.0))
    found = reweighed(table, {"x": {"coherence": 2.0}, "y": {"verbosity": -1.0, "helpfulness": 1.0}})
    assert found.schema == SCORES
    h, c, v = (table[name].to_numpy() for name in ("helpfulness", "coherence", "verbosity"))
    assert found["goodness"].to_numpy() == pytest.approx([*(2 * c[:2]), *(h - v)[2:]])


# ---------------------------------------------------------------------------------------------------------------- what MODEL may mean


def test_baselines_prefer_length_or_chance(kept: UPath) -> None:
    items = answered([("aaa", "b"), ("c", "dd")])
    longest, _ = score(scorer_of(BaselineSpec(kind="longest"), quiet), items, kept, quiet)
    assert longest["goodness"].to_pylist() == [3, 1, 1, 2]
    drawn = [
        score(scorer_of(BaselineSpec(kind="random", seed=s), quiet), items, kept, quiet)[0]["goodness"].to_pylist()
        for s in (0, 0, 1)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    assert all(0 <= value < 1 for values in drawn for value in values)


def test_a_random_scorer_is_right_half_of_the_time(kept: UPath) -> None:
    table, _ = score(
        scorer_of(BaselineSpec(kind="random"), quiet), answered([(f"a{n}", f"b{n}") for n in range(2000)]), kept, quiet
    )
    wins = np.diff(table["goodness"].to_numpy().reshape(-1, 2)) < 0
    assert wins.mean() == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(2000))


def test_a_model_is_told_by_how_it_looks(models: Path) -> None:
    assert isinstance(spec_of("longest"), BaselineSpec)
    assert isinstance(spec_of("http://127.0.0.1:8000", key_env="KEY"), EndpointSpec)
    assert spec_of("organisation/name@main", max_tokens=64) == ModelSpec(model="organisation/name@main", max_tokens=64)
    assert spec_of(str(models / "one")) == ModelSpec(model=str(models / "one"))
    assert BASELINES == ("longest", "random")
    for text, more, reason in (
        ("nothing", {}, "is neither a folder, nor an address, nor a hub id"),
        ("/no/such", {}, "is neither a folder"),
        ("longest", {"precision": "float32"}, "a scorer of kind baseline takes no precision"),
        ("organisation/name", {"max_tokens": 3}, "max_tokens: Input should be greater than or equal to 32"),
    ):
        with pytest.raises(ValueError, match=reason):
            spec_of(text, **more)


def test_a_hub_models_identity_is_its_commit(models: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    snapshot = tmp_path / "c0ffee"
    snapshot.symlink_to(models / "one")
    monkeypatch.setattr(scorers_model, "resolve", lambda checkpoint, cache: snapshot)  # test double of the download
    scorer = LocalModel(ModelSpec(model="organisation/name@main"), quiet)
    assert (scorer.name, scorer.version) == ("organisation/name", "c0ffee")


def test_the_hub_that_cannot_be_reached_is_an_error_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: Any, **__: Any) -> str:  # test double of the download
        raise OSError("no route to host")

    monkeypatch.setattr("huggingface_hub.snapshot_download", no_network)
    with pytest.raises(CheckpointError, match=r"organisation/name .*can't be downloaded: no route to host"):
        scorer_of(spec_of("organisation/name"), quiet)
