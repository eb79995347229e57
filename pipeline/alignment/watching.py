"""What a policy writes while it is trained: samples to a few held-out prompts at every evaluation, with their rewards and lengths.

Imported only by workers.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from jinja2 import TemplateError
from upath import UPath

from pipeline.alignment.encoding import end_of_turn, prompt_ids
from pipeline.alignment.sampler import Sample, sample
from pipeline.alignment.schema import WATCHED
from pipeline.models.templates import Message
from pipeline.store import replacing

Messages = Sequence[Message]
Reward = Callable[[Sequence[Messages], Sequence[str]], npt.ArrayLike]
"""Gives the standardised rewards of responses to conversations, in order; NaN where it would not take one."""
WATCHED_PROMPTS, WATCHED_TOKENS = 4, 96
"""Held-out prompts that are looked at, and tokens of a response to them: enough to be read, too few to slow a training down."""


class Watch:
    """Looks at a policy as it is trained, always on the same prompts and with the same draws, and keeps what it wrote.

    Nothing that a training draws depends on it. What was kept in `work` before a training was cut off is kept.
    """

    def __init__(
        self, tokenizer: Any, asked: Sequence[Messages], reward: Reward | None, seed: int, work: Path, precision: str
    ) -> None:
        """asked: what the policy is asked, which ends with the user's message; what the template refuses is left out.

        reward: None where a method has none.
        """
        self._tokenizer, self._reward, self._seed, self._precision = tokenizer, reward, seed, precision
        self._place, self._end = work / "watched", end_of_turn(tokenizer)
        self._asked = list[tuple[Messages, list[int]]]()
        for messages in asked:
            try:
                self._asked.append((messages, prompt_ids(tokenizer, messages)))
            except TemplateError:
                continue

    def look(self, step: int, policy: Any) -> dict[str, float]:
        """Figures of samples of the policy after `step` steps: mean reward, tokens, share that doesn't end; none where there is no prompt.

        The policy is given back in the mode that it was in.
        """
        if not self._asked:
            return {}
        training = policy.training
        ids = [prompt for _, prompt in self._asked]
        samples = sample(policy, ids, self._end, WATCHED_TOKENS, (self._seed, 0), precision=self._precision)
        policy.train(training)
        texts = [self._tokenizer.decode(one.response, skip_special_tokens=True) for one in samples]
        figures = {
            "tokens": float(np.mean([len(one.response) for one in samples])),
            "unended": float(np.mean([not one.ended for one in samples])),
        }
        rewards = np.full(len(samples), np.nan)
        if self._reward:
            rewards = np.asarray(self._reward([messages for messages, _ in self._asked], texts), dtype=np.float64)
            if np.isfinite(rewards).any():
                figures["reward"] = float(np.nanmean(rewards))
        self._keep(step, texts, samples, rewards)
        return figures

    def _keep(self, step: int, texts: list[str], samples: list[Sample], rewards: npt.NDArray[np.float64]) -> None:
        rows = [
            {
                "step": step,
                "messages": [dict(message) for message in messages],
                "response": text,
                "ended": one.ended,
                "tokens": len(one.response),
                "standardised": float(reward) if np.isfinite(reward) else None,
            }
            for (messages, _), text, one, reward in zip(self._asked, texts, samples, rewards, strict=True)
        ]
        self._place.mkdir(parents=True, exist_ok=True)
        with replacing(UPath(self._place / f"{step}.json")) as file:
            file.write_text(json.dumps(rows), encoding="utf-8")

    def table(self) -> pa.Table:
        """All that was seen, in the order of steps: schema WATCHED."""
        files = sorted(self._place.glob("*.json"), key=lambda file: int(file.stem))
        rows = [row for file in files for row in json.loads(file.read_text(encoding="utf-8"))]
        return pa.Table.from_pylist(rows, schema=WATCHED)
