"""Rules of the further files: they hold of what is built, and each breaks where the data does."""

from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pipeline import gate
from pipeline.annotations.consensus import consensus_labels, most_agreeing
from pipeline.annotations.schema import AGREED
from pipeline.dataset import expectations
from pipeline.dataset.build import helpsteer_rows, in_order, rows_of
from pipeline.dataset.disagreements import disagreement_rows
from pipeline.dataset.preference import preference_rows
from tests.dataset.collected import annotations, response_pairs

PAIRS = response_pairs("d", 30)
RATINGS = annotations(PAIRS, by_people=True)
LABELS = consensus_labels(most_agreeing(RATINGS))
TABLE = in_order(
    rows_of(LABELS.append_column("rated_by", pa.array(["people"] * len(LABELS))).cast(AGREED), PAIRS, "d", 0.3)[0]
)
FILES = {split: helpsteer_rows(TABLE, split) for split in ("train", "validation")}
DISAGREEMENTS, PREFERENCES = disagreement_rows(RATINGS, PAIRS), preference_rows(TABLE, RATINGS)[0]


def broken(views: dict[str, pa.Table]) -> set[str]:
    """Gating rules that don't hold."""
    rules = [rule for rule in expectations.DATASET if rule.view in views and rule.gating]
    return {outcome.rule.name for outcome in gate.evaluate(rules, views) if not outcome.passed}


def replaced(table: pa.Table, name: str, change: Callable[[list], list]) -> pa.Table:
    place = table.column_names.index(name)
    return table.set_column(
        place, table.schema.field(name), pa.array(change(table[name].to_pylist()), table.schema.field(name).type)
    )


def test_every_rule_holds_of_what_is_built() -> None:
    views = expectations.disagreement_views(DISAGREEMENTS, RATINGS) | expectations.preference_views(PREFERENCES, FILES)
    assert broken(views) == set()
    assert {rule.view for rule in expectations.DATASET} - set(views) == {"rows", "prompts", "splits"}


@pytest.mark.parametrize(
    ("rows", "names"),
    [
        (DISAGREEMENTS.slice(1), {"disagreements_in_pairs", "disagreements_once"}),
        (pa.concat_tables([DISAGREEMENTS, DISAGREEMENTS.slice(0, 2)]), {"disagreements_once"}),
        (DISAGREEMENTS.take(pc.sort_indices(DISAGREEMENTS["response"])), {"disagreements_in_pairs"}),
        (replaced(DISAGREEMENTS, "coherence", lambda rows: [r[1:] for r in rows]), {"disagreements_complete"}),
        (replaced(DISAGREEMENTS, "coherence", lambda rows: [[5] * len(r) for r in rows]), {"disagreements_in_range"}),
        (
            replaced(DISAGREEMENTS, "coherence", lambda rows: [[None] * len(r) for r in rows]),
            {"disagreements_in_range"},
        ),
    ],
)
def test_disagreements_that_are_wrong_are_refused(rows: pa.Table, names: set[str]) -> None:
    assert broken(expectations.disagreement_views(rows, RATINGS)) == names


@pytest.mark.parametrize(
    ("rows", "names"),
    [
        (replaced(PREFERENCES, "split", lambda rows: ["train"] * len(rows)), {"preference_split"}),
        (replaced(PREFERENCES, "split", lambda rows: ["validation"] * len(rows)), {"preference_split"}),
        (replaced(PREFERENCES, "preference_strength", lambda rows: [4] * len(rows)), {"preference_in_range"}),
        (
            replaced(PREFERENCES, "all_preferences_unprocessed", lambda rows: [[{"strength": -100}]] * len(rows)),
            {"annotators_preference_in_range"},
        ),
        (pa.concat_tables([PREFERENCES, PREFERENCES.slice(0, 1)]), {"preference_once"}),
    ],
)
def test_preferences_that_are_wrong_are_refused(rows: pa.Table, names: set[str]) -> None:
    assert broken(expectations.preference_views(rows, FILES)) == names
