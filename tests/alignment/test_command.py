"""The command `train` on files, with small models. But where a test says so, steps run in this process, and no engine writes samples."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from pipeline.alignment import from_file, process, watching, worker
from pipeline.alignment.__main__ import main
from pipeline.alignment.spec import TuningSpec
from pipeline.engines import asking
from pipeline.engines.requests import Answer, Request
from pipeline.engines.spec import EngineSpec
from pipeline.engines.starting import LazyEngine
from pipeline.vocabulary import ATTRIBUTES
from pipeline.worker import Figures, Log, Spec
from tests.alignment.cutting import assert_same
from tests.evaluation.models import save_reward_model
from tests.helpers import PATIENCE
from tests.reward_model.small import WORDS, save_small_model

ROOT = Path(__file__).parents[2]
SPOKEN = [word for word in WORDS if word.strip()]
WEIGHTS = "helpfulness=1,verbosity=-0.5"
TUNING: dict[str, Any] = {
    "learning_rate": 1e-3,
    "batch_size": 8,
    "max_tokens": 64,
    "evaluations": 1,
    "precision": "float32",
}
ONLINE = {**TUNING, "start": "sft", "batch_size": 4, "steps": 2, "max_new_tokens": 6}
DRAWN = {"prompts": 6, "responses": 3, "sampling": {"max_tokens": 12}}
METHODS: dict[str, dict[str, Any]] = {
    "sft": {"kind": "sft", "checkpoint": "small", "epochs": 2, **TUNING},
    "dpo": {"kind": "dpo", "start": "sft", "beta": 0.1, "epochs": 1, **TUNING},
    "iterative": {"kind": "iterative_dpo", "start": "dpo", "samples": DRAWN, "beta": 0.1, "epochs": 1, **TUNING},
    "ppo": {"kind": "ppo", **ONLINE},
    "rloo": {"kind": "rloo", "responses": 3, **ONLINE},
    "best_of_n": {"kind": "best_of_n", "start": "sft", "samples": DRAWN},
    "steerlm": {"kind": "steerlm", "checkpoint": "small", "epochs": 1, **TUNING},
    "steered_1": {"kind": "steerlm2", "start": "steerlm", "unconditional": "sft", "samples": DRAWN, "epochs": 1, **TUNING},
    "steered_2": {"kind": "steerlm2", "start": "steered_1", "unconditional": "sft", "samples": DRAWN, "epochs": 1, **TUNING},
}  # fmt: skip


def lines(prompts: int, seed: int = 3) -> list[dict[str, Any]]:
    """Two rated responses to each prompt; the first is as helpful as it says `good`, or more."""
    generator = np.random.default_rng(seed)
    rows = []
    for n in range(prompts):
        asked = " ".join(["one", "two"][int(bit)] for bit in f"{n:06b}")
        for _ in range(2):
            words = list(generator.choice(SPOKEN, 6))
            rows.append(
                {
                    "prompt": asked,
                    "response": " ".join(words),
                    "helpfulness": min(4, 2 * words.count("good") + len(rows) % 2),
                }
            )
    return rows  # fmt: skip


def pairs(count: int) -> list[dict[str, Any]]:
    rows = lines(count)
    return [
        {"prompt": one["prompt"], "chosen": f"{one['response']} good", "rejected": other["response"]}
        for one, other in zip(rows[::2], rows[1::2], strict=True)
    ]


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def one_head(folder: Path) -> Path:
    """The model with its weights as one attention head of width 32: vLLM on a CPU takes none of width 16."""
    place = folder / "config.json"
    config = json.loads(place.read_text()) | {"num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 32}
    place.write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders `base`, `other` (language models), `reward`, `rated` (reward models of one output and of five)."""
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("base", "other")):
        torch.manual_seed(seed)
        one_head(save_small_model(folder / name))
    save_reward_model(folder / "reward")
    save_reward_model(folder / "rated", ATTRIBUTES)
    return folder


