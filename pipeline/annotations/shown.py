"""What people are shown of ratings: how many, by whom, how far apart, and how well they agree."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import plots
from pipeline.annotations.agreement import FIGURES
from pipeline.annotations.imported import Used, decisions
from pipeline.forms.ratings import USUAL_HABITS, Habits
from pipeline.settings import FilesDesk, Profile
from pipeline.shown import ENGINE, Markdown, Rows, Shown, counts, labelled, level_counts, whole
from pipeline.vocabulary import ATTRIBUTES

LEVELS = [str(level) for level in range(5)]


def who(profile: Profile) -> str:
    """Whoever rates, in a title."""
    return "annotators" if profile.rated_by == "people" else profile.rated_by


def tasks(table: pa.Table) -> dict[str, Shown]:
    """Of TASKS: samples."""
    return {"samples": table.select(["messages", "response_1", "response_2"])}


def ratings(
    table: pa.Table, quarantine: pa.Table, profile: Profile, runs: Mapping[str, Mapping[str, Any]]
) -> dict[str, Shown]:
    """Of ANNOTATIONS: who rated, how often each level was given, and what was decided of the rows. runs: figures of engines, by checkpoint."""
    aside = quarantine.filter(pc.or_(pc.is_valid(quarantine["row"]), pc.is_valid(quarantine["line"])))
    used, reasons = Used(), Counter(aside["reason"].to_pylist())
    used.note(table)
    levels: dict[str, list[int]] = {a: level_counts(table[a]) for a in ATTRIBUTES}
    return {
        "annotators": len(pc.unique(table["annotator_id"])),
        "rated by": profile.ratings_note or profile.rated_by,
        **(
            {"engines": {checkpoint: labelled(figures, ENGINE) for checkpoint, figures in runs.items()}} if runs else {}
        ),
        "ratings": plots.grouped_bars(LEVELS, levels, f"Ratings by {profile.rated_by}", "ratings"),
        "what was decided of the rows": whole(decisions(len(table) + len(aside), reasons, used, _habits(profile))),
        "rows in quarantine": len(quarantine),
        "rows in quarantine by reason": counts(quarantine["reason"], "reason"),
    }


def _habits(profile: Profile) -> Habits:
    """What the files of a desk call things, where the profile says it."""
    desk = profile.annotations.desk
    return Habits(desk.columns, desk.scale) if isinstance(desk, FilesDesk) else USUAL_HABITS


def ratings_per_response(table: pa.Table) -> str:
    """The mean number of ratings of a response, beside HelpSteer2's."""
    return f"{len(table) / max(len(pc.unique(table['response_id'])), 1):.2f} (HelpSteer2: 3.41)"


def escalation(table: pa.Table, spreads: pa.Table, people: str) -> dict[str, Shown]:
    """Of WANTED: how many responses go to further annotators, and how far apart the first ones were. spreads: of every response."""
    share = len(table) / max(len(spreads), 1)
    title = f"Highest minus lowest helpfulness rating by the first {people}"
    return {
        "escalated responses": f"{len(table)} of {len(spreads)} responses ({share:.1%}; HelpSteer2: about 20.5 %)",
        "spread of helpfulness ratings": plots.bar_chart(LEVELS, level_counts(spreads["spread"]), title, "responses"),
    }


def consensus(
    labels: pa.Table, other: pa.Table, ratings: pa.Table, kept: pa.Table, rule: str, people: str
) -> dict[str, Shown]:
    """Of LABELS: how often each was given, how many ratings were removed, and what the other rule would change.

    other: labels by the other rule, which is called `rule`; ratings, kept: before and after the removal of outliers.
    """
    changed = sum(pc.sum(pc.fill_null(pc.not_equal(labels[a], other[a]), False)).as_py() or 0 for a in ATTRIBUTES)
    before, after = (sum(len(t) - t[a].null_count for a in ATTRIBUTES) for t in (ratings, kept))
    return {
        "labels": label_chart(labels, f"Labels from ratings by {people}"),
        "ratings removed as outliers": before - after,
        f"labels that rule `{rule}` would change": f"{changed} of {len(labels) * len(ATTRIBUTES)}",
    }


def agreed(table: pa.Table, tasks: int, people: str) -> dict[str, Shown]:
    """Of AGREED: how many of so many tasks were removed, and the labels of the others."""
    removed = tasks - len(pc.unique(table["prompt_id"]))
    return {
        "tasks removed": f"{removed} of {tasks} ({removed / max(tasks, 1):.1%}; HelpSteer2: about 10 %)",
        "labels": label_chart(table, f"Labels of agreed tasks, from ratings by {people}"),
    }


def agreement(table: pa.Table, annotators: pa.Table, people: str) -> dict[str, Shown]:
    """Of AGREEMENT and ANNOTATOR_AGREEMENT: every figure with its interval, and the annotators who agree least with the others."""
    chart: dict[str, list[float]] = {}
    for stage, part in table.to_pandas().groupby("stage", sort=False):
        chart[str(stage)] = list(part["kappa"])
    for stage, part in table.to_pandas().groupby("stage", sort=False):
        if stage != "all":
            chart[f"{stage}, by chance"] = list(part["kappa_null"])
    return {
        **{name.replace("_", ", "): whole(_figure(table, name)) for name in FIGURES},
        "annotators, least agreement on helpfulness first": Rows(_least_agreeing(annotators), 20),
        "chart of kappa": plots.grouped_bars(
            list(ATTRIBUTES), chart, f"Quadratic-weighted kappa of ratings by {people}", "kappa"
        ),
    }


def label_chart(table: pa.Table, title: str) -> Markdown:
    """How often each label was given, by attribute."""
    return plots.grouped_bars(LEVELS, {a: level_counts(table[a]) for a in ATTRIBUTES}, title, "responses")


def _figure(table: pa.Table, name: str) -> pa.Table:
    """A figure of every attribute and stage with its interval, what it is by chance, and what was published."""
    parts = {"": name, "_low": "from", "_high": "to", "_null": "by chance"}
    columns = {new: pc.round(table[name + part], 3) for part, new in parts.items()}
    published = {"HelpSteer2": table["published"]} if name == "kappa" else {}
    return pa.table(
        {
            "attribute": table["attribute"],
            "stage": table["stage"],
            **columns,
            **published,
            "responses": table["responses"],
        }
    )


def _least_agreeing(annotators: pa.Table) -> pa.Table:
    rows = annotators.filter(pc.equal(annotators["attribute"], "helpfulness")).to_pandas().round(3)
    return pa.Table.from_pandas(rows.drop(columns=["attribute", "rated_by"]).sort_values("kappa"), preserve_index=False)
