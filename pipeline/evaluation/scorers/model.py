"""A model that is loaded here: any sequence classifier in Hugging Face format, local or from the hub, and this project's probes.

Torch is imported with the first score.
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.evaluation.scorers.scorer import Conversation, Scored, kept_outputs
from pipeline.evaluation.scorers.specs import ModelSpec
from pipeline.models.batching import batches
from pipeline.models.checkpoints import identity, resolve
from pipeline.models.encoding import encode_each, longest_read, set_padding
from pipeline.models.precision import precision_of
from pipeline.models.templates import ANSWERED, DATE, own_template, settled, writes_date
from pipeline.settings import Checkpoint
from pipeline.worker import Log


class LocalModel:
    """A sequence classifier; see `Scorer`. Every conversation is read once, in batches of like length within a budget of tokens."""

    def __init__(self, spec: ModelSpec, log: Log) -> None:
        """Find the model, and read its configuration and tokenizer. Raises ValueError where it has no chat template, or unknown outputs."""
        from transformers import AutoConfig, AutoTokenizer

        hub, _, revision = spec.model.partition("@")
        local = Path(spec.model).expanduser()
        checkpoint = (
            Checkpoint(folder=str(local), licence="")
            if local.is_dir()
            else Checkpoint(hub=hub, revision=revision or None, licence="")
        )
        self._spec, self._log = spec, log
        self._folder = resolve(checkpoint, Path())
        self._config: Any = AutoConfig.from_pretrained(self._folder, trust_remote_code=False)
        self._tokenizer: Any = AutoTokenizer.from_pretrained(self._folder, trust_remote_code=False)
        if generates := [
            c for c in self._config.architectures or () if c.endswith(("ForCausalLM", "ForConditionalGeneration"))
        ]:
            raise ValueError(
                f"{spec.model}: is not a reward model: {generates[0]} writes text and has no head that gives scores"
            )
        own = [self._config.id2label[n] for n in range(self._config.num_labels)]
        self.outputs, self._places = kept_outputs(own, spec.outputs, spec.model)
        self._tokenizer.chat_template = scored_template(own_template(self._tokenizer), spec.model)
        if writes_date(self._tokenizer.chat_template):
            log(
                f"The chat template of {spec.model} writes today's date; it is given {DATE}, so that scores stay the same"
            )
        longest = longest_read(self._tokenizer, self._config)
        self._max_tokens = min(spec.max_tokens or longest, longest)
        if spec.max_tokens and self._max_tokens < spec.max_tokens:
            log(
                f"{spec.model} reads at most {self._max_tokens} tokens of a conversation, not the {spec.max_tokens} that were asked for"
            )
        self._precision: str = spec.precision
        if spec.precision == "auto":
            from pipeline.models.classifier import device

            self._precision = precision_of("auto", device())
        self.name = local.resolve().name if local.is_dir() else hub
        self.version = (
            identity(checkpoint)[1] if local.is_dir() else self._folder.name
        )  # a hash of the files; a snapshot's folder is its commit
        self.identity: dict[str, Any] = {
            "model": self.version,
            "template": hashlib.sha256(self._tokenizer.chat_template.encode()).hexdigest(),
            "max_tokens": self._max_tokens,
            "precision": self._precision,
            "outputs": list(self.outputs),
        }
        self._model: Any = None

    @property
    def device(self) -> str:
        """The accelerator's name, or `cpu`."""
        import torch

        return str(torch.cuda.get_device_name()) if torch.cuda.is_available() else "cpu"

    def score(self, conversations: Sequence[Conversation]) -> Iterator[Scored]:
        """See `Scorer.score`. The longest come first: a batch that doesn't fit is met at once.

        What the chat template refuses (a system message, an order of roles) has no score; the log says why, once for each reason.
        """
        taken, refused = encode_each(self._tokenizer, conversations, self._max_tokens)
        encoded = [tokens.ids for tokens in taken.values()]
        for reason, rows in refused.items():
            self._log(
                f"{len(rows)} conversations are not scored, because the chat template of {self.name} refuses them: {reason}"
            )
            values = np.full((len(rows), len(self.outputs)), np.nan)
            yield Scored(np.array(rows), values, np.zeros(len(rows), np.int64), np.zeros(len(rows), dtype=bool))
        if not encoded:
            return
        from transformers.utils.logging import disable_progress_bar

        from pipeline.models.scoring import score

        disable_progress_bar()  # progress is told in our own log
        model = self._loaded(encoded)
        lengths = np.array([len(ids) for ids in encoded], dtype=np.int64)
        places, was_cut = np.array(list(taken)), np.array([bool(t.dropped) or t.cut for t in taken.values()])
        for batch in batches(lengths, self._spec.tokens_a_batch):
            outputs = score(model, [encoded[row] for row in batch], tokens=len(batch) * int(lengths[batch].max()))
            yield Scored(places[batch], outputs[:, self._places], lengths[batch], was_cut[batch])

    def _loaded(self, encoded: Sequence[Sequence[int]]) -> Any:
        if self._model is None:
            from pipeline.models.loading import load_scorer, without_padding_mask

            model = load_scorer(self._folder, self._precision)
            model.config.use_cache = False  # nothing is generated: keys and values need not be kept
            without_padding_mask(model)
            set_padding(model.config, self._tokenizer, encoded)
            if model.config.pad_token_id in {ids[-1] for ids in encoded if ids}:
                self._log(
                    f"{self.name}: its padding token is also the one that ends a response, so its own class reads the score one token before; "
                    "it is scored as that class does"
                )
            self._model = model
        return self._model


def scored_template(template: str | None, model: str) -> str:
    """The chat template that conversations are scored with: the model's own, see `settled`. Raises ValueError where there is none."""
    if not template:
        raise ValueError(
            f"{model}: its tokenizer has no chat template, so nobody can know how it wants a conversation written; add the template that it was "
            "trained with to its folder (chat_template.jinja)"
        )
    return settled(template, ANSWERED)
