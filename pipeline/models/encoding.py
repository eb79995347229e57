"""Conversations as tokens, so that anyone's plain `apply_chat_template` gives the same ones. Needs a tokenizer, not torch."""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

Message = dict[str, str]

_TURN = "<extra_id_1>{{ 'User' if m['role'] == 'user' else 'Assistant' }}\n{{ m['content'] }}\n"
SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
"""System message of NVIDIA's template where a conversation brings none: Vicuna's."""
TEMPLATES = {
    "helpsteer": (
        "{% set own = messages[0]['role'] == 'system' %}"
        "<extra_id_0>System\n{{ messages[0]['content'] if own else " + json.dumps(SYSTEM) + " }}\n"
        "{% for m in messages[1:] if own %}"
        + _TURN
        + "{% endfor %}{% for m in messages if not own %}"
        + _TURN
        + "{% endfor %}"
        "<extra_id_2>"
    )
}
"""Named chat templates: `helpsteer` is that of NeMo-Aligner's reward models. Its markers are text: several tokens in most tokenizers."""


def prepare_tokenizer(tokenizer: Any, template: str = "tokenizer") -> Any:
    """A tokenizer whose chat template ends exactly at the end of the response, and whose padding can't be taken for that end.

    template: `tokenizer`, its own, or a name of TEMPLATES.
    - What a template writes after the end-of-turn token is trimmed: the score is read at that token.
    - The beginning-of-text token, where the tokenizer has the habit of one, stands in the template, once; see `leave_to_template`.
    - The padding token differs from the end-of-turn token: transformers finds the last token by looking for padding.
    Raises ValueError for a template that writes the date (scores would change from day to day), or where there is none.
    """
    named, text = template in TEMPLATES, TEMPLATES.get(template) or tokenizer.chat_template
    if not text:
        raise ValueError(
            "the base model's tokenizer has no chat template; take an instruct model, give the tokenizer a template, "
            f"or name one in the recipe (template: {', '.join(TEMPLATES)})"
        )
    if "strftime_now" in text or "date_string" in text:
        raise ValueError(
            "the base model's chat template writes the date, so scores would change from day to day; remove the date from the template"
        )
    wants_bos = bool(tokenizer.bos_token) and tokenizer("a").input_ids[:1] == [tokenizer.bos_token_id]
    tokenizer.chat_template = "{% filter trim %}" + text + "{% endfilter %}"
    start, *_, end = _ids(tokenizer, [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])
    if wants_bos and start != tokenizer.bos_token_id:
        tokenizer.chat_template = "{{ bos_token }}" + tokenizer.chat_template
    leave_to_template(tokenizer)
    if end not in tokenizer.all_special_ids and not named:
        raise ValueError(
            f"the chat template ends a response with {tokenizer.decode([end])!r}, which is not a special token, so it can't mark the end"
        )
    if tokenizer.pad_token_id in (None, end):
        others = [
            t
            for t in tokenizer.all_special_tokens
            if tokenizer.convert_tokens_to_ids(t) not in (end, tokenizer.bos_token_id)
        ]
        if not others:
            raise ValueError(
                "the tokenizer has no special token left to pad with; add one to it (`tokenizer.add_special_tokens`)"
            )
        tokenizer.pad_token = others[0]
    tokenizer.padding_side, tokenizer.truncation_side = "right", "left"
    return tokenizer


def leave_to_template(tokenizer: Any) -> None:
    """Let a tokenizer add no token to a text by itself: the chat template writes those that a conversation has at its ends.

    Then whoever tokenizes what the template wrote, as text-classification pipelines and servers do, has the tokens of whoever has the template
    tokenize, and not a second beginning.
    """
    tokenizer.add_bos_token = tokenizer.add_eos_token = (
        False  # transformers then writes its post-processor anew, without any token
    )


class Tokens(NamedTuple):
    """Token ids of a conversation; how many of its oldest turns were dropped, and whether its start was cut, so that it has room."""

    ids: list[int]
    dropped: int
    cut: bool


def encode(tokenizer: Any, messages: Sequence[Message], response: str, max_tokens: int) -> Tokens:
    """A conversation with its response, ending at the end-of-turn token.

    messages: an optional system message, then turns, of which the last is the user's. A conversation of more than `max_tokens` tokens
    begins at a later user turn, the system message before it, at most at the one that is answered; if it is too long even so, it loses
    its first tokens.
    """
    system = list(messages[:1]) if messages[0]["role"] == "system" else []
    users = [n for n, message in enumerate(messages) if message["role"] == "user" and n > len(system)]
    answer = {"role": "assistant", "content": response}
    for begin in (len(system), *users):
        ids = _ids(tokenizer, [*system, *messages[begin:], answer])
        if len(ids) <= max_tokens:
            break
    return Tokens(ids[-max_tokens:], begin - len(system), len(ids) > max_tokens)


def set_padding(config: Any, tokenizer: Any, encoded: Sequence[Sequence[int]]) -> None:
    """Give a model's configuration that names none a token to pad with.

    Its class finds the last token by looking for padding, so no conversation may end with it.
    """
    if config.pad_token_id is None:
        ends = {ids[-1] for ids in encoded if ids}
        candidates = [tokenizer.pad_token_id, *tokenizer.all_special_ids, *range(config.get_text_config().vocab_size)]
        config.pad_token_id = next(int(token) for token in candidates if token is not None and token not in ends)


def _ids(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    return list(tokenizer.apply_chat_template(list(messages), tokenize=True, return_dict=False))
