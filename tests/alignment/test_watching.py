"""What is kept of a policy while it is trained: the same prompts and draws each time, whatever the training does; curves as tables."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.alignment.resuming import table_of
from pipeline.alignment.sft import train
from pipeline.alignment.watching import WATCHED_TOKENS, Watch
from tests.alignment.cutting import CutOffError, Tracker
from tests.alignment.test_sft import EXAMPLES, METHOD, TOKENIZER, policy, weights
from tests.helpers import quiet

ASKED = [[{"role": "user", "content": text}] for text in ("one two", "three", "four five six")]


def word_count(asked: Any, texts: Any) -> list[float]:
    """A reward: how many words a response has; none for the last prompt."""
    return [np.nan if messages == ASKED[-1] else len(text.split()) for messages, text in zip(asked, texts, strict=True)]


def watch(work: Path, rewarded: bool = True) -> Watch:
    return Watch(TOKENIZER, ASKED, word_count if rewarded else None, 7, work, "float32")


def test_the_same_policy_writes_the_same_each_time_and_its_mode_stays(tmp_path: Path) -> None:
    model, seen = policy(), watch(tmp_path)
    model.train()
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first, later = seen.look(0, model), seen.look(4, model)
    assert first == later
    assert model.training
    assert torch.equal(before, torch.get_rng_state()), "nothing that a training draws depends on it"
    table = seen.table()
    assert table["step"].to_pylist() == [0] * 3 + [4] * 3
    assert table["response"][:3].to_pylist() == table["response"][3:].to_pylist()
    assert table["messages"][:3].to_pylist() == ASKED
    assert max(table["tokens"].to_pylist()) <= WATCHED_TOKENS
    rewards = table["standardised"][:3].to_pylist()
    assert rewards[2] is None
    assert first["reward"] == pytest.approx(np.mean([len(text.split()) for text in table["response"][:2].to_pylist()]))
    assert first["unended"] == np.mean([not ended for ended in table["ended"][:3].to_pylist()])


def test_without_a_reward_or_a_prompt_nothing_is_made_up(tmp_path: Path) -> None:
    assert set(watch(tmp_path, rewarded=False).look(0, policy())) == {"tokens", "unended"}
    assert watch(tmp_path).table()["standardised"].null_count == len(ASKED)
    nobody = Watch(TOKENIZER, [], None, 7, tmp_path / "other", "float32")
    assert nobody.look(0, policy()) == {}
    assert len(nobody.table()) == 0


def test_a_training_is_the_same_with_and_without_and_is_seen_as_often_as_it_is_kept(tmp_path: Path) -> None:
    plain, watched = policy(), policy()
    train(plain, TOKENIZER, EXAMPLES, [], METHOD, 1, tmp_path / "plain", quiet)
    tracker = Tracker()
    seen = watch(tmp_path / "watched")
    curve = train(watched, TOKENIZER, EXAMPLES, [], METHOD, 1, tmp_path / "watched", quiet, tracker, seen)
    assert torch.equal(weights(plain), weights(watched))
    assert [row["step"] for row in curve if row["part"] == "watched"] == [0, 2, 4]
    assert sorted(set(seen.table()["step"].to_pylist())) == [0, 2, 4]
    assert {"watched_reward", "watched_tokens", "train_loss"} <= tracker.names


def test_a_training_that_is_cut_off_keeps_what_was_seen_and_does_not_look_again(tmp_path: Path) -> None:
    whole = watch(tmp_path / "whole")
    curve = train(policy(), TOKENIZER, EXAMPLES, [], METHOD, 1, tmp_path / "whole", quiet, None, whole)
    with pytest.raises(CutOffError):
        train(
            policy(), TOKENIZER, EXAMPLES, [], METHOD, 1, tmp_path / "cut", quiet, Tracker(3), watch(tmp_path / "cut")
        )
    looks = list[int]()

    class Counted(Watch):
        def look(self, step: int, policy: Any) -> dict[str, float]:
            looks.append(step)
            return super().look(step, policy)

    rest = Counted(TOKENIZER, ASKED, word_count, 7, tmp_path / "cut", "float32")
    again = train(policy(), TOKENIZER, EXAMPLES, [], METHOD, 1, tmp_path / "cut", quiet, None, rest)
    assert looks == [4]
    assert rest.table().equals(whole.table())
    assert [(r["step"], r["part"]) for r in again] == [(r["step"], r["part"]) for r in curve]


def test_a_curves_table_has_the_figures_of_every_part() -> None:
    table = table_of(
        [{"step": 0, "part": "development", "loss": 1.0}, {"step": 1, "part": "train", "loss": 2.0, "kl": 0.5}]
    )
    assert table.to_pylist()[0] == {"step": 0, "part": "development", "loss": 1.0, "kl": None}
    assert table["kl"].to_pylist() == [None, 0.5]