@pytest.fixture
def place(tmp_path: Path, models: Path) -> Path:
    """A folder with a file of ratings, and a profile with every method."""
    profile = {
        "extends": "tiny",
        "name": "mine",
        "store": f"{tmp_path}/store",
        "checkpoints": {"small": {"folder": str(models / "base"), "licence": "Apache-2.0", "max_context": 128}},
        "alignment": {"held_out_share": 0.3, "methods": METHODS},
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(profile, sort_keys=False))
    write(tmp_path / "rows.jsonl", lines(20))
    return tmp_path


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is watched while policies are trained is short."""
    monkeypatch.setattr(watching, "WATCHED_TOKENS", 8)


class Writer:
    """Test double of an engine: writes words by the seed of a request, and keeps what it was asked."""

    asked: ClassVar[list[Request]] = []

    def answer(self, requests: Sequence[Request]) -> Iterator[Answer]:
        for request in requests:
            Writer.asked.append(request)
            words = np.random.default_rng(request.seed % 2**32).choice(SPOKEN, 6)
            yield Answer(request.key, " ".join(words), "stop", None, 4, 7)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Test double of `apart`: steps run in this process, and samples are a `Writer`'s; what was begun so, in order."""
    begun = list[str]()

    def engine(spec: EngineSpec, log: Log) -> LazyEngine:
        return LazyEngine(str(spec.checkpoint.folder), "0", "template", Writer)

    def apart(what: str, spec: Spec, environment: Mapping[str, str], log: Log) -> Figures:
        begun.append(what)
        kind, work = process.WORKERS[spec.worker]
        return work(kind.model_validate_json(spec.model_dump_json()), log)

    monkeypatch.setattr(asking, "engine_of", engine)
    monkeypatch.setattr(from_file, "apart", apart)
    monkeypatch.setattr(Writer, "asked", [])
    return begun


def command_of(place: Path, models: Path, method: str) -> list[str]:
    return ["train", method, str(place / "rows.jsonl"), str(place / "policy"), *options(place, models, method)]


def options(place: Path, models: Path, method: str) -> list[str]:
    """What a method needs beside METHOD, IN and FOLDER."""
    given = ["--profile", str(place / "mine.yaml")]
    kind = METHODS[method]["kind"]
    if kind not in ("sft", "steerlm"):
        given += ["--start", str(models / "base")]
    if kind in ("iterative_dpo", "ppo", "rloo"):
        given += ["--reward-model", str(models / "reward")]
    if kind.startswith("steerlm"):
        given += ["--reward-model", str(models / "rated"), "--weights", WEIGHTS]
    if kind == "steerlm2":
        given += ["--unconditional", str(models / "other")]
    return given


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(folder / "model.safetensors")
    return found


def same(one: Path, other: Path) -> bool:
    mine, its = weights(one), weights(other)
    return all(torch.allclose(mine[name], its[name], atol=1e-6) for name in mine)


# ------------------------------------------------------------------------------------------------------------------------ end to end


@pytest.mark.parametrize("method", [name for name, of in METHODS.items() if of["kind"] != "best_of_n"])
def test_every_method_writes_a_policy_that_can_be_loaded(
    method: str, place: Path, models: Path, here: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command_of(place, models, method)) == 0
    told = capsys.readouterr()
    assert sorted(p.name for p in place.iterdir() if "policy" in p.name) == ["policy"], "nothing is left beside it"
    assert not list(place.rglob("*.checkpoints"))

    policy, tokenizer = (
        AutoModelForCausalLM.from_pretrained(place / "policy"),
        AutoTokenizer.from_pretrained(place / "policy"),
    )
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") in policy.generation_config.eos_token_id
    assert not same(place / "policy", models / "base"), "it has learned something"
    assert all(torch.isfinite(p).all() for p in policy.parameters())

    kind = METHODS[method]["kind"]
    assert here == {
        "sft": [],
        "dpo": [],
        "iterative_dpo": ["scoring", "sampling", "scoring"],
        "steerlm2": ["scoring", "sampling", "scoring"],
    }.get(kind, ["scoring"])
    systems = [request.messages[0]["content"] for request in Writer.asked if request.messages[0]["role"] == "system"]
    assert len(Writer.asked) == 18 * (kind in ("iterative_dpo", "steerlm2"))
    assert len(systems) == 18 * (kind == "steerlm2"), "a policy that is tuned to levels is asked for them"
    assert all("helpfulness:4" in text and "verbosity:2" in text for text in systems)
    card = (place / "policy" / "README.md").read_text()
    assert f"# {method}: {kind}" in card
    model = {"sft": None, "dpo": None, "steerlm": "rated", "steerlm2": "rated"}.get(kind, "reward")
    assert ("its rewards are of the reward model" in card) == bool(model)
    assert f"the reward model {model} (revision" in card or not model
    assert ("verbosity:2" in card) == kind.startswith("steerlm")
    if model:
        assert f"Rewards are of {model}, whose card does not say who gave the ratings" in card
    else:
        assert "Trained on the file rows.jsonl, which does not say who gave its ratings." in card
    assert ("Apache-2.0, not stated for rows.jsonl" in card) == (kind in ("sft", "steerlm"))
    assert ("that of base, not stated for rows.jsonl" in card) == (kind not in ("sft", "steerlm"))

    # what is printed is what the curve has
    curve = pq.read_table(place / "policy" / "curve.parquet").to_pylist()
    steps = [row for row in curve if row["part"] == "train"]
    called = method if method == kind else f"{method} ({kind})"
    count = steps[-1]["step"]
    assert f"{called}: {count} step{'s' * (count > 1)} on " in told.out
    figure = {"ppo": "policy_loss", "steerlm2": "divergence"}.get(kind, "loss")
    shown = next(line for line in told.out.splitlines() if f"{figure.replace('_', ' ')}, training" in line)
    assert [float(cell) for cell in re.split(r" *│ *", shown)[2:4]] == pytest.approx(
        [steps[0][figure], steps[-1][figure]], abs=1e-4
    )
    assert ("reward, samples to held-out prompts" in told.out) == bool(model)
    assert told.out.rstrip().endswith(str(place / "policy"))
    assert "What was read of rows.jsonl" in told.out
    # nobody goes on from it, and it is not written over
    assert main(command_of(place, models, method)) == 1
    assert "exists already" in capsys.readouterr().err


