"""Models that think, in vLLM's engine: the prompt may begin the thought, and special tokens may end it."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest
from tokenizers import AddedToken

from pipeline.engines.content import HARMONY, parted, settled
from pipeline.engines.requests import REFUSED, Request
from pipeline.engines.vllm import Decoding, VLLMEngine, begun_thought, render
from pipeline.settings import Checkpoint, Sampling
from tests.reward_model.small import small_tokenizer

MESSAGES = [{"role": "user", "content": "two"}]
THINKING = "{% for m in messages %}{{ m.content }} {% endfor %}<think>{% if not enable_thinking %}</think>{% endif %}"


@pytest.mark.parametrize(("thinks", "begins"), [(True, "<think>"), (False, "")])
def test_a_checkpoint_says_how_its_model_thinks_and_the_prompt_whether_it_has_begun_to(
    thinks: bool, begins: str
) -> None:
    tokenizer = small_tokenizer()
    tokenizer.add_tokens([AddedToken("<think>"), AddedToken("</think>")])
    tokenizer.chat_template = THINKING
    checkpoint = Checkpoint(folder="x", licence="x", chat_template_kwargs={"enable_thinking": thinks})
    ids = render(tokenizer, MESSAGES, checkpoint)
    assert begun_thought(tokenizer, ids) == begins
    assert parted(begins + "one</think>two") == ("one", "two")
    assert Decoding.of(tokenizer).skip_special_tokens, "no special ones: a text has them anyway"


def test_special_tokens_that_part_thought_and_response_stay_in_the_text_and_no_others_do() -> None:
    tokenizer = small_tokenizer()
    tokenizer.add_tokens([AddedToken(token, special=True) for token in ("[THINK]", "[/THINK]", "<|START_RESPONSE|>")])
    decoding = Decoding.of(tokenizer)
    assert not decoding.skip_special_tokens
    text = tokenizer.decode(tokenizer("[THINK] one [/THINK] <|START_RESPONSE|> two <|im_end|>").input_ids)
    assert parted(decoding.cleaned(text)) == ("one", "two")
    tokenizer = small_tokenizer()
    tokenizer.add_tokens([AddedToken(token, special=True) for token in HARMONY])
    assert (
        Decoding.of(tokenizer).cleaned("<|channel|>final<|message|>two<|im_end|>") == "<|channel|>final<|message|>two"
    )
    tokenizer = small_tokenizer()
    tokenizer.add_tokens([AddedToken("<|end|>", special=True)])
    assert Decoding.of(tokenizer).skip_special_tokens, "Phi's end of a turn parts nothing"
    plain = Decoding.of(small_tokenizer())
    assert plain.skip_special_tokens
    assert plain.cleaned("a text with <|im_end|> in it") == "a text with <|im_end|> in it"


@pytest.fixture
def without_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Test double of what vLLM is told, so that it needn't be imported."""
    kinds = SimpleNamespace(RequestOutputKind=SimpleNamespace(FINAL_ONLY=1), StructuredOutputsParams=dict)
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(SamplingParams=dict, TokensPrompt=dict))
    monkeypatch.setitem(sys.modules, "vllm.sampling_params", kinds)


class Told:
    """Test double of vLLM's own engine: takes requests, and has one text for each."""

    def __init__(self, texts: dict[str, tuple[str, str]]) -> None:
        self.texts, self.asked = texts, dict[str, Any]()
        self.llm_engine = self

    def add_request(self, key: str, prompt: Any, params: Any) -> None:
        self.asked[key] = params

    def step(self) -> list[Any]:
        return [
            SimpleNamespace(
                finished=True,
                request_id=key,
                outputs=[SimpleNamespace(text=text, finish_reason=reason, token_ids=[1, 2])],
            )
            for key, (text, reason) in self.texts.items()
        ]


@pytest.mark.usefixtures("without_vllm")
def test_a_thought_that_the_template_has_begun_is_none_of_the_response() -> None:
    engine = object.__new__(VLLMEngine)
    engine._tokenizer, engine._checkpoint, engine._prompts = small_tokenizer(), Checkpoint(folder="x", licence="x"), {}
    engine._tokenizer.add_tokens([AddedToken("<think>"), AddedToken("</think>")])
    engine._tokenizer.chat_template = "{% for m in messages %}{{ m.content }} {% endfor %}<think>"
    texts = {"whole": ("hm\n</think>\n\n4", "stop"), "cut": ("hm, so", "length"), "form": ('{"score": 3}', "stop")}
    engine._llm = Told(texts)
    requests = [Request(key, MESSAGES, Sampling(), 1, '{"type": "object"}' if key == "form" else "") for key in texts]
    assert engine.add(requests) == []
    answers = {answer.request_key: settled(answer) for answer in engine.step()}
    assert (answers["whole"].text, answers["whole"].reasoning) == ("4", "hm")
    assert answers["cut"].finish_reason == REFUSED
    assert answers["form"].text == '{"score": 3}', "an answer in a form has no thought before it"
    assert {params["skip_special_tokens"] for params in engine._llm.asked.values()} == {True}
