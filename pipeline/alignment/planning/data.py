"""What there is to tune on, as a plan sees it: how many prompts, responses and pairs there are, and how long they are in tokens."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.alignment.data import TRAIN, responses_of_pairs, responses_of_rated
from pipeline.models.templates import Message
from pipeline.reward_model.planning.published import CHARACTERS_A_TOKEN, PROMPT_CHARACTERS, RESPONSE_CHARACTERS
from pipeline.reward_model.planning.shapes import PlanError
from pipeline.reward_model.sources.tables import preferences_of

Floats = npt.NDArray[np.float64]


class Texts(NamedTuple):
    """What goes through a model at once or one after the other: tokens, squares of the conversations' lengths, and tokens to be predicted."""

    tokens: float
    squares: float
    predicted: float

    def times(self, factor: float) -> "Texts":
        """So many times as much."""
        return Texts(*(factor * part for part in self))

    @property
    def everywhere(self) -> "Texts":
        """The same, with predictions at every token."""
        return self._replace(predicted=self.tokens)


@dataclass(frozen=True)
class Lengths:
    """Tokens of prompts, shape (prompts,), and of the responses to each, shape (prompts, responses).

    earlier: of the prompts' tokens those of the assistant's earlier turns, which a policy learns too. known: of every prompt; else there is one,
    with mean lengths, that stands for all.
    """

    prompt: Floats
    response: Floats
    earlier: Floats
    known: bool = True

    @classmethod
    def of_means(cls, prompt: float, response: float, responses: int = 1) -> Self:
        """Of prompts of which the mean lengths are known, with so many responses each."""
        return cls(np.array([prompt]), np.full((1, responses), response), np.zeros(1), known=False)

    @property
    def whole(self) -> Floats:
        """Tokens of conversations: a prompt with one response."""
        return self.prompt[:, None] + self.response

    def longest(self, most: int) -> int:
        """Tokens of the longest conversation, which has at most `most`; as many where only means are known."""
        return min(most, math.ceil(self.whole.max())) if self.known else most

    def longest_prompt(self, most: int) -> int:
        """Tokens of the longest prompt, which has at most `most`; as many where only means are known."""
        return min(most, math.ceil(self.prompt.max())) if self.known else most

    def fitting(self, max_tokens: int, name: str) -> tuple[Self, float]:
        """Those of which every conversation has at most `max_tokens`, and their share: longer ones are left out of a training.

        Where only means are known, longer ones are taken for that long. Raises PlanError where none fits.
        """
        if not self.known:
            scale = min(1.0, max_tokens / float(self.whole.max()))
            return replace(self, **{n: scale * getattr(self, n) for n in ("prompt", "response", "earlier")}), 1.0
        kept = np.all(self.whole <= max_tokens, axis=1)
        return self._where(kept, f"{name}: every conversation has more than max_tokens, {max_tokens}")

    def leaving(self, room: int, name: str) -> tuple[Self, float]:
        """Those whose prompt has at most `room` tokens, so that it leaves enough for a response, and their share.

        Where only means are known, longer ones are taken for that long. Raises PlanError where none is so short.
        """
        if not self.known and room > 0:
            return replace(self, prompt=np.minimum(self.prompt, room)), 1.0
        return self._where(
            self.prompt <= room, f"{name}: no prompt has at most the {room} tokens that a response leaves"
        )

    def _where(self, kept: npt.NDArray[np.bool_], reason: str) -> tuple[Self, float]:
        if not kept.any():
            raise PlanError(reason)
        found = replace(self, prompt=self.prompt[kept], response=self.response[kept], earlier=self.earlier[kept])
        return found, float(kept.mean())

    def asked(self, tokens: float) -> Self:
        """With so many tokens more in each prompt."""
        return replace(self, prompt=self.prompt + tokens)

    @property
    def last_alone(self) -> Self:
        """With the last responses alone to learn, without the earlier turns."""
        return replace(self, earlier=np.zeros_like(self.earlier))

    def answered(self, most: int) -> Self:
        """With a response of another model, as long as the first one here, but of at most `most` tokens; nothing else is to be learned."""
        return replace(self, response=np.minimum(self.response[:, :1], most)).last_alone

    def each(self, responses: int) -> Self:
        """With so many responses of the same length to each prompt."""
        return replace(self, response=np.repeat(self.response, responses, axis=1))

    def texts(self, prompts: float) -> Texts:
        """What goes through a model of so many prompts with their responses, each response in a conversation of its own."""
        learned = self.response.sum(axis=1) + self.earlier
        return Texts(
            prompts * float(self.whole.sum(axis=1).mean()),
            prompts * float((self.whole**2).sum(axis=1).mean()),
            prompts * float(learned.mean()),
        )