def test_a_method_is_also_named_by_its_kind_and_a_hub_id_or_folder_is_what_it_starts_from(
    place: Path, models: Path
) -> None:
    from pipeline.settings import load_profile

    (place / "mine.yaml").write_text(
        (place / "mine.yaml").read_text().replace("  small:\n", "  small:\n    chat_template: plain\n")
    )
    profile = load_profile(place / "mine.yaml")
    assert from_file.named(profile, "iterative_dpo")[1] == "iterative"
    begun = from_file.wanted_of(profile, "sft")
    assert begun.start == profile.checkpoints["small"]
    assert begun.start.chat_template == "plain"
    other = from_file.wanted_of(profile, "sft", str(models / "other")).start
    assert (other.folder, other.max_context, other.licence) == (str(models / "other"), 128, "that of other")
    assert other.chat_template == "tokenizer", "what it starts from has a template of its own"
    hub = from_file.wanted_of(profile, "dpo", "organisation/name@0123").start
    assert (hub.hub, hub.revision, hub.folder, hub.max_context) == ("organisation/name", "0123", None, 128)


def test_rewards_are_standardised_by_what_the_reward_model_says_of_the_files_train_responses(
    place: Path, models: Path, here: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = dict[str, Any]()

    def kept(
        spec: TuningSpec, log: Log
    ) -> Figures:  # test double: keeps what it is given, as its tables go with the command
        given.update(
            reward=spec.reward,
            rows=pq.read_table(spec.responses.path).to_pylist(),
            samples=pq.read_table(spec.samples.path).to_pylist(),
        )
        raise RuntimeError("cut off")

    monkeypatch.setattr(worker, "work", kept)
    assert main(command_of(place, models, "steered_1")) == 1
    tokenizer = AutoTokenizer.from_pretrained(models / "rated")
    model = AutoModelForSequenceClassification.from_pretrained(models / "rated")

    def goodness(rows: Sequence[Mapping[str, Any]]) -> list[float]:
        found = []
        for row in rows:
            messages = [*row["messages"], {"role": "assistant", "content": row["response"]}]
            inputs = tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=True)
            with torch.no_grad():
                helpfulness, *_, verbosity = model(**inputs).logits[0].tolist()
            found.append(helpfulness - 0.5 * verbosity)
        return found

    train = goodness([row for row in given["rows"] if row["split"] == "train"])
    assert 20 < len(train) < 40
    assert given["reward"].mean == pytest.approx(np.mean(train), abs=1e-5)
    assert given["reward"].sd == pytest.approx(np.std(train), abs=1e-5)
    assert given["reward"].weights == {**dict.fromkeys(ATTRIBUTES, 0.0), "helpfulness": 1.0, "verbosity": -0.5}
    assert [row["goodness"] for row in given["samples"]] == pytest.approx(goodness(given["samples"]), abs=1e-5)
    prompts = {row["prompt_id"] for row in given["rows"] if row["split"] == "train"}
    assert {row["prompt_id"] for row in given["samples"]} <= prompts


