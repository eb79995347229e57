"""Which items of a benchmark are independent of each other.

Items that share a prompt, or a problem that stands in several of them (the six languages of HumanEvalPack are the same 164 problems), are
one cluster: what a model can't do it gets wrong in all of them. An interval draws clusters, and each with all of its items.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.texts.words import keys_of, prompt_texts

Ints = npt.NDArray[np.int64]


def clusters_of(messages: pa.ChunkedArray | pa.Array, problems: Sequence[str | None]) -> pa.Array:
    """The name of each item's cluster: the place of its first item, as text.

    Items are of one cluster where their prompts are the same words, or the same problem is named, also over others: two items that share
    the prompt and two that share the problem are one cluster of three where one item is in both. A blank prompt is nobody else's.
    messages: lists of role and content; problems: of each item, None where nothing says it.
    """
    n = len(problems)
    named = pa.array([None if problem is None else f"problem {problem}" for problem in problems], pa.string())
    keys = pa.chunked_array([pc.binary_join_element_wise("prompt", _prompts(messages), " "), named])
    code = pc.dictionary_encode(keys.combine_chunks()).indices
    known = np.asarray(code.is_valid())
    label = joined(np.tile(np.arange(n), 2)[known], np.asarray(code.drop_null(), dtype=np.int64), n)
    _, place, number = np.unique(label, return_index=True, return_inverse=True)
    return pc.cast(pa.array(place[number]), pa.string())


def joined(members: Ints, groups: Ints, size: int) -> Ints:
    """Which of so many members hang together, because they share groups, directly or over others: a number of each member's part.

    members, groups: numbers from 0 of who is in what, a pair an entry. Who is in no group is a part by itself.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    nodes = size + (int(groups.max()) + 1 if len(groups) else 0)
    graph = coo_array((np.ones(len(members), dtype=np.int8), (members, size + groups)), shape=(nodes, nodes))
    label: Ints = connected_components(graph, directed=False)[1][:size].astype(np.int64)
    return label


def _prompts(messages: pa.ChunkedArray | pa.Array) -> pa.Array:
    """What makes two prompts the same; null for a blank one."""
    keys = keys_of(prompt_texts(messages))
    return pc.if_else(pc.equal(keys, ""), None, keys)