@dataclass(frozen=True)
class Data:
    """What there is to tune on.

    prompts: those with a response to learn; rows: responses, all of which the reward model rates; pairs: preferences; all before prompts are
    held out. learned, rated, paired: how long they are; said: where the numbers come from.
    """

    prompts: int
    rows: int
    pairs: int
    learned: Lengths
    rated: Lengths
    paired: Lengths
    said: str

    @classmethod
    def of_counts(cls, prompts: int, rows: int, pairs: int, prompt: float, response: float, said: str) -> Self:
        """From numbers alone. prompt, response: mean tokens. Raises PlanError where they can't be."""
        if prompts < 1 or rows < 0 or pairs < 0:
            raise PlanError(
                "there must be a prompt to tune on, and no number below 0: see --prompts, --rows and --pairs"
            )
        if not (prompt > 0 and response > 0):
            raise PlanError("--mean-prompt-tokens and --mean-response-tokens: must be above 0")
        one, two = (Lengths.of_means(prompt, response, n) for n in (1, 2))
        return cls(prompts, rows, pairs, one, one, two, said)

    @classmethod
    def of_tables(cls, rated: pa.Table, preferred: pa.Table, per_token: float, said: str) -> Self:
        """From a file's rated responses (schema RATED_ROWS) and preferences (PREFERRED_ROWS), by so many characters a token.

        Preferences are the file's own, or else those that ratings give. Raises PlanError where no prompt has a response to learn.
        """
        pairs = preferred if len(preferred) else preferences_of(rated, rated["helpfulness"], Counter())
        split = pa.array([TRAIN] * len(pairs))
        known = responses_of_rated(rated) if len(rated) else responses_of_pairs(pairs.append_column("split", split))
        best = known.filter(known["best"])
        if not len(best):
            raise PlanError("no prompt has a response with a rating of helpfulness, so there is none to learn")
        tokens = tokens_of(per_token)
        return cls(
            len(best),
            len(known),
            len(pairs),
            _lengths(best, ("response",), tokens),
            _lengths(known, ("response",), tokens),
            # without pairs nothing is planned of them
            _lengths(pairs, ("chosen", "rejected"), tokens)
            if len(pairs)
            else _lengths(best, ("response",) * 2, tokens),
            said,
        )


def tokens_of(per_token: float) -> Callable[[str], int]:
    """What takes texts for tokens: at least one, `per_token` characters each."""
    return lambda text: max(1, round(len(text) / per_token))


def _lengths(table: pa.Table, responses: Sequence[str], tokens: Callable[[str], int]) -> Lengths:
    """Of rows of messages and the columns of their responses."""

    def of(messages: Sequence[Message], *roles: str) -> int:
        return sum(tokens(m["content"]) for m in messages if not roles or m["role"] in roles)

    messages = table["messages"].to_pylist()
    answers = [[tokens(text) for text in table[name].to_pylist()] for name in responses]
    return Lengths(
        np.array([of(m) for m in messages], dtype=np.float64),
        np.array(answers, dtype=np.float64).T,
        np.array([of(m, "assistant") for m in messages], dtype=np.float64),
    )


# ------------------------------------------------------------------------------------------------------------------------ the original


MEAN_PROMPT, MEAN_RESPONSE = PROMPT_CHARACTERS / CHARACTERS_A_TOKEN, RESPONSE_CHARACTERS / CHARACTERS_A_TOKEN
"""Tokens of HelpSteer2's prompts and responses, in the mean."""
ORIGINAL = {"prompts": 100_000, "rows": 100_000 + 20_324, "pairs": 7_221}
"""HelpSteer2 (arXiv 2406.08673, section 4 and appendix H): the conversations of Daring Anteater; their responses, which its reward model rates
for SteerLM, with those of HelpSteer2's train split, by which rewards are standardised; the pairs of that split whose helpfulness differs."""
NODE_HOURS = {"sft": 128.0, "dpo": 128.0, "iterative_dpo": 656.0, "ppo": 32.0, "steerlm2": 1184.0}
"""What HelpSteer2 states of its Llama 3 70B by kind of method, in hours of eight H100s (appendix on compute): SFT and SteerLM 2.0 on Daring
Anteater, of which SteerLM isn't stated. Most of iterative DPO's and of SteerLM 2.0's went into generation that was not optimised."""
