"""What must hold of conversations, candidates, topics, complexity and prompts before they are published."""

from collections.abc import Collection, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.rules import Rule
from pipeline.settings import Sample

_ID = Rule("prompt_once", "Every prompt stands once.", "ExpectColumnValuesToBeUnique", {"column": "prompt_id"})
_SOME = Rule("some_rows", "There is at least one row.", "ExpectTableRowCountToBeBetween", {"min_value": 1})

CONVERSATIONS = (
    _SOME,
    Rule("only_user_turns", "Only the user's turns are kept.", "ExpectColumnValuesToBeInSet",
         {"column": "role", "value_set": ["user"]}, view="roles"),
    Rule("most_readable", "At least half of the records are conversations that a user began.", "ExpectColumnValuesToBeBetween",
         {"column": "kept_share", "min_value": 0.5}, view="sources"),
    Rule("not_cut", "No source is cut off at its end.", "ExpectColumnValuesToBeNull", {"column": "cut"}, gating=False, view="sources"),
)  # fmt: skip

CANDIDATES = (
    _SOME,
    _ID,
    Rule("has_turns", "Every candidate has a user turn.", "ExpectColumnValuesToBeBetween", {"column": "n_turns", "min_value": 1}),
    Rule("some_kept", "At least one conversation in fifty gives a candidate.", "ExpectColumnValuesToBeBetween",
         {"column": "kept_share", "min_value": 0.02}, view="totals"),
)  # fmt: skip

TOPICS = (
    _ID,
    Rule("has_topic", "Every candidate has a topic.", "ExpectColumnValuesToNotBeNull", {"column": "topic"}),
    Rule("all_candidates", "Every candidate is there, and nothing else.", "ExpectColumnValuesToBeInSet",
         {"column": "missing_or_extra", "value_set": [0]}, view="totals"),
    Rule("none_swallows", "No topic holds more than half of the candidates.", "ExpectColumnValuesToBeBetween",
         {"column": "largest_share", "max_value": 0.5}, gating=False, view="totals"),
)  # fmt: skip

COMPLEXITY = (
    _ID,
    Rule("in_range", "Complexity goes from 1 to 5.", "ExpectColumnValuesToBeBetween",
         {"column": "complexity", "min_value": 1, "max_value": 5}),
    Rule("rated", "Every prompt has a complexity.", "ExpectColumnValuesToNotBeNull", {"column": "complexity"}),
    Rule("spread", "At least three levels are in use.", "ExpectColumnUniqueValueCountToBeBetween",
         {"column": "complexity", "min_value": 3}, gating=False),
)  # fmt: skip

PROMPTS = (
    _ID,
    Rule("new", "No prompt is in another delivery.", "ExpectColumnValuesToBeInSet",
         {"column": "taken", "value_set": [False]}, view="others"),
    Rule("full", "As many prompts as the profile asks for. Else: more conversations, milder filters, or smaller deliveries.",
         "ExpectColumnValuesToBeBetween", {"column": "missing", "max_value": 0}, view="totals"),
    Rule("multi_turn_share", "The share of multi-turn prompts is the profile's, to rounding.", "ExpectColumnValuesToBeBetween",
         {"column": "multi_turn_off", "min_value": 0, "max_value": 0}, gating=False, view="totals"),
    Rule("has_turns", "Every prompt has a user turn.", "ExpectColumnValuesToBeBetween", {"column": "n_turns", "min_value": 1}),
    Rule("complexity", "Complexity goes from 1 to 5.", "ExpectColumnValuesToBeBetween",
         {"column": "complexity", "min_value": 1, "max_value": 5}),
)  # fmt: skip


def conversation_views(conversations: pa.Table, reports: Collection[Any]) -> dict[str, pa.Table]:
    """Views `roles` (of every turn) and `sources` (share of records kept, where each was cut)."""
    roles = pc.struct_field(pc.list_flatten(conversations["turns"]), "role")
    sources = {
        "kept_share": [r.kept / r.records if r.records else 0.0 for r in reports],
        "cut": pa.array([r.cut for r in reports], pa.string()),
    }
    return {"roles": pa.table({"role": pc.unique(roles)}), "sources": pa.table(sources)}


def candidate_views(kept: int, rejected: int) -> dict[str, pa.Table]:
    """View `totals`: share of conversations kept."""
    return {"totals": pa.table({"kept_share": [kept / max(kept + rejected, 1)]})}


def topic_views(topics: pa.Table, candidates: pa.Table) -> dict[str, pa.Table]:
    """View `totals`: candidates missing or extra, share of the largest topic."""
    mine, theirs = (set(t["prompt_id"].to_pylist()) for t in (topics, candidates))
    largest = pc.max(pc.struct_field(pc.value_counts(topics["topic"]), "counts")).as_py() or 0
    return {
        "totals": pa.table({"missing_or_extra": [len(mine ^ theirs)], "largest_share": [largest / max(len(topics), 1)]})
    }


def prompt_views(
    prompts: pa.Table, taken: Collection[str], sample: Sample, figures: Mapping[str, Any]
) -> dict[str, pa.Table]:
    """Views `others` (is a prompt in another delivery) and `totals` (missing prompts, multi-turn prompts off the share)."""
    off = abs(figures["multi-turn drawn"] - round(len(prompts) * sample.multi_turn_share))
    return {
        "others": pa.table({"taken": pc.is_in(prompts["prompt_id"], pa.array(list(taken), pa.string()))}),
        "totals": pa.table({"missing": [sample.prompts - len(prompts)], "multi_turn_off": [off]}),
    }