def test_the_policy_of_one_method_is_where_the_next_starts(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    profile = ["--profile", str(place / "mine.yaml")]
    assert main(["train", "sft", str(place / "rows.jsonl"), str(place / "one"), *profile]) == 0
    assert (
        main(["train", "dpo", str(place / "rows.jsonl"), str(place / "two"), *profile, "--start", str(place / "one")])
        == 0
    )
    card = (place / "two" / "README.md").read_text()
    assert "It started from one (revision" in card
    first = next(
        row for row in pq.read_table(place / "two" / "curve.parquet").to_pylist() if row["part"] == "development"
    )
    assert first["step"] == 0
    assert first["loss"] == pytest.approx(np.log(2), abs=1e-5), "before the first step the policy is its reference"


def test_the_file_is_learned_where_the_profile_has_conversations_for_the_method(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    profile = yaml.safe_load((place / "mine.yaml").read_text())
    profile["alignment"]["conversations"] = {
        "chats": {"kind": "files", "path": "nowhere.jsonl", "licence": "CC-BY-4.0"}
    }
    (place / "mine.yaml").write_text(yaml.safe_dump(profile, sort_keys=False))
    assert (
        main(["train", "sft", str(place / "rows.jsonl"), str(place / "policy"), "--profile", str(place / "mine.yaml")])
        == 0
    )
    told = capsys.readouterr()
    assert "The profile has conversations for sft; here rows.jsonl alone is learned" in told.err
    assert "steps on 14 of 14 conversations" in told.out


def test_curves_are_kept_for_tensorboard(place: Path) -> None:
    command = ["train", "sft", str(place / "rows.jsonl"), str(place / "policy"), "--profile", str(place / "mine.yaml")]
    assert main([*command, "--tensorboard", str(place / "curves")]) == 0
    assert list((place / "curves").rglob("events.out.tfevents.*"))


# -------------------------------------------------------------------------------------------------------------------------- the file


def trained(place: Path, models: Path, method: str, rows: Sequence[Mapping[str, Any]], *more: str) -> int:
    write(place / "given.jsonl", rows)
    return main(
        ["train", method, str(place / "given.jsonl"), str(place / "policy"), *options(place, models, method), *more]
    )


@pytest.mark.parametrize("method", ["sft", "dpo", "ppo"])
def test_pairs_alone_are_enough(
    method: str, place: Path, models: Path, here: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert trained(place, models, method, pairs(20)) == 0
    assert "of the form prompt, chosen and rejected" in capsys.readouterr().out


def test_dpo_learns_the_files_pairs_and_not_those_of_its_ratings(
    place: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert trained(place, models, "dpo", [*lines(20), *pairs(12)]) == 0
    said = re.search(r"on (\d+) of (\d+) pairs", capsys.readouterr().out)
    assert said
    assert 0 < int(said[2]) < 12, "some of twelve are held out"


def test_dpo_needs_no_more_than_pairs_beside_which_a_response_is_rated(place: Path, models: Path) -> None:
    assert trained(place, models, "dpo", [*lines(1)[:1], *pairs(12)]) == 0


@pytest.mark.parametrize("method", ["ppo", "iterative"])
def test_what_is_rewarded_needs_no_rating(method: str, place: Path, models: Path, here: list[str]) -> None:
    assert trained(place, models, method, [{n: row[n] for n in ("prompt", "response")} for row in lines(20)]) == 0


def test_the_best_response_is_the_best_by_means(place: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rated = [row | {"helpfulness": 3.6 + 0.1 * (n % 2)} for n, row in enumerate(lines(20))]
    best = set[str]()

    def kept(spec: TuningSpec, log: Log) -> Figures:  # test double: keeps what is to be learned
        best.update(row["response"] for row in pq.read_table(spec.responses.path).to_pylist() if row["best"])
        raise RuntimeError("cut off")

    monkeypatch.setattr(worker, "work", kept)
    assert trained(place, models, "sft", rated) == 1
    assert best == {row["response"] for row in rated[1::2]}, "both would be 4 where ratings were rounded"


def test_what_is_left_out_is_told(
    place: Path, models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = worker.work
    more = {"unscored": 3, "equal_texts": 0, "no_pair: equal goodness": 2}
    monkeypatch.setattr(worker, "work", lambda spec, log: whole(spec, log) | more)
    assert trained(place, models, "sft", lines(20)) == 0
    told = capsys.readouterr().err
    assert "3 responses are left out, as the reward model doesn't score them" in told
    assert "2 prompts have no pair: equal goodness" in told
    assert "both texts" not in told


NO_RATING = [{n: row[n] for n in ("prompt", "response")} for row in lines(20)]


@pytest.mark.parametrize(
    ("method", "rows", "said"),
    [
        ("sft", [], "holds no row"),
        ("sft", lines(1)[:1], "too few prompts to hold some out (0 responses to train on, 1 held out): bring more, or change"),
        ("sft", lines(1), "too few prompts to hold some out (0 responses to train on, 2 held out)"),
        ("ppo", lines(2)[2:], "too few prompts to hold some out (2 responses to train on, 0 held out)"),
        ("dpo", lines(1), "too few prompts to hold some out (0 pairs to train on, 1 held out)"),
        ("dpo", lines(20)[::2], "gives no pair: bring pairs of chosen and rejected, or several responses"),
        ("sft", NO_RATING, "has neither a rating of helpfulness nor a pair"),
        ("dpo", NO_RATING, "gives no pair"),
        ("sft", [*lines(20), lines(1)[0] | {"helpfulness": 7}], "given.jsonl:41: helpfulness is 7"),
        ("sft", [{"question": "one", "response": "two"}], "prompt is missing"),
    ],
)  # fmt: skip
def test_a_file_that_is_too_small_or_lacks_what_is_learned_is_refused(
    method: str,
    rows: list[dict[str, Any]],
    said: str,
    place: Path,
    models: Path,
    here: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert trained(place, models, method, rows) == 1
    told = capsys.readouterr()
    assert said in told.err
    assert len(told.err.strip().splitlines()) == 1, "one sentence"
    assert not here
    assert not [p for p in place.iterdir() if "policy" in p.name]


def test_a_few_rows_train_once_some_prompt_is_held_out(
    place: Path, models: Path, here: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Five rows: the share that is held out decides, by a hash of each prompt."""
    rows = lines(5)[::2]
    assert trained(place, models, "sft", rows) == 0
    assert re.search(r"steps on [34] of [34] conversations", capsys.readouterr().out)
    shutil.rmtree(place / "policy")
    assert trained(place, models, "rloo", rows) == 0


def test_one_response_to_train_on_gives_no_spread_to_standardise_by(
    place: Path, models: Path, here: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    profile = yaml.safe_load((place / "mine.yaml").read_text())
    profile["alignment"]["held_out_share"] = 0.8
    (place / "mine.yaml").write_text(yaml.safe_dump(profile, sort_keys=False))
    rows = lines(8)[::2]
    for count in range(2, 9):
        if trained(place, models, "ppo", rows[:count]) and "standardised" in (said := capsys.readouterr().err):
            assert "rewards can't be standardised by the mean" in said
            break
    else:
        pytest.fail("no number of prompts left one to train on")


def test_columns_have_other_names_and_rows_of_the_validation_split_are_left_out(
    place: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{("reply" if name == "response" else name): value for name, value in row.items()} for row in lines(20)]
    rows += [row | {"split": "test"} for row in rows[:4]]
    assert trained(place, models, "sft", rows) == 1
    assert "response is missing" in capsys.readouterr().err
    assert trained(place, models, "sft", rows, "--columns", "response=reply") == 0
    told = capsys.readouterr()
    assert "with the column reply as response" in told.out
    assert "prompts dropped, as rows of the file's validation and test splits have them: 2" in told.err


# ------------------------------------------------------------------------------------------------------------------------- who rated


def test_the_card_says_who_gave_the_ratings_of_the_file(place: Path, models: Path) -> None:
    assert trained(place, models, "sft", [row | {"simulated": True} for row in lines(20)]) == 0
    card = (place / "policy" / "README.md").read_text()
    assert "rated-by-simulated-annotators" in card
    assert "Ratings come from simulated annotators" in card
    shutil.rmtree(place / "policy")
    assert trained(place, models, "sft", lines(20), "--rated-by", "language models") == 0
    assert "Ratings by language models; no person rated." in (place / "policy" / "README.md").read_text()


@pytest.mark.parametrize(
    ("tags", "who"),
    [
        ("[reward-model, helpsteer]", "people"),
        ("[reward-model, helpsteer, rated-by-simulated-annotators]", "simulated annotators"),
        ("[reward-model, helpsteer, rated-by-language-models]", "language models"),
        ("[reward-model, helpsteer, rated-by-unknown]", None),
        ("[reward-model]", None),
        ("{a: b}", None),
        ("[", None),
    ],
)
def test_who_rated_for_a_reward_model_is_read_from_its_card(tags: str, who: str | None, tmp_path: Path) -> None:
    assert from_file.raters_of_card(tmp_path) is None
    (tmp_path / "README.md").write_text(f"---\nlibrary_name: transformers\ntags: {tags}\n---\n# mine\n")
    assert from_file.raters_of_card(tmp_path) == who


def test_rewards_are_said_to_rest_on_the_reward_models_ratings_not_on_the_files(
    place: Path, models: Path, here: list[str]
) -> None:
    shutil.copytree(models / "reward", place / "ours")
    (place / "ours" / "README.md").write_text(
        "---\ntags: [reward-model, helpsteer, rated-by-simulated-annotators]\n---\n"
    )
    people = [row | {"rated_by": "people"} for row in lines(20)]
    assert trained(place, models, "rloo", people, "--reward-model", str(place / "ours")) == 0
    card = (place / "policy" / "README.md").read_text()
    assert "rated-by-simulated-annotators" in card
    assert "Ratings come from simulated annotators" in card


# ----------------------------------------------------------------------------------------------------------------------- wrong options


def test_what_a_method_needs_and_does_not_get_is_said_with_what_makes_it(
    place: Path, models: Path, here: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    base, reward, rated = (str(models / name) for name in ("base", "reward", "rated"))
    rewarded = ["--reward-model", reward]
    for method, given, said in (
        ("dpo", [], "dpo needs the policy of sft, which it starts from: give its folder with --start (python -m pipeline.alignment train sft"),
        ("steered_2", rewarded, "steered_2 (steerlm2) needs the policy of sft, which is P(y|x): give its folder with --unconditional"),
        ("steered_2", [*rewarded, "--unconditional", base], "needs the policy of steered_1, which it starts from"),
        ("ppo", ["--start", base], "ppo needs a reward model: give its folder with --reward-model (python -m pipeline.reward_model train"),
        ("steerlm", [], "steerlm needs a reward model"),
        ("best_of_n", [], "best_of_n trains nothing"),
        ("grpo", [], "profile mine has no method grpo; it has: sft, dpo, best_of_n, steerlm, iterative"),
        ("steerlm2", [], "has several methods of the kind steerlm2; name one of: steered_1, steered_2"),
        ("sft", rewarded, "--reward-model: sft is trained without rewards; leave it out"),
        ("dpo", ["--weights", WEIGHTS], "--weights: dpo is trained without rewards"),
        ("sft", ["--unconditional", base], "--unconditional: sft has no use for it"),
        ("sft", ["--start", "nowhere"], "--start nowhere: is neither a folder nor a hub id"),
        ("sft", ["--start", str(place)], "is not a model folder: it has no config.json"),
        ("dpo", ["--start", reward], "is no language model (LlamaForSequenceClassification)"),
        ("ppo", ["--start", base, "--reward-model", base], "is not a reward model: LlamaForCausalLM writes text"),
        ("ppo", ["--start", base, "--reward-model", "nowhere"], "--reward-model nowhere: is no folder"),
        ("ppo", ["--start", base, "--reward-model", rated], "has several outputs (helpfulness, correctness, coherence, complexity, verbosity), so"),
        ("ppo", ["--start", base, "--reward-model", rated, "--weights", "length=1"], "weights: 'length' is no output of the model"),
        ("steerlm", rewarded, "predicts reward, no attribute of `target`"),
        ("steered_1", ["--start", base, *rewarded, "--unconditional", "nowhere"], "--unconditional nowhere: is no folder"),
        ("sft", ["--profile", "published"], "profile published has no section alignment"),
        ("sft", ["--columns", "reply"], "--columns reply: is not FIELD=COLUMN"),
    ):  # fmt: skip
        command = [
            "train",
            method,
            str(place / "rows.jsonl"),
            str(place / "policy"),
            "--profile",
            str(place / "mine.yaml"),
            *given,
        ]
        assert main(command) == 1, said
        told = capsys.readouterr().err
        assert said in told
        assert len(told.strip().splitlines()) == 1, "one sentence"
    assert not here
    assert not [p for p in place.iterdir() if "policy" in p.name]


def test_samples_that_give_no_pair_say_why(
    place: Path, models: Path, here: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def cut(self: Writer, requests: Sequence[Request]) -> Iterator[Answer]:  # test double: no response ends
        for request in requests:
            yield Answer(request.key, "one two", "length", None, 4, 12)

    monkeypatch.setattr(Writer, "answer", cut)
    command = command_of(place, models, "iterative")
    assert main(command) == 1
    assert (
        "no prompt's samples give a pair (no scored sample that ends: 6); draw more or longer ones"
        in capsys.readouterr().err
    )

    def refuse(self: Writer, requests: Sequence[Request]) -> Iterator[Answer]:  # test double: nothing is answered
        for request in requests:
            yield Answer(request.key, "", "refused", "the context is full", 4, 0)

    monkeypatch.setattr(Writer, "answer", refuse)
    (place / ".policy.checkpoints").rename(place / "earlier")
    assert main(command) == 1
    assert (
        "no prompt could be sampled, so there is nothing to learn from; the engine says: the context is full"
        in capsys.readouterr().err
    )


def test_weights_that_are_no_numbers_are_not_written(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = worker.work
    monkeypatch.setattr(worker, "work", lambda spec, log: whole(spec, log) | {"finite": False})
    assert (
        main(["train", "sft", str(place / "rows.jsonl"), str(place / "policy"), "--profile", str(place / "mine.yaml")])
        == 1
    )
    assert "training ended with weights that are no finite numbers; lower its learning_rate" in capsys.readouterr().err
    assert not (place / "policy").exists()


# ------------------------------------------------------------------------------------------------------------------ cut off, and go on


def test_training_starts_anew_where_anything_that_it_depends_on_is_another(
    place: Path, models: Path, here: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = list[str]()

    def cut_off(spec: Any, log: Log) -> Figures:  # test double: a training that fails at once
        versions.append(spec.data_version)
        raise RuntimeError("cut off")

    monkeypatch.setattr(worker, "work", cut_off)

    def of(method: str, *more: str) -> str:
        command = command_of(place, models, method)
        count = len(versions)
        assert main([*command, *more]) == 1
        assert len(versions) == count + 1
        return versions[-1]

    first = of("steered_1")
    assert of("steered_1") == first
    assert len(Writer.asked) == 18, "six prompts, three samples each, asked once"
    assert of("steered_1", "--start", str(models / "other")) != first
    assert of("steered_1", "--unconditional", str(models / "base")) != first
    rated = ["--reward-model", str(models / "rated"), "--weights"]
    first = of("ppo", *rated, WEIGHTS)
    assert of("ppo", *rated, WEIGHTS) == first
    assert of("ppo", *rated, "helpfulness=1") != first
    assert of("ppo", *rated, WEIGHTS, "--columns", "split=side") != first
    save_reward_model(place / "anew", ATTRIBUTES, seed=9)
    assert of("ppo", "--reward-model", str(place / "anew"), "--weights", WEIGHTS) != first
    write(place / "rows.jsonl", lines(20, seed=4))
    assert of("ppo", *rated, WEIGHTS) != first


def test_training_starts_anew_where_a_sample_comes_that_was_refused_before(
    place: Path, models: Path, here: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "train",
        "iterative",
        str(place / "rows.jsonl"),
        str(place / "policy"),
        *options(place, models, "iterative"),
    ]
    versions, whole = list[str](), Writer.answer

    def cut_off(spec: Any, log: Log) -> Figures:  # test double: a training that fails at once
        versions.append(spec.data_version)
        raise RuntimeError("cut off")

    def all_but_one(self: Writer, requests: Sequence[Request]) -> Iterator[Answer]:  # test double: one is refused
        yield Answer(requests[0].key, "", "refused", "the context is full", 4, 0)
        yield from whole(self, requests[1:])

    monkeypatch.setattr(worker, "work", cut_off)
    with monkeypatch.context() as patched:
        patched.setattr(Writer, "answer", all_but_one)
        assert main(command) == 1
    assert (
        "1 of 18 samples are missing, as the engine refused the prompt; the first: the context is full"
        in capsys.readouterr().err
    )
    assert main(command) == 1
    assert main(command) == 1
    assert len(Writer.asked) == 18
    assert versions[0] != versions[1] == versions[2]


def test_what_was_sampled_and_scored_before_is_not_done_again(
    place: Path, models: Path, here: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "train",
        "iterative",
        str(place / "rows.jsonl"),
        str(place / "policy"),
        *options(place, models, "iterative"),
    ]

    def cut_off(spec: Any, log: Log) -> Figures:  # test double: a training that fails at once
        raise RuntimeError("cut off")

    with monkeypatch.context() as patched:
        patched.setattr(worker, "work", cut_off)
        assert main(command) == 1
    assert len(Writer.asked) == 18
    assert (place / ".policy.checkpoints").is_dir()
    assert not (place / "policy").exists()
    capsys.readouterr()
    assert main(command) == 0
    assert len(Writer.asked) == 18
    told = capsys.readouterr().err
    assert re.findall(r"of (\d+) conversations, (\d+) were scored before", told) == [("40", "40"), ("18", "18")]
    assert not (place / ".policy.checkpoints").exists()


@pytest.fixture
def started(place: Path) -> Iterator[Callable[[Sequence[str]], "subprocess.Popen[str]"]]:
    """Starts the command as a process of its own, in the folder; those that still run at the end are killed."""
    processes = list["subprocess.Popen[str]"]()
    (place / "tmp").mkdir()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(place / "tmp"), "OMP_NUM_THREADS": "1"}

    def start(arguments: Sequence[str]) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "pipeline.alignment", *arguments]
        with (place / "log").open("a") as log:
            processes.append(subprocess.Popen(command, cwd=place, env=environment, stdout=log, stderr=log, text=True))
        return processes[-1]

    yield start
    for one in processes:
        if one.poll() is None:
            one.kill()
            one.wait()


def until(there: Callable[[], bool], running: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + PATIENCE
    while not there():
        assert time.monotonic() < deadline
        assert running.poll() is None, "it ended before"
        time.sleep(0.005)


def test_a_process_that_is_killed_or_stopped_goes_on_and_ends_the_same(
    place: Path, started: Callable[[Sequence[str]], "subprocess.Popen[str]"], capsys: pytest.CaptureFixture[str]
) -> None:
    profile = yaml.safe_load((place / "mine.yaml").read_text())
    profile["alignment"]["methods"]["sft"] |= {"epochs": 12, "evaluations": 12}
    (place / "mine.yaml").write_text(yaml.safe_dump(profile, sort_keys=False))
    command = ["train", "sft", "rows.jsonl", "policy", "--profile", "mine.yaml"]
    kept = place / ".policy.checkpoints"

    def steps() -> int:
        found = (int(p.parent.name.partition("-")[2]) for p in kept.glob("training/*/checkpoint-*/trainer_state.json"))
        return max(found, default=0)

    killed = started(command)
    until(lambda: steps() > 0, killed)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    before = steps()
    assert before > 0
    assert not (place / "policy").exists()
    shutil.rmtree(place / "tmp")  # a process that is killed leaves its copy of the data
    (place / "tmp").mkdir()
    left = set(place.iterdir())

    stopped = started(command)
    until(lambda: steps() > before, stopped)
    stopped.terminate()
    assert stopped.wait(PATIENCE) == 143
    assert f"Training goes on from step {before}" in (place / "log").read_text()
    assert not list((place / "tmp").rglob("*.parquet"))
    assert set(place.iterdir()) == left, "no half of a policy"

    for name in ("policy", "undisturbed"):
        assert (
            main(["train", "sft", str(place / "rows.jsonl"), str(place / name), "--profile", str(place / "mine.yaml")])
            == 0
        )
    told = capsys.readouterr().err
    assert re.search(r"Training goes on from step (\d+)", told.partition("training steps")[0])
    assert told.count("goes on") == 1
    assert not kept.exists()
    assert same(place / "policy", place / "undisturbed")
    curves = [pq.read_table(place / name / "curve.parquet").to_pylist() for name in ("policy", "undisturbed")]
    assert_same(*([row for row in curve if row["part"] != "watched"] for curve in curves))  # here they are shorter


def test_a_step_in_a_process_of_its_own_gives_its_reason_where_it_fails(
    place: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The reward model has no weights, which is seen when it is loaded, by the real process."""
    shutil.copytree(models / "reward", place / "empty")
    (place / "empty" / "model.safetensors").unlink()
    command = command_of(place, models, "rloo")
    assert main([*command, "--reward-model", str(place / "empty")]) == 1
    told = capsys.readouterr().err
    assert "scoring ended with status 1" in told
    assert "empty" in told
    assert not (place / "policy").exists()


@pytest.mark.engine
def test_vllm_samples_in_a_process_of_its_own_and_what_it_wrote_is_kept_when_training_is_killed(
    place: Path, models: Path, started: Callable[[Sequence[str]], "subprocess.Popen[str]"]
) -> None:
    profile = yaml.safe_load((place / "mine.yaml").read_text())
    profile["alignment"]["methods"]["iterative"] |= {"epochs": 12, "evaluations": 12}
    (place / "mine.yaml").write_text(yaml.safe_dump(profile, sort_keys=False))
    command = ["train", "iterative", "rows.jsonl", "policy", *options(place, models, "iterative")]
    kept = place / ".policy.checkpoints"
    killed = started(command)
    until(lambda: any(kept.glob("training/*/checkpoint-*/trainer_state.json")), killed)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    log = (place / "log").read_text()
    assert "18 requests are to be answered, 0 were answered before" in log
    again = started(command)
    assert again.wait(PATIENCE) == 0, (place / "log").read_text()[-2000:]
    rest = (place / "log").read_text().removeprefix(log)
    missing, asked = (
        re.search(r"(\d+) of 18 samples are missing", log),
        re.search(r"(\d+) requests are to be answered", rest),
    )
    assert int(asked[1] if asked else 0) == int(missing[1] if missing else 0), "what was answered is not asked again"
    assert "Training goes on from step" in rest
    assert not kept.exists()
    card = (place / "policy" / "README.md").read_text()
    assert "# iterative: iterative_dpo" in card
    assert AutoModelForCausalLM.from_pretrained(place / "policy").config.num_hidden_layers == 2
