"""One person, one vote: who is one person in files of ratings, and which of the ratings that a person gave a response counts."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from pipeline.forms.ratings import Quarantine

RATED_AGAIN = "annotator_id names a person who rated this response again later; the last rating counts"
_WHOLE = re.compile(r"([0-9]+)\.0+")


class People:
    """Annotators by their ids. Ids that differ in case alone, or as 1 and 1.0 do, are one person's, who is called as first spelled.

    known: ids that are known before; their spelling counts.
    """

    def __init__(self, known: Iterable[str] = ()) -> None:
        self._names: dict[str, str] = {}
        self._spelled: dict[str, dict[str, None]] = defaultdict(dict)
        for name in known:
            self._names.setdefault(_key(name), name)

    def called(self, ids: pa.ChunkedArray) -> pa.ChunkedArray:
        """The ids of a column, each as its person is called."""
        coded = (
            ids.combine_chunks().dictionary_encode()
            if ids.num_chunks
            else pa.array([], pa.string()).dictionary_encode()
        )
        names = []
        for spelled in coded.dictionary.to_pylist():
            name = self._names.setdefault(_key(spelled), spelled)
            self._spelled[name][spelled] = None
            names.append(name)
        return pa.chunked_array([pa.array(names, pa.string()).take(coded.indices)], type=pa.string())

    @property
    def count(self) -> int:
        """How many people there were in the columns so far."""
        return len(self._spelled)

    @property
    def spelled(self) -> dict[str, list[str]]:
        """Of people whose ids were spelled in several ways: what they are called, and all spellings."""
        return {name: list(forms) for name, forms in self._spelled.items() if set(forms) != {name}}


def _key(name: str) -> str:
    whole = _WHOLE.fullmatch(name.strip())
    return whole[1] if whole else name.strip().casefold()


def stands(annotations: pa.Table) -> npt.NDArray[np.bool_]:
    """Which rows count: of a person's ratings of a response the last by `annotated_at`, of those of one time, or of none, the last by order.

    One without a time is earlier than one that has it.

    annotations: prompt_id, response_id, annotator_id and annotated_at.
    """
    names = ("prompt_id", "response_id", "annotator_id")
    frame = pd.DataFrame({n: pd.factorize(annotations[n].to_numpy(), use_na_sentinel=False)[0] for n in names})
    again = frame.duplicated(keep=False).to_numpy()
    mask = np.ones(len(frame), dtype=bool)
    if again.any():
        mask[again] = False
        rows = frame.loc[again].assign(at=annotations["annotated_at"].filter(pa.array(again)).to_pandas().to_numpy())
        order = rows.sort_values("at", kind="stable", na_position="first")
        mask[order.drop_duplicates(list(names), keep="last").index] = True
    return mask


def one_vote(tables: Iterable[pa.Table], people: People, file: str, quarantine: Quarantine) -> Iterator[pa.Table]:
    """Annotations in whole prompts with each person's last rating of a response alone; the others are set aside, which is no fault.

    tables: schema ANNOTATIONS, all rows of a prompt in one of them.
    """
    for table in tables:
        place = table.column_names.index("annotator_id")
        table = table.set_column(place, "annotator_id", people.called(table["annotator_id"]))
        mask = stands(table)
        if not mask.all():
            for row in table.filter(pa.array(~mask)).to_pylist():
                quarantine.add(file, None, "annotator_id", RATED_AGAIN, row, fault=False)
            table = table.filter(pa.array(mask))
        yield table
