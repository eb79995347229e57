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
from pipeline.models.encoding import encode, set_padding
from pipeline.models.precision import settled
from pipeline.models.scoring import pad, score
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
            found.append(NextUserTurn(name, folder, checkpoint.max_context, settled(checkpoint.dtype, device())))
        else:
            found.append(RewardModel(name, folder, checkpoint.max_context))
    return found


class NextUserTurn:
    """Log-likelihood of the user's next turn, in nats, given the conversation with the candidate (method: A, criterion b)."""

    def __init__(self, name: str, folder: Path, max_context: int, precision: str) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.name, self._max = name, max_context
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self._model: Any = _placed(
            AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, precision), trust_remote_code=False)
        )

    def score(self, conversations: Sequence[Sequence[Message]], nexts: Sequence[str], log: Log) -> Scores:
        """See `Scorer.score`. Of a conversation that is too long the beginning is not read."""
        rows = [self._encode(c, n) for c, n in zip(conversations, nexts, strict=True)]
        progress, found, done = Progress(log, f"scored by {self.name}", len(rows)), np.zeros(len(rows)), 0
        padding = self._tokenizer.pad_token_id or 0
        for members in batches([len(ids) for ids, _ in rows], TOKENS_A_BATCH):
            ids, mask = pad([rows[m][0] for m in members], padding)
            asked, _ = pad([rows[m][1] for m in members], 0)
            with torch.no_grad():
                logits = (
                    self._model(input_ids=ids.to(self._model.device), attention_mask=mask.to(self._model.device))
                    .logits[:, :-1]
                    .float()
                )
            target = ids[:, 1:].to(logits.device)
            each = logits.gather(2, target[:, :, None])[:, :, 0] - logits.logsumexp(dim=2)
            found[members] = (each * asked[:, 1:].to(each.device)).sum(dim=1).cpu().numpy()
            done += len(members)
            progress.update(done)
        return found

    def _encode(self, conversation: Sequence[Message], following: str) -> tuple[list[int], list[int]]:
        """Token ids of the conversation with the next turn, and 1 where a token is of that turn."""
        text = self._tokenizer.apply_chat_template(
            [*conversation, {"role": "user", "content": following}], tokenize=False
        )
        content = following if following in text else following.strip()  # some templates trim
        begin = text.rindex(content)
        found = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        inside = [int(a < begin + len(content) and b > begin) for a, b in found.offset_mapping]
        return found.input_ids[-self._max :], inside[-self._max :]


class RewardModel:
    """Score of the candidate under a reward model; of several outputs, the first (method: A, criteria a and c)."""

    def __init__(self, name: str, folder: Path, max_context: int) -> None:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        self.name, self._max = name, max_context
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self._model: Any = _placed(
            AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False)
        )

    def score(self, conversations: Sequence[Sequence[Message]], nexts: Sequence[str], log: Log) -> Scores:
        """See `Scorer.score`; what the user says next is not looked at."""
        encoded = [encode(self._tokenizer, list(c[:-1]), c[-1]["content"], self._max).ids for c in conversations]
        set_padding(self._model.config, self._tokenizer, encoded)
        outputs: Scores = score(self._model, encoded, Progress(log, f"scored by {self.name}", len(encoded)).update)
        return outputs[:, 0]


def _placed(model: Any) -> Any:
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
