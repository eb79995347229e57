"""What the readers of ratings decided, as a table for people: rows read, used and set aside, who rated how much, what was taken for what."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from pipeline.forms.ratings import Habits

RATINGS_SHOWN = 12
"""Numbers of ratings of a response that are counted one by one; those above are counted together."""


@dataclass
class Used:
    """The ratings that are used, counted as they come: how many, by whom, of how many responses, and how often a response has how many.

    A prompt's rows must stand in one table. response_key: the columns that name a response.
    """

    ratings: int = 0
    people: set[str] = field(default_factory=set)
    per_response: Counter[int] = field(default_factory=Counter)

    def note(self, table: pa.Table) -> pa.Table:
        """Count a table's rows (schema ANNOTATIONS); the table."""
        self.ratings += len(table)
        self.people.update(table["annotator_id"].unique().to_pylist())
        sizes = table.group_by(["prompt_id", "response_id"]).aggregate([([], "count_all")])["count_all"].to_numpy()
        for size, responses in zip(*np.unique(sizes, return_counts=True), strict=True):
            self.per_response[int(size)] += int(responses)
        return table


def decisions(read: int, set_aside: Counter[str], used: Used, habits: Habits) -> pa.Table:
    """What was decided, as the columns `what` and `rows`: rows read and used, those set aside by reason, people, responses, ratings per response.

    read: rows of the files; set_aside: how many by reason, faults and what is left out alike. used: empty where rows are no single ratings, or
    are passed on as they come: then nothing is said of people and responses.
    """
    counted = bool(used.per_response)
    rows: list[tuple[str, int]] = [("rows read", read)]
    rows += [("ratings used", used.ratings) if counted else ("rows used", read - set_aside.total())]
    rows += [(f"set aside: {reason}", n) for reason, n in set_aside.most_common()]
    rows += [("people", len(used.people)), ("responses", used.per_response.total())] if counted else []
    few = sorted(n for n in used.per_response if n <= RATINGS_SHOWN)
    rows += [(f"responses with {n} rating{'s' * (n != 1)}", used.per_response[n]) for n in few]
    if many := sum(count for n, count in used.per_response.items() if n > RATINGS_SHOWN):
        rows.append((f"responses with more than {RATINGS_SHOWN} ratings", many))
    rows += [(f"field {ours} is read from {theirs}", read) for ours, theirs in habits.columns.items()]
    for attribute, scale in habits.scale.items():
        said = ", ".join(f"{word} is {level}" for word, level in scale.items())
        rows.append((f"scale of {'all attributes' if attribute == 'all' else attribute}: {said}", read))
    return pa.table({"what": [what for what, _ in rows], "rows": [n for _, n in rows]})
