"""Chat templates that write nothing but the conversation: a fixed date, and a place for the system message. Needs a tokenizer, not torch."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

Message = dict[str, str]

DATE = "26 Jul 2024"
"""The day that it is in every template that writes today's: prompts and scores must not change from day to day. Llama 3.1's own default."""
_OF_THE_DATE = {
    **{"%d": "26", "%-d": "26", "%e": "26", "%j": "208", "%m": "07", "%-m": "7", "%b": "Jul", "%B": "July"},
    **{"%y": "24", "%Y": "2024", "%a": "Fri", "%A": "Friday", "%F": "2024-07-26"},
    **{"%H": "00", "%I": "12", "%M": "00", "%S": "00", "%p": "AM", "%T": "00:00:00"},
}
"""What `strftime` makes of its directives on that day, at midnight."""
_CLOCK = (
    f"{{#- It is always {DATE}. -#}}"
    "{%- macro strftime_now(format) -%}{{ format"
    + "".join(f" | replace('{directive}', '{text}')" for directive, text in _OF_THE_DATE.items())
    + " }}{%- endmacro -%}"
)
_FOLD = (
    "{%- if messages[0]['role'] == 'system' -%}"
    "{%- if messages | length == 1 or messages[1]['role'] != 'user' -%}"
    "{{- raise_exception('no turn of the user follows the system message, which has no other place') -}}{%- endif -%}"
    "{%- set messages = [{'role': 'user', 'content': messages[0]['content'] + '\\n\\n' + messages[1]['content']}] + messages[2:] -%}"
    "{%- endif -%}"
)
"""Puts the system message before the user's first turn, with a blank line between: Gemma 3's own way."""

_TOLD = "qzx0qzx"
ASKED, ANSWERED = ("user",), ("user", "assistant")
"""Shapes of conversations: the assistant is to go on, or has. Some templates write the system message in one alone."""


def own_template(tokenizer: Any) -> str | None:
    """A tokenizer's chat template; of several (for tools, say) the default one."""
    found = tokenizer.chat_template
    return found.get("default") if isinstance(found, dict) else found


def writes_date(template: str) -> bool:
    """Whether a template writes today's date, or would without the fixed one that `settled` gives it."""
    return "strftime_now" in template


@lru_cache(maxsize=32)
def settled(template: str, shape: tuple[str, ...]) -> str:
    """A template that writes the same conversation every day and with its system message; one that does so already stays as it is.

    shape: ASKED or ANSWERED. A template that refuses a system message, or leaves it out, gets it in the user's first turn.
    """
    if writes_date(template) and _CLOCK not in template:
        template = _CLOCK + template
    return template if _TOLD in (_with_system(template, shape) or "") else _FOLD + template


def in_keys(template: str) -> str:
    """What of a settled template the keys of requests have: where the model's own refuses a system message, not the place that it is given.

    No request with one was answered through that template before, so what is finished keeps its key.
    """
    own = template.removeprefix(_FOLD)
    return own if _with_system(own, ASKED) is None else template


def written(tokenizer: Any, template: str, messages: Sequence[Message], **variables: Any) -> str:
    """The text of a conversation; where it ends with the user, the assistant's turn is begun. Raises jinja2.TemplateError where it is refused.

    variables: more that the template asks for (whether the model is to think, say).
    """
    text: str = tokenizer.apply_chat_template(
        list(messages),
        chat_template=template,
        tokenize=False,
        add_generation_prompt=messages[-1]["role"] == "user",
        **variables,
    )
    return text


def adds_bos(tokenizer: Any) -> bool:
    """Whether a tokenizer puts a beginning-of-text token before every text."""
    return bool(tokenizer.bos_token) and tokenizer("a").input_ids[:1] == [tokenizer.bos_token_id]


def tokens_of(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a text that a template wrote, with one beginning-of-text token where tokenizer or template has one."""
    adds = adds_bos(tokenizer)
    return list(tokenizer(text.removeprefix(tokenizer.bos_token) if adds else text, add_special_tokens=adds).input_ids)


def _with_system(template: str, shape: tuple[str, ...]) -> str | None:
    """What a template makes of a short conversation that begins with the system message _TOLD; None where it refuses it."""
    from jinja2 import TemplateError
    from transformers.utils.chat_template_utils import render_jinja_template

    messages = [{"role": "system", "content": _TOLD}, *({"role": role, "content": "a"} for role in shape)]
    tokens = dict.fromkeys(("bos_token", "eos_token", "unk_token", "pad_token"), "")
    try:
        (text,), _ = render_jinja_template(
            [messages], chat_template=template, add_generation_prompt=shape[-1] == "user", **tokens
        )
    except TemplateError:
        return None
    return str(text)
