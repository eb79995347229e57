"""Conversations as tokens, so that anyone's plain `apply_chat_template` gives the same ones. Needs a tokenizer, not torch."""

from collections.abc import Sequence
from typing import Any

Message = dict[str, str]


def prepare_tokenizer(tokenizer: Any) -> Any:
    """A tokenizer whose chat template ends exactly at the end of the response, and whose padding can't be taken for that end.

    - What a template writes after the end-of-turn token is trimmed: the score is read at that token.
    - The beginning-of-text token, where the tokenizer has the habit of one, stands in the template, once.
    - The padding token differs from the end-of-turn token: transformers finds the last token by looking for padding.
    Raises ValueError for a template that writes the date (scores would change from day to day), or where there is none.
    """
    template = tokenizer.chat_template
    if not template:
        raise ValueError(
            "the base model's tokenizer has no chat template: take an instruct model, or give the tokenizer a template"
        )
    if "strftime_now" in template or "date_string" in template:
        raise ValueError(
            "the base model's chat template writes the date: scores would change from day to day. Remove it from the template"
        )
    wants_bos = bool(tokenizer.bos_token) and tokenizer("a").input_ids[:1] == [tokenizer.bos_token_id]
    bos = "{{ bos_token }}" if wants_bos and "bos_token" not in template else ""
    tokenizer.chat_template = bos + "{% filter trim %}" + template + "{% endfilter %}"
    end = _ids(tokenizer, [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])[-1]
    if end not in tokenizer.all_special_ids:
        raise ValueError(
            f"the chat template ends a response with {tokenizer.decode([end])!r}, which is no special token: it can't mark the end"
        )
    if tokenizer.pad_token_id in (None, end):
        others = [
            t
            for t in tokenizer.all_special_tokens
            if tokenizer.convert_tokens_to_ids(t) not in (end, tokenizer.bos_token_id)
        ]
        if not others:
            raise ValueError(
                "the tokenizer has no special token left to pad with: add one to it (`tokenizer.add_special_tokens`)"
            )
        tokenizer.pad_token = others[0]
    tokenizer.padding_side, tokenizer.truncation_side = "right", "left"
    return tokenizer


def encode(tokenizer: Any, messages: Sequence[Message], response: str, max_tokens: int) -> tuple[list[int], int, bool]:
    """Token ids of a conversation with its response, ending at the end-of-turn token; turns dropped; whether its start was cut.

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
    return ids[-max_tokens:], begin - len(system), len(ids) > max_tokens


def _ids(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    return list(tokenizer.apply_chat_template(list(messages), tokenize=True, return_dict=False))
