"""The form of nvidia/HelpSteer2: its files' columns, and conversations as its `prompt` field has them."""

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.vocabulary import ATTRIBUTES

USER_MARK, ASSISTANT_MARK = "\n<extra_id_1>User\n", "\n<extra_id_1>Assistant\n"
"""Turn headers within the `prompt` field of HelpSteer2's files; the first user turn has none (method.md E)."""

MARKUP = "<extra_id_"
RECORDED = "recorded"
"""The generator of responses that somebody else has published."""

_MARKS = re.compile(r"\n<extra_id_1>(User|Assistant)\n")


def whole(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """A column as one array."""
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def flatten(messages: pa.ChunkedArray | pa.Array) -> pa.Array:
    """Contexts (lists of role and content) as HelpSteer2's `prompt` field: turns divided by their headers, the first without one.

    Raises ValueError for a role other than user and assistant: the format has no header for it.
    """
    lists = whole(messages)
    ends = np.asarray(pc.list_value_length(lists), dtype=np.int64).cumsum()
    roles, contents = (pc.struct_field(lists.flatten(), name) for name in ("role", "content"))
    other = pc.unique(roles.filter(pc.invert(pc.is_in(roles, pa.array(["user", "assistant"]))))).to_pylist()
    if other:
        raise ValueError(
            f"HelpSteer2's format has only turns of user and assistant, not of {', '.join(map(str, other))}"
        )
    marks = np.where(np.asarray(pc.equal(roles, "assistant")), ASSISTANT_MARK, USER_MARK).astype(object)
    starts = np.concatenate([[0], ends[:-1]]) if len(ends) else ends
    marks[starts[starts < ends]] = ""
    parts = pc.binary_join_element_wise(pa.array(marks, pa.string()), contents, "")
    offsets = pa.array(np.concatenate([[0], ends]), pa.int32())
    return pc.binary_join(pa.ListArray.from_arrays(offsets, parts), "")


def messages_of(prompt: str) -> list[dict[str, str]]:
    """HelpSteer2's `prompt` field as a conversation: the inverse of `flatten`."""
    roles, contents = ["user"], [""]
    for n, part in enumerate(_MARKS.split(prompt)):
        if n % 2:
            roles.append(part.lower())
        elif n:
            contents.append(part)
        else:
            contents[0] = part
    return [{"role": role, "content": content} for role, content in zip(roles, contents, strict=True)]


HELPSTEER = pa.schema(
    [("prompt", pa.string()), ("response", pa.string()), *(pa.field(a, pa.int64()) for a in ATTRIBUTES)]
)
"""A row of nvidia/HelpSteer2's train and validation files."""

DISAGREEMENTS = pa.schema(
    [
        ("prompt", pa.string()),
        ("response", pa.string()),
        *(pa.field(a, pa.list_(pa.int64())) for a in ATTRIBUTES),  # in the order of the annotators of this response
    ]
)
"""A row of nvidia/HelpSteer2's `disagreements` file: every rating, before any is removed."""

PREFERENCE = pa.schema(
    [
        ("split", pa.string()),  # train | val: the one file holds both
        ("prompt", pa.string()),
        ("response_1", pa.string()),
        ("response_2", pa.string()),
        ("preference_strength", pa.int64()),  # -3 to 3; negative: response 1 is better
        ("preference_statement", pa.string()),
        ("preference_elaboration", pa.string()),
        (
            "three_most_similar_preferences",
            pa.list_(pa.struct([("statement", pa.string()), ("elaboration", pa.string()), ("strength", pa.int64())])),
        ),
        (
            "all_preferences_unprocessed",
            pa.list_(pa.struct([("strength", pa.int64()), ("justification", pa.string())])),
        ),
    ]
)
"""A row of nvidia/HelpSteer2's `preference` file (method: published files)."""
