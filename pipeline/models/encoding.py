"""Conversations as tokens, so that anyone's plain `apply_chat_template` gives the same ones. Needs a tokenizer, not torch."""

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.models.marks import control_tokens, harmless
from pipeline.models.templates import ANSWERED, Message, adds_bos, own_template, settled

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


_PADS = re.compile("^(?!.*(?:image|video|vision|audio)).*pad", re.IGNORECASE)
_SPARE = re.compile("reserved|unused|placeholder|dummy", re.IGNORECASE)


def prepare_tokenizer(tokenizer: Any, template: str = "tokenizer", embeddings: int | None = None) -> Any:
    """A tokenizer whose chat template ends exactly at the end of the response, and whose padding can't be taken for that end.

    template: `tokenizer`, its own, or a name of TEMPLATES; embeddings: how many tokens the model has a vector for, if not all.
    - A date is fixed, and the system message has a place: see `settled`.
    - What a template writes after the end-of-turn token is trimmed: the score is read at that token.
    - The beginning-of-text token, where the tokenizer has the habit of one, stands in the template, once; see `leave_to_template`.
    - The padding token differs from the end-of-turn token: transformers finds the last token by looking for padding.
    Raises ValueError where there is no template, or one that ends with no token of its own, or with one that the model has no vector for.
    """
    named, text = template in TEMPLATES, TEMPLATES.get(template) or own_template(tokenizer)
    if not text:
        raise ValueError(
            "the base model's tokenizer has no chat template; take an instruct model, give the tokenizer a template, "
            f"or name one in the recipe (template: {', '.join(TEMPLATES)})"
        )
    begins = adds_bos(tokenizer)
    tokenizer.chat_template = settled("{% filter trim %}" + text + "{% endfilter %}", ANSWERED)
    ids = _ids(tokenizer, [{"role": role, "content": "a"} for role in ANSWERED])
    if begins and ids[0] != tokenizer.bos_token_id:
        tokenizer.chat_template = "{{ bos_token }}" + tokenizer.chat_template
        ids = [tokenizer.bos_token_id, *ids]
    leave_to_template(tokenizer)
    end, known = ids[-1], range(embeddings or len(tokenizer))
    if tokenizer.convert_ids_to_tokens(end) not in control_tokens(tokenizer) and not named:
        raise ValueError(
            f"the chat template ends a response with {tokenizer.decode([end])!r}, which is not a special token, so it can't mark the end"
        )
    if unknown := [n for n in ids if n not in known]:
        raise ValueError(
            f"the chat template writes {tokenizer.decode(unknown[:1])!r}, token {unknown[0]}, but the model knows {len(known)} tokens; "
            "give it a vector for each (`model.resize_token_embeddings`), or take the tokenizer that it was trained with"
        )
    if tokenizer.pad_token_id in (None, end) or tokenizer.pad_token_id not in known:
        tokenizer.pad_token = _padding(tokenizer, ids, known)
    tokenizer.padding_side, tokenizer.truncation_side = "right", "left"
    return tokenizer


def _padding(tokenizer: Any, written: Sequence[int], known: range) -> str:
    """A special token to pad with that a conversation doesn't end with: one that is meant for it, or spare, or in no conversation, if there is one.

    written: tokens of a conversation.
    """
    places = {token: tokenizer.convert_tokens_to_ids(token) for token in control_tokens(tokenizer)}
    possible = [token for token, n in places.items() if n in known and n != written[-1]]
    if not possible:
        raise ValueError(
            "the tokenizer has no special token left to pad with. Add one to it and to the model: "
            "`tokenizer.add_special_tokens({'pad_token': '<|pad|>'})`, `model.resize_token_embeddings(len(tokenizer))`, and save both"
        )

    def rank(token: str) -> tuple[bool, bool, bool, bool]:
        return not _PADS.search(token), not _SPARE.search(token), token == tokenizer.bos_token, places[token] in written

    return min(possible, key=rank)


def leave_to_template(tokenizer: Any) -> None:
    """Let a tokenizer add no token to a text by itself: the chat template writes those that a conversation has at its ends.

    Then whoever tokenizes what the template wrote, as text-classification pipelines and servers do, has the tokens of whoever has the template
    tokenize, and not a second beginning.
    """
    tokenizer.add_bos_token = tokenizer.add_eos_token = (
        False  # transformers then writes its post-processor anew, without any token
    )


class Tokens(NamedTuple):
    """Token ids of a conversation; how many of its oldest turns were left out, and how many tokens of its texts, so that it has room."""

    ids: list[int]
    dropped: int
    cut: int


