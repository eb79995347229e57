"""Policies over three responses with known rewards: DPO approaches the optimum that enumeration gives, iterative DPO what is rewarded most."""

from itertools import combinations
from math import exp, log
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from pipeline.alignment.dpo import Pair, pairs_of, train
from pipeline.alignment.encoding import Example
from pipeline.alignment.goodness import Standard, best_and_worst, standard_of
from pipeline.alignment.policies import log_probs
from pipeline.alignment.schema import SCORED
from pipeline.settings.alignment import IterativeDpo, Samples
from tests.alignment.test_dpo import METHOD
from tests.alignment.test_sft import END, TOKENIZER, policy
from tests.helpers import quiet

MESSAGES = [{"role": "user", "content": "four five"}]
TEXTS = ("one", "two", "three")
PAIRS = list(
    pairs_of(
        pa.Table.from_pylist(
            [{"messages": MESSAGES, "chosen": a, "rejected": b} for a in TEXTS for b in TEXTS if a != b]
        ),
        TOKENIZER,
        64,
    ).pairs.values()
)
PROMPT = PAIRS[0].prompt
RESPONSES = {text: [*TOKENIZER(text, add_special_tokens=False).input_ids, END] for text in TEXTS}


def shares(model: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Probabilities of the three responses among themselves."""
    rows = [Example([*PROMPT, *ids], [False] * len(PROMPT) + [True] * len(ids)) for ids in RESPONSES.values()]
    return torch.stack([values.double().sum() for values in log_probs(model, rows)]).softmax(0).numpy()


def test_dpo_approaches_the_optimum_of_the_reward_that_people_prefer_by(tmp_path: Path) -> None:
    """Of 20 comparisons each, as Bradley and Terry have them for rewards 0, log 3 and log 9: the optimum is ref exp(r / beta) / Z."""
    rewards, beta, compared = np.array([0.0, log(3), log(9)]), 0.5, list[Pair]()
    for low, high in combinations(range(3), 2):
        wins = 20 / (1 + exp(rewards[low] - rewards[high]))
        assert wins == pytest.approx(round(wins))
        one, other = (RESPONSES[TEXTS[n]] for n in (high, low))
        compared += [Pair(PROMPT, one, other)] * round(wins) + [Pair(PROMPT, other, one)] * (20 - round(wins))
    model = policy()
    start = shares(model)
    wanted = start * np.exp(rewards / beta)
    wanted /= wanted.sum()
    method = METHOD.model_copy(
        update={"beta": beta, "batch_size": 60, "epochs": 30, "micro_batch_tokens": 4096, "learning_rate": 3e-3}
    )
    train(model, TOKENIZER, compared, [], method, 0, tmp_path, quiet)
    assert np.abs(start - wanted).sum() / 2 > 0.1
    assert np.abs(shares(model) - wanted).sum() / 2 < 0.03


def test_iterative_dpo_approaches_what_is_rewarded_most_and_draws_no_pair_of_equals(tmp_path: Path) -> None:
    """The best and the worst of a prompt's samples say nothing of by how much: their optimum is the best response alone."""
    rewards = dict(zip(TEXTS, (1.0, -1.0, 0.2), strict=True))
    standard: Standard = standard_of(np.array(list(rewards.values())))
    method = IterativeDpo(
        kind="iterative_dpo", start="a", samples=Samples(prompts=12, responses=4), learning_rate=3e-3, batch_size=12, epochs=10, beta=0.1,
        micro_batch_tokens=4096, evaluations=1, precision="float32",
    )  # fmt: skip
    model, generator, reached = policy(), np.random.default_rng(0), list[float]()
    for rounds in range(3):
        drawn = generator.choice(3, (12, 4), p=shares(model))
        rows = [
            {
                "prompt_id": f"p{n}",
                "sample": k,
                "messages": MESSAGES,
                "response": TEXTS[which],
                "ended": True,
                "tokens": 2,
                "goodness": rewards[TEXTS[which]],
                "standardised": float(standard.of(np.array([rewards[TEXTS[which]]]))[0]),
            }
            for n, row in enumerate(drawn)
            for k, which in enumerate(row)
        ]
        ranked, left_out = best_and_worst(pa.Table.from_pylist(rows, schema=SCORED))
        same = sum(len(set(row.tolist())) == 1 for row in drawn)
        assert left_out.get("equal goodness", 0) == same
        for row in ranked.to_pylist():
            assert rewards[row["chosen"]] > rewards[row["rejected"]]
        reached.append(float(shares(model) @ list(rewards.values())))
        if len(ranked):
            pairs = list(pairs_of(ranked, TOKENIZER, 64).pairs.values())
            train(model, TOKENIZER, pairs, [], method, rounds, tmp_path / str(rounds), quiet)
    reached.append(float(shares(model) @ list(rewards.values())))
    assert reached[0] < 0.5
    assert reached == sorted(reached)
    assert reached[-1] > 0.9, "of 1.0, which the best response has"
