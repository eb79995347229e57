"""vLLM in this process. Imported only by the worker."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from pipeline.engines.content import HARMONY, TOKENS, begun
from pipeline.engines.requests import REFUSED, Answer, Request
from pipeline.models.marks import marks_in
from pipeline.models.templates import ASKED, own_template, settled, tokens_of, written
from pipeline.settings import Checkpoint

PLAIN_TEMPLATE = Path(__file__).parent / "plain.jinja"


class VLLMEngine:
    """One checkpoint, loaded once. All requests are queued at once and answers come as they finish: no drain between chunks."""

    def __init__(self, model: Path, checkpoint: Checkpoint, device: str, seed: int) -> None:
        # in this process: the worker is a process of its own already, and its end frees the memory
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        from vllm import LLM

        self._checkpoint = checkpoint
        self._llm = LLM(
            model=str(model),
            dtype=checkpoint.dtype,
            max_model_len=checkpoint.max_context,
            tensor_parallel_size=checkpoint.tensor_parallel,
            distributed_executor_backend="mp"
            if checkpoint.tensor_parallel > 1
            else None,  # also where Ray has started us
            enforce_eager=device == "cpu",
            # vLLM 0.32 on a CPU dies when it splits the prefill of a request with a seed ("CPU Generator does not use offset")
            enable_chunked_prefill=device != "cpu",
            max_num_batched_tokens=max(4096, checkpoint.max_context) if device == "cpu" else None,
            enable_prefix_caching=True,
            trust_remote_code=False,
            generation_config="vllm",
            seed=seed,
            disable_log_stats=True,
        )
        self._tokenizer: Any = self._llm.get_tokenizer()
        self._prompts = dict[str, tuple[int, str]]()

    def answer(self, requests: Sequence[Request]) -> Iterator[Answer]:
        """See `Engine.answer`. What doesn't fit into the context with its answer, or the chat template won't write, is refused, alone."""
        yield from self.add(requests)
        while self.busy:
            yield from self.step()

    def add(self, requests: Sequence[Request]) -> list[Answer]:
        """Queue requests behind those that are in work; those that are refused come back at once."""
        from jinja2 import TemplateError
        from vllm import SamplingParams, TokensPrompt
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

        prompts, refused = list[tuple[Request, list[int]]](), list[Answer]()
        for request in requests:
            try:
                ids = render(self._tokenizer, request.messages, self._checkpoint)
            except TemplateError as error:
                detail = f"the model's chat template refuses the conversation: {error}"
                refused.append(Answer(request.key, "", REFUSED, detail, 0, 0))
                continue
            if reason := self._refusal(request, ids):
                refused.append(Answer(request.key, "", REFUSED, reason, len(ids), 0))
            else:
                prompts.append((request, ids))
        prompts.sort(
            key=lambda p: len(p[1]) + p[0].sampling.max_tokens, reverse=True
        )  # the longest first: none is left over alone
        for request, ids in prompts:
            sampling = request.sampling.model_dump(exclude={"stop", "top_k"})
            params = SamplingParams(
                **sampling,
                top_k=request.sampling.top_k or -1,
                stop=list(request.sampling.stop) or None,
                seed=request.seed,
                structured_outputs=StructuredOutputsParams(json=request.form) if request.form else None,
                skip_special_tokens=self._decoding.skip_special_tokens,
                output_kind=RequestOutputKind.FINAL_ONLY,  # nobody reads along: else each step makes an output of each request
            )
            self._llm.llm_engine.add_request(request.key, TokensPrompt(prompt_token_ids=ids), params)
            # an answer in a form is that from its first token on
            begins = "" if request.form else begun_thought(self._tokenizer, ids)
            self._prompts[request.key] = (len(ids), begins)
        return refused

    @cached_property
    def _decoding(self) -> "Decoding":
        return Decoding.of(self._tokenizer)

    @property
    def busy(self) -> bool:
        """Whether requests are in work."""
        return bool(self._llm.llm_engine.has_unfinished_requests())

    def step(self) -> list[Answer]:
        """One step of everything that is in work; what it finished."""
        answers = list[Answer]()
        for output in self._llm.llm_engine.step():
            if output.finished:
                best, key = output.outputs[0], output.request_id
                length, begins = self._prompts.pop(key)
                text = begins + self._decoding.cleaned(best.text)
                answers.append(Answer(key, text, best.finish_reason, None, length, len(best.token_ids)))
        return answers

    def _refusal(self, request: Request, ids: list[int]) -> str | None:
        """Why a request is not sent: it has outgrown the context, or a stranger's text would forge turns."""
        texts = [message["content"] for message in request.messages]
        if marks := marks_in(self._tokenizer, template_of(self._tokenizer, self._checkpoint), texts):
            return f"control tokens of the model in the text: {' '.join(marks)}"
        room = self._checkpoint.max_context - len(ids)
        if room < request.sampling.max_tokens:
            return (
                f"context overflow: {len(ids)} prompt tokens leave {room} of {self._checkpoint.max_context} for the answer, "
                f"{request.sampling.max_tokens} are asked for"
            )
        return None


@dataclass(frozen=True)
class Decoding:
    """How a model's tokens become text: with its special tokens where these part thought and response; the others are taken out then."""

    skip_special_tokens: bool
    others: tuple[str, ...]

    @classmethod
    def of(cls, tokenizer: Any) -> Self:
        """That of a model, by its tokenizer."""
        special = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
        parting = TOKENS | (set(HARMONY) if "<|channel|>" in special else set())
        return cls(special.isdisjoint(TOKENS), tuple(sorted(special - parting)))

    def cleaned(self, text: str) -> str:
        """A text that was decoded so, without the special tokens that part nothing."""
        for token in () if self.skip_special_tokens else self.others:
            text = text.replace(token, "")
        return text


def begun_thought(tokenizer: Any, ids: Sequence[int]) -> str:
    """The mark by which a prompt begins the answer's thought; "" where it doesn't."""
    return begun(tokenizer.decode(ids[-16:]))


def template_of(tokenizer: Any, checkpoint: Checkpoint) -> str:
    """The chat template that a checkpoint is asked through: see `settled`. Raises ValueError where its tokenizer has none."""
    own = PLAIN_TEMPLATE.read_text() if checkpoint.chat_template == "plain" else own_template(tokenizer)
    if not own:
        raise ValueError(
            "the tokenizer has no chat template, as those of base models; set `chat_template: plain` for this checkpoint"
        )
    return settled(own, ASKED)


def render(tokenizer: Any, messages: Sequence[dict[str, str]], checkpoint: Checkpoint) -> list[int]:
    """Token ids of a conversation that the assistant is to continue. Raises jinja2.TemplateError where the template refuses it."""
    template, variables = template_of(tokenizer, checkpoint), checkpoint.chat_template_kwargs
    return tokens_of(tokenizer, written(tokenizer, template, messages, **variables))
