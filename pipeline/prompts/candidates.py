"""What a filter is, and what it looks at."""

from collections.abc import Callable
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.settings import PromptFilters

Mask = npt.NDArray[np.bool_]


class Candidates(NamedTuple):
    """Candidate prompts, one a row.

    turns: list of strings, the user's turns as they would be kept (one that is too long is cut). texts: the turns of each, joined by line
    ends. characters: length of the whole, before it is cut. personal: whether personal data was found in it.
    """

    turns: pa.ListArray
    texts: pa.StringArray
    characters: pa.Int32Array
    personal: pa.BooleanArray

    def where(self, rows: Mask) -> Self:
        """Some of them."""
        mask = pa.array(rows)
        return type(self)(*(column.filter(mask) for column in self))


class Filter(NamedTuple):
    """A reason against candidates, and the function that says of each whether it holds, by the profile's settings."""

    reason: str
    rejects: Callable[[Candidates, PromptFilters], Mask]
