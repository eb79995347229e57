"""Prompts as words, for comparing them."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def prompt_texts(messages: pa.ChunkedArray | pa.Array) -> pa.Array:
    """The user's turns of conversations, joined by a line end; "" for a conversation without any. messages: lists of role and content."""
    parts = messages.chunks if isinstance(messages, pa.ChunkedArray) else [messages]
    return pa.array([text for part in parts for text in _user_texts(part)], pa.string())


def _user_texts(lists: pa.Array) -> list[str]:
    row = np.repeat(np.arange(len(lists)), np.asarray(pc.fill_null(pc.list_value_length(lists), 0), dtype=np.int64))
    turns = lists.flatten()
    mine = np.asarray(pc.equal(pc.struct_field(turns, "role"), "user"), dtype=bool)
    texts: list[list[str]] = [[] for _ in range(len(lists))]
    for place, text in zip(
        row[mine], pc.struct_field(turns, "content").filter(pa.array(mine)).to_pylist(), strict=True
    ):
        texts[place].append(text or "")
    return ["\n".join(turn) for turn in texts]


def words_of(texts: pa.Array) -> pa.Array:
    """The words of each text: in NFKC and lower case, divided by white space, punctuation and symbols."""
    plain = pc.replace_substring_regex(
        pc.utf8_lower(pc.utf8_normalize(texts, "NFKC")), r"[\p{P}\p{S}\p{Z}\p{Cc}]+", " "
    )
    split = pc.split_pattern(pc.utf8_trim(plain, " "), " ")
    empty = pc.equal(pc.utf8_length(pc.utf8_trim(plain, " ")), 0)
    return pc.if_else(empty, pa.scalar([], split.type), split)


def keys_of(texts: pa.Array) -> pa.Array:
    """What makes two prompts equal: their words, joined by spaces; where a text has none, the text itself without white space around it."""
    joined = pc.binary_join(words_of(texts), " ")
    return pc.if_else(pc.equal(joined, ""), pc.utf8_trim_whitespace(texts), joined)
