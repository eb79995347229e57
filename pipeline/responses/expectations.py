"""What must hold of contexts, plan, responses and pairs before they are published."""

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.rules import Rule

CONTEXTS = (
    Rule(
        "prompt_once", "Each prompt has exactly one context.", "ExpectColumnValuesToBeUnique", {"column": "prompt_id"}
    ),
    Rule("some_contexts", "The table has at least one context.", "ExpectTableRowCountToBeBetween", {"min_value": 1}),
    Rule(
        "ends_with_the_user",
        "Every context begins and ends with a user turn, and user and assistant alternate.",
        "ExpectColumnValuesToBeInSet",
        {"column": "alternates", "value_set": [True]},
        view="turns",
    ),
    Rule(
        "few_rejected",
        "The model that writes contexts refuses at most one prompt in ten, or writes nothing.",
        "ExpectColumnValuesToBeBetween",
        {"column": "rejected_share", "max_value": 0.1},
        view="totals",
    ),
)

PLAN = (
    Rule("two_rows_a_prompt", "Each prompt has exactly two planned responses.", "ExpectColumnValuesToBeBetween",
         {"column": "rows", "min_value": 2, "max_value": 2}, view="prompts"),
    Rule("different_generators", "The two responses to a prompt come from different generators.", "ExpectCompoundColumnsToBeUnique",
         {"column_list": ["prompt_id", "generator"]}),
    Rule("both_positions", "Of the two responses to a prompt, one is shown first and the other second.", "ExpectCompoundColumnsToBeUnique",
         {"column_list": ["prompt_id", "position"]}),
    Rule("every_context_planned", "The plan covers every context.", "ExpectColumnValuesToBeInSet",
         {"column": "planned", "value_set": [True]}, view="contexts"),
    Rule("shares_kept", "The share of each generator lies within four standard errors of the profile's.", "ExpectColumnValuesToBeBetween",
         {"column": "standard_errors_off", "min_value": -4, "max_value": 4}, gating=False, view="shares"),
)  # fmt: skip

RESPONSES = (
    Rule("planned_once", "Each prompt that is planned for the generator has exactly one response, and no other prompt has one.",
         "ExpectColumnValuesToBeInSet", {"column": "answered", "value_set": [1]}, view="plan"),
    Rule("id_unique", "Each `response_id` appears exactly once.", "ExpectColumnValuesToBeUnique", {"column": "response_id"}),
    Rule("finish_reason_recorded", "Every finish reason is `stop`, `length` or `refused`.", "ExpectColumnValuesToBeInSet",
         {"column": "finish_reason", "value_set": ["stop", "length", "refused"]}),
    Rule("ended", "Every response has a finish reason.", "ExpectColumnValuesToNotBeNull", {"column": "finish_reason"}),
    Rule("mostly_written", "At most one response in ten is blank or refused.", "ExpectColumnValuesToBeBetween",
         {"column": "blank_share", "max_value": 0.1}, view="totals"),
    Rule("varied", "At least nine in ten written responses are distinct. If fewer are, the model does not answer the prompts.",
         "ExpectColumnValuesToBeBetween", {"column": "distinct_share", "min_value": 0.9}, view="totals"),
)  # fmt: skip

RESPONSE_PAIRS = (
    Rule("two_rows_a_prompt", "Each prompt has exactly two responses.", "ExpectColumnValuesToBeBetween",
         {"column": "rows", "min_value": 2, "max_value": 2}, view="prompts"),
    Rule("different_generators", "The two responses to a prompt come from different generators.", "ExpectCompoundColumnsToBeUnique",
         {"column_list": ["prompt_id", "generator"]}),
    Rule("not_blank", "Every response has text.", "ExpectColumnValueLengthsToBeBetween", {"column": "response", "min_value": 1}),
    Rule("most_kept", "At least four prompts in five keep both responses.", "ExpectColumnValuesToBeBetween",
         {"column": "kept_share", "min_value": 0.8}, view="totals"),
)  # fmt: skip

RECORDED_PAIRS = tuple(rule for rule in RESPONSE_PAIRS if rule.name != "different_generators")
"""Of recorded responses nobody says which model wrote which."""


def rows_per_prompt(table: pa.Table) -> pa.Table:
    """Rows a prompt: prompt_id, rows."""
    return table.group_by("prompt_id").aggregate([([], "count_all")]).rename_columns(["prompt_id", "rows"])


def context_views(contexts: pa.Table, rejected: int) -> dict[str, pa.Table]:
    """Views of contexts: `turns` (does each alternate from user to user) and `totals`."""
    roles = [[m["role"] for m in messages] for messages in contexts["messages"].to_pylist()]
    alternates = [r == (["user", "assistant"] * len(r))[: len(r)] and len(r) % 2 == 1 for r in roles]
    totals = {"rejected_share": [rejected / max(rejected + len(contexts), 1)]}
    return {"turns": pa.table({"alternates": alternates}), "totals": pa.table(totals)}


def plan_views(plan: pa.Table, contexts: pa.Table, shares: Mapping[str, float]) -> dict[str, pa.Table]:
    """Views of a plan: `prompts`, `contexts` (is each planned), `shares` (how far from the profile, in standard errors)."""
    planned = pc.is_in(contexts["prompt_id"], pc.unique(plan["prompt_id"]))
    counts = dict(zip(*(column.to_pylist() for column in pc.value_counts(plan["generator"]).flatten()), strict=True))
    total, prompts = sum(shares.values()), len(plan) / 2
    off = []
    for name, share in shares.items():
        expected = 2 * share / total  # the probability that a prompt has this generator
        error = (prompts * expected * (1 - expected)) ** 0.5
        difference = counts.get(name, 0) - prompts * expected
        off.append(0.0 if difference == 0 else difference / max(error, 1e-9))
    return {
        "prompts": rows_per_prompt(plan),
        "contexts": pa.table({"planned": planned}),
        "shares": pa.table({"generator": list(shares), "standard_errors_off": off}),
    }


def response_views(responses: pa.Table, plan: pa.Table) -> dict[str, pa.Table]:
    """Views of one generator's responses: `plan` (how often each planned prompt was answered) and `totals`."""
    counts = dict(zip(*(c.to_pylist() for c in pc.value_counts(responses["prompt_id"]).flatten()), strict=True))
    text = pc.utf8_trim_whitespace(responses["response"])
    written = text.filter(pc.greater(pc.utf8_length(text), 0))
    rows = max(len(responses), 1)
    totals = {
        "blank_share": [1 - len(written) / rows if len(responses) else 0.0],
        "distinct_share": [len(pc.unique(written)) / len(written) if len(written) else 1.0],
    }
    answered = [counts.pop(prompt, 0) for prompt in plan["prompt_id"].to_pylist()]
    unplanned = [0] * len(counts)  # a response that nobody planned counts as wrong
    return {"plan": pa.table({"answered": answered + unplanned}), "totals": pa.table(totals)}


def pair_views(pairs: pa.Table, planned: int) -> dict[str, pa.Table]:
    """Views of pairs: `prompts` and `totals`; `planned` is the number of prompts planned."""
    kept = len(pc.unique(pairs["prompt_id"])) / planned if planned else 0.0
    return {"prompts": rows_per_prompt(pairs), "totals": pa.table({"kept_share": [kept]})}