def encode(tokenizer: Any, messages: Sequence[Message], response: str, max_tokens: int) -> Tokens:
    """A conversation with its response, ending at the end-of-turn token, in at most `max_tokens` tokens.

    messages: an optional system message, then turns, of which the last is the user's. A conversation that is too long begins at a later
    user turn, the system message before it, at most at the one that is answered. If it is too long even so, its texts lose their middle,
    the longest first: what is asked and what is answered both keep their beginning and their end. Raises ValueError where the template
    leaves no room for any text.
    """
    system = list(messages[:1]) if messages[0]["role"] == "system" else []
    users = [n for n, message in enumerate(messages) if message["role"] == "user" and n > len(system)]
    answer = {"role": "assistant", "content": response}
    for begin in (len(system), *users):
        left = [*system, *messages[begin:], answer]
        ids = _ids(tokenizer, left)
        if len(ids) <= max_tokens:
            return Tokens(ids, begin - len(system), 0)
    short = _shortened(tokenizer, left, len(ids), max_tokens)
    return Tokens(short, begin - len(system), len(ids) - len(short))


CUT = " ... "
"""Stands where the middle of a text was, if as many tokens of it are left as make that worth its own."""
WORTH = 8


def _shortened(tokenizer: Any, messages: Sequence[Message], length: int, max_tokens: int) -> list[int]:
    """Token ids of a conversation of `length` tokens whose texts have lost their middle.

    Where tokens end in a text depends on what stands beside them, so that what is left may be a few tokens too long: then less is left.
    """
    texts = [tokenizer(m["content"], add_special_tokens=False, return_offsets_mapping=True) for m in messages]
    places = [text.offset_mapping for text in texts]
    sizes = np.array([len(where) for where in places])
    room = max_tokens - (length - int(sizes.sum()))
    while room >= len(messages):
        shares = _shares(sizes, room)
        left = [
            {**message, "content": _without_middle(message["content"], where, share)}
            for message, where, share in zip(messages, places, shares, strict=True)
        ]
        ids = _ids(tokenizer, left)
        if len(ids) <= max_tokens:
            return ids
        room -= len(ids) - max_tokens
    raise ValueError(
        f"max_tokens: {max_tokens} tokens are too few for this model: its chat template alone takes {length - int(sizes.sum())}"
    )


def _shares(sizes: npt.NDArray[np.int64], room: int) -> list[int]:
    """How many tokens each text keeps of so many in all: those shorter than an equal share all of theirs, the others as many as each other."""
    ordered = np.sort(sizes)
    # with the n shortest whole, what each of the others would have
    each = (room - np.concatenate([[0], np.cumsum(ordered)[:-1]])) // np.arange(len(sizes), 0, -1)
    cap = int(each[np.argmax(ordered > each)]) if (ordered > each).any() else int(ordered[-1])
    return np.minimum(sizes, cap).tolist()


def _without_middle(text: str, places: Sequence[tuple[int, int]], keep: int) -> str:
    """A text of its first and its last tokens, `keep` in all; their beginnings and ends in it are `places`."""
    if keep >= len(places):
        return text
    last = keep // 2
    first = text[: places[keep - last - 1][1]]
    return first + (CUT if keep >= WORTH else " ") + text[places[-last][0] :] if last else first


def encode_each(
    tokenizer: Any, conversations: Iterable[tuple[Sequence[Message], str]], max_tokens: int
) -> tuple[dict[int, Tokens], dict[str, list[int]]]:
    """Tokens of conversations with their responses, by their places, and the places of those that the chat template refuses, by its reason."""
    from jinja2 import TemplateError

    encoded, refused = dict[int, Tokens](), dict[str, list[int]]()
    for n, (messages, response) in enumerate(conversations):
        try:
            encoded[n] = encode(tokenizer, messages, response, max_tokens)
        except TemplateError as error:
            refused.setdefault(str(error), []).append(n)
    return encoded, refused


UNSTATED, LONGEST = 10**9, 4096
"""A tokenizer that doesn't say how much is read has a number above the first; the second is taken then, NVIDIA's models' length."""


def longest_read(tokenizer: Any, config: Any) -> int:
    """Tokens of a conversation that a reward model reads: as its tokenizer says, ours what it learned from, and no more than it has positions."""
    said = tokenizer.model_max_length if tokenizer.model_max_length < UNSTATED else LONGEST
    return min(said, getattr(config.get_text_config(), "max_position_embeddings", None) or said)


def set_padding(config: Any, tokenizer: Any, encoded: Sequence[Sequence[int]]) -> None:
    """Give a model's configuration that names none a token to pad with.

    Its class finds the last token by looking for padding, so no conversation may end with it.
    """
    if config.pad_token_id is None:
        ends, known = {ids[-1] for ids in encoded if ids}, range(config.get_text_config().vocab_size)
        special = tokenizer.convert_tokens_to_ids(control_tokens(tokenizer))
        candidates = [tokenizer.pad_token_id, *special, *known]
        config.pad_token_id = next(int(token) for token in candidates if token in known and token not in ends)


def _ids(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """Token ids of a conversation. In its texts the model's own marks are broken, so that none can end a response or begin a turn."""
    return list(tokenizer.apply_chat_template(harmless(tokenizer, messages), tokenize=True, return_dict=False))
