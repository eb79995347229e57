"""What an answer holds: a thought, which is kept apart, and a response, without which it is no answer."""

import re
from dataclasses import replace
from typing import NamedTuple

from pipeline.engines.requests import FAILED, REFUSED, Answer

ENDINGS = {
    **dict.fromkeys(("stop", "eos", "eos_token", "end_turn", "stop_sequence", "complete"), "stop"),
    **dict.fromkeys(("length", "max_tokens", "model_length"), "length"),
}
"""Finish reasons of whole and of cut answers, in small letters, by what we call them.

stop, length: OpenAI, vLLM, Ollama, llama.cpp, DeepSeek. eos_token, stop_sequence: Hugging Face's TGI. eos: Together. end_turn, max_tokens,
stop_sequence: Anthropic. model_length: Mistral. STOP, MAX_TOKENS: Gemini. COMPLETE, STOP_SEQUENCE, MAX_TOKENS: Cohere.
All others (content_filter, tool_calls, function_call, SAFETY, abort, ...) end what is no answer.
"""

MARKS = (
    (
        "<think>",
        "</think>",
    ),  # DeepSeek R1, Qwen 3, QwQ, SmolLM 3, GLM, MiniMax M2, Nemotron, OLMo 3, Granite 3.3, Hunyuan
    ("[THINK]", "[/THINK]"),  # Magistral
    ("<|START_THINKING|>", "<|END_THINKING|>"),  # Command A Reasoning
    ("<|channel>thought", "<channel|>"),  # Gemma 4
    ("<seed:think>", "</seed:think>"),  # Seed-OSS
    ("<mm:think>", "</mm:think>"),  # MiniMax M3
    ("◁think▷", "◁/think▷"),  # Kimi
    ("<thought>", "</thought>"),  # EXAONE Deep
    ("<thinking>", "</thinking>"),  # models that are asked to, in Anthropic's manner
)
"""What begins and ends a thought, by the families' model cards."""
PHRASES = tuple((f"{here} my thought process:", f"{here} my response:") for here in ("Here is", "Here's"))
"""The same in words: Granite 3.2."""
HARMONY = ("<|start|>", "<|channel|>", "<|constrain|>", "<|message|>", "<|end|>", "<|return|>", "<|call|>")
"""gpt-oss writes messages in channels: `analysis` and `commentary` are thoughts, `final` is the response (OpenAI's harmony format)."""
TOKENS = {mark for pair in MARKS for mark in pair} | {"<|channel>", "<|channel|>"}
"""Tokens that tell thought and response apart: where a model has one of them as a special token, its texts must be decoded with them."""

_CHANNEL = re.compile(
    r"<\|channel\|>\s*(\w+)[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>(.*?)(?:<\|end\|>|<\|return\|>|<\|call\|>|\Z)",
    re.S,
)
_WITHOUT_TOKENS = re.compile(r"analysis(.*?)assistantfinal(.*)", re.S)  # decoded without special tokens
_WRAPPED = re.compile(r"<(response|answer)>(.*?)(?:</\1>)?\s*", re.S)  # Granite 3.3, Hunyuan: after a thought

_BEGINNINGS = [opening for opening, _ in MARKS + PHRASES] + ["<|channel|>", "<|start|>assistant"]
THOUGHT = "^(?:" + "|".join(map(re.escape, _BEGINNINGS)) + ")"
"""Pattern (RE2's too) of texts that begin with a thought. No response does that `parted` gives."""


class Parted(NamedTuple):
    """A text's thought ("" where it has none) and its response; None where the thought has no end."""

    thought: str
    response: str | None


def parted(text: str) -> Parted:
    """Part a model's text into thought and response.

    A thought stands at the beginning. Where the chat template has begun it in the prompt, the text has its end alone. Marks that stand
    within a response are part of it; but a text that ends a thought which nobody began is taken for the second half of one.
    """
    thoughts, response = list[str](), text.strip()
    while True:
        thought, rest = _channels(response) or _marked(response)
        thoughts.append(thought)
        if rest is None or not re.match(THOUGHT, rest):
            return Parted(_joined(thoughts), rest)
        response = rest


def _marked(text: str) -> Parted:
    """The parts of a text whose thought stands between marks."""
    for opening, closing in MARKS + PHRASES:
        if text.startswith(opening):
            thought, closed, after = text.removeprefix(opening).partition(closing)
            return _answer(thought, after) if closed else Parted(thought.strip(), None)
    for opening, closing in MARKS:
        thought, closed, after = text.partition(closing)
        if closed and opening not in thought:
            return _answer(thought, after)
    return Parted("", text)


def _answer(thought: str, rest: str) -> Parted:
    wrapped = _WRAPPED.fullmatch(rest.strip())
    return Parted(thought.strip(), (wrapped[2] if wrapped else rest).strip())


def _channels(text: str) -> Parted | None:
    """The parts of a text in gpt-oss's format; None where it is none."""
    if re.match(r"<\|channel\|>|<\|start\|>assistant", text):
        messages = _CHANNEL.findall(text)
        final = [body for channel, body in messages if channel == "final"]
        thought = _joined([body for channel, body in messages if channel != "final"])
        return Parted(thought, _joined(final) if final else None)
    found = _WITHOUT_TOKENS.fullmatch(text)
    return Parted(found[1].strip(), found[2].strip()) if found else None


def _joined(texts: list[str]) -> str:
    return "\n\n".join(filter(None, map(str.strip, texts)))


def begun(prompt: str) -> str:
    """The mark by which the end of a prompt begins the answer's thought; "" where it doesn't."""
    return next((opening for opening, _ in MARKS if prompt.rstrip().endswith(opening)), "")


def settled(answer: Answer) -> Answer:
    """An engine's answer as it is kept: its thought apart, its finish reason in our words; refused, with the reason, where it has no response."""
    if answer.finish_reason in (REFUSED, FAILED):
        return answer
    thought, response = parted(answer.text)
    apart = replace(answer, text=response or "", reasoning=_joined([answer.reasoning or "", thought]) or None)
    ending = ENDINGS.get(answer.finish_reason.lower())
    if ending is None:
        return _refused(apart, f"no answer: it ended with finish reason {answer.finish_reason!r}")
    if response:
        return replace(apart, finish_reason=ending)
    if not apart.reasoning and response == "":
        return _refused(apart, f"no answer: it has no text, and ended with finish reason {answer.finish_reason!r}")
    return _refused(
        apart,
        f"no answer: a thought alone, which ended with finish reason {answer.finish_reason!r} after {answer.output_tokens} tokens; "
        "give it more `max_tokens`, or have the model think less (`chat_template_kwargs` of its checkpoint)",
    )


def _refused(answer: Answer, reason: str) -> Answer:
    return replace(answer, text="", finish_reason=REFUSED, detail=reason)
