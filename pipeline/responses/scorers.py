"""How well a candidate for an assistant's turn fits: by what the user says next, or by a reward model. Imported only by the worker."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.engines.requests import Message
from pipeline.models.batching import batches
from pipeline.models.checkpoints import resolve
from pipeline.models.classifier import device
from pipeline.models.encoding import encode, longest_read, set_padding
from pipeline.models.loading import load_scorer
from pipeline.models.marks import harmless
from pipeline.models.precision import precision_of
from pipeline.models.scoring import pad, score
from pipeline.models.templates import ANSWERED, ASKED, own_template, settled, tokens_of
from pipeline.models.weights import read_model
from pipeline.responses.contexts import Scorer, Scores
from pipeline.settings import Checkpoint, NextTurnScorer, RewardScorer
from pipeline.worker import Log, Progress

TOKENS_A_BATCH = 2048


def scorers_of(
    wanted: Sequence[NextTurnScorer | RewardScorer], checkpoints: dict[str, Checkpoint], cache: Path
) -> list[Scorer]:
    """The scorers that a profile names, loaded; checkpoints: by the names that they use."""
    found: list[Scorer] = []
    for one in wanted:
        folder = resolve(checkpoints[one.checkpoint], cache)
        name, checkpoint = f"{one.kind}:{one.checkpoint}", checkpoints[one.checkpoint]
        if isinstance(one, NextTurnScorer):
            found.append(NextUserTurn(name, folder, checkpoint.max_context, precision_of(checkpoint.dtype, device())))
        else:
            found.append(RewardModel(name, folder, checkpoint.max_context))
    return found


class NextUserTurn:
    """Log-likelihood of the user's next turn, in nats, given the conversation with the candidate (method: A, criterion b)."""

    def __init__(self, name: str, folder: Path, max_context: int, precision: str) -> None:
        from transformers import AutoModelForCausalLM

        self.name, self._max = name, max_context
        self._tokenizer = _tokenizer(folder, ASKED)
        self._model: Any = read_model(AutoModelForCausalLM, folder, "a language model", dtype=getattr(torch, precision))
        self._model.to(device()).eval()

    def score(self, conversations: Sequence[Sequence[Message]], nexts: Sequence[str], log: Log) -> Scores:
        """See `Scorer.score`. Of a conversation that is too long the beginning is not read."""
        rows = [self._encode(c, n) for c, n in zip(conversations, nexts, strict=True)]
        lengths = [len(ids) for ids, _ in rows]
        progress, found, done = (
            Progress(log, f"scored by {self.name}", len(rows), lengths=lengths),
            np.zeros(len(rows)),
            0,
        )
        for members in batches(lengths, TOKENS_A_BATCH):
            ids, mask = pad([rows[m][0] for m in members], 0)  # never looked at
            asked, _ = pad([rows[m][1] for m in members], 0)
            first = max(
                1, int(asked.argmax(dim=1).min())
            )  # before it, nothing is asked of any row: no word is weighed there
            with torch.no_grad():
                outputs = self._model(
                    input_ids=ids.to(self._model.device),
                    attention_mask=mask.to(self._model.device),
                    logits_to_keep=ids.shape[1] - first + 1,
                )
            logits = outputs.logits[:, :-1].float()
            target = ids[:, first:].to(logits.device)
            each = logits.gather(2, target[:, :, None])[:, :, 0] - logits.logsumexp(dim=2)
            found[members] = (each * asked[:, first:].to(each.device)).sum(dim=1).cpu().numpy()
            done += len(members)
            progress.update(done)
        return found

    def _encode(self, conversation: Sequence[Message], following: str) -> tuple[list[int], list[int]]:
        """Token ids of the conversation with the next turn, and 1 where a token is of that turn.

        Its tokens are those that stand where other texts have others: what comes before and after is the same whatever the user says.
        """
        ids, one, other = (self._tokens(conversation, text) for text in (following, "a", "b"))
        begin = min(_common(one, other), _common(one, ids))
        after = min(_common(one[::-1], other[::-1]), _common(one[::-1], ids[::-1]), len(ids) - begin)
        inside = [int(begin <= n < len(ids) - after) for n in range(len(ids))]
        return ids[-self._max :], inside[-self._max :]

    def _tokens(self, conversation: Sequence[Message], following: str) -> list[int]:
        messages = harmless(self._tokenizer, [*conversation, {"role": "user", "content": following}])
        return tokens_of(self._tokenizer, self._tokenizer.apply_chat_template(messages, tokenize=False))


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two texts begin with alike."""
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


class RewardModel:
    """Score of the candidate under a reward model; of several outputs, the first (method: A, criteria a and c)."""

    def __init__(self, name: str, folder: Path, max_context: int) -> None:
        self.name, self._tokenizer = name, _tokenizer(folder, ANSWERED)
        self._model: Any = load_scorer(folder).eval()
        self._max = min(max_context, longest_read(self._tokenizer, self._model.config))

    def score(self, conversations: Sequence[Sequence[Message]], nexts: Sequence[str], log: Log) -> Scores:
        """See `Scorer.score`; what the user says next is not looked at."""
        encoded = [encode(self._tokenizer, list(c[:-1]), c[-1]["content"], self._max).ids for c in conversations]
        set_padding(self._model.config, self._tokenizer, encoded)
        progress = Progress(log, f"scored by {self.name}", len(encoded), lengths=list(map(len, encoded)))
        outputs: Scores = score(self._model, encoded, progress.update)
        return outputs[:, 0]


def _tokenizer(folder: Path, shape: tuple[str, ...]) -> Any:
    """A model's tokenizer, with a settled chat template. Raises ValueError where it has none."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    template = own_template(tokenizer)
    if not template:
        raise ValueError(f"{folder}: its tokenizer has no chat template, so it can't score conversations")
    tokenizer.chat_template = settled(template, shape)
    return tokenizer
