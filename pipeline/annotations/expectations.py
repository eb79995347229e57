"""What must hold of tasks, annotations, labels and agreed tasks before they are published."""

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.annotations.consensus import spreads
from pipeline.rules import Rule
from pipeline.settings import DeskSection
from pipeline.vocabulary import ATTRIBUTES

_RANGES = tuple(
    Rule(f"{a}_in_range", f"Every value of {a} lies between 0 and 4.", "ExpectColumnValuesToBeBetween", {"column": a, "min_value": 0, "max_value": 4})
    for a in ATTRIBUTES
)  # fmt: skip

TASKS = (
    Rule(
        "prompt_once",
        "Each prompt appears in exactly one task.",
        "ExpectColumnValuesToBeUnique",
        {"column": "prompt_id"},
    ),
    Rule("some_tasks", "There is at least one task.", "ExpectTableRowCountToBeBetween", {"min_value": 1}),
    Rule(
        "first_response",
        "Every task has text as its first response.",
        "ExpectColumnValueLengthsToBeBetween",
        {"column": "response_1", "min_value": 1},
    ),
    Rule(
        "second_response",
        "Every task has text as its second response.",
        "ExpectColumnValueLengthsToBeBetween",
        {"column": "response_2", "min_value": 1},
    ),
)

ESCALATION = (
    Rule("response_once", "Each response is escalated at most once.", "ExpectColumnValuesToBeUnique", {"column": "response_id"}),
    Rule("wide_spread", "A response is escalated only where the first annotators' helpfulness ratings differ by more than the profile allows.",
         "ExpectColumnValuesToBeInSet", {"column": "wide", "value_set": [True]}, view="spreads"),
    Rule("few_escalated", "At most half of the responses are escalated. If more are, make the guidelines clearer.", "ExpectColumnValuesToBeBetween",
         {"column": "escalated_share", "max_value": 0.5}, gating=False, view="totals"),
)  # fmt: skip

_ANNOTATIONS = (
    *_RANGES,
    Rule("rated", "Every annotation has a rating of helpfulness.", "ExpectColumnValuesToNotBeNull", {"column": "helpfulness"}),
    Rule("annotator_named", "Every annotation names its annotator.", "ExpectColumnValuesToNotBeNull", {"column": "annotator_id"}),
    Rule("rates_once", "No annotator rates a response twice.", "ExpectCompoundColumnsToBeUnique",
         {"column_list": ["response_id", "annotator_id"]}),
    Rule("who_rated", "Every row names the profile's desk, and is marked `simulated` exactly where simulated annotators rate at that desk.",
         "ExpectColumnValuesToBeInSet", {"column": "otherwise", "value_set": [""]}, view="raters"),
)  # fmt: skip

INITIAL = (
    *_ANNOTATIONS,
    Rule("all_rated", "Every response has exactly the ratings that were asked for, less those that language models failed to give.",
         "ExpectColumnValuesToBeInSet", {"column": "missing", "value_set": [0]}, view="responses"),
    Rule("same_people", "The same annotators rate both responses to a prompt.", "ExpectColumnValuesToBeInSet",
         {"column": "same_people", "value_set": [True]}, gating=False, view="prompts"),
    Rule("little_quarantine", "At most one row in ten is in quarantine. If more are, read `quarantine.parquet` for the reasons.",
         "ExpectColumnValuesToBeBetween", {"column": "quarantined_share", "max_value": 0.1}, gating=False, view="totals"),
)  # fmt: skip

ANNOTATIONS = (
    *_ANNOTATIONS,
    Rule("all_rated", "Every response has exactly the ratings that both rounds asked for, less those that language models failed to give.",
         "ExpectColumnValuesToBeInSet", {"column": "missing", "value_set": [0]}, view="responses"),
    Rule("little_quarantine", "At most one row in ten is in quarantine. If more are, read `quarantine.parquet` for the reasons.",
         "ExpectColumnValuesToBeBetween", {"column": "quarantined_share", "max_value": 0.1}, gating=False, view="totals"),
)  # fmt: skip

LABELS = (
    *_RANGES,
    Rule("response_once", "Each response has exactly one row of labels.", "ExpectColumnValuesToBeUnique", {"column": "response_id"}),
    Rule("labelled", "Every response has a helpfulness label.", "ExpectColumnValuesToNotBeNull", {"column": "helpfulness"}),
    Rule("kept_at_most", "No attribute of a response keeps more ratings than the profile's `keep`.", "ExpectColumnValuesToBeInSet",
         {"column": "too_many", "value_set": [False]}, view="kept"),
)  # fmt: skip

AGREED = (
    *_RANGES,
    Rule("two_responses", "Every task has both of its responses.", "ExpectColumnValuesToBeInSet", {"column": "rows", "value_set": [2]},
         view="prompts"),
    Rule("small_spread", "The kept helpfulness ratings of a response differ by no more than the profile's `max_spread`.",
         "ExpectColumnValuesToBeInSet", {"column": "within", "value_set": [True]}, view="spreads"),
    Rule("some_agreed", "At least one task is left on which the annotators agree.", "ExpectTableRowCountToBeBetween", {"min_value": 2}),
    Rule("most_agreed", "At least three tasks in four are kept; HelpSteer2 keeps about nine in ten.", "ExpectColumnValuesToBeBetween",
         {"column": "kept_share", "min_value": 0.75}, gating=False, view="totals"),
)  # fmt: skip

AGREEMENT = (
    Rule("complete", "The table has one row for each attribute and stage.", "ExpectTableRowCountToBeBetween",
         {"min_value": 3 * len(ATTRIBUTES), "max_value": 3 * len(ATTRIBUTES)}),
    Rule("kappa_in_range", "Every kappa lies between -1 and 1.",
         "ExpectColumnValuesToBeBetween", {"column": "kappa", "min_value": -1, "max_value": 1}),
    Rule("kappa_defined", "Every kappa is defined. If one is not, the annotators used a single level for that attribute.",
         "ExpectColumnValuesToNotBeNull", {"column": "kappa"},
         gating=False),
    Rule("above_chance", "The kappa of helpfulness is higher than the one that the selection alone gives to shuffled ratings.",
         "ExpectColumnPairValuesAToBeGreaterThanB", {"column_A": "kappa", "column_B": "kappa_null"}, gating=False, view="helpfulness"),
)  # fmt: skip


def initial_views(annotations: pa.Table, wanted: pa.Table, quarantined: int) -> dict[str, pa.Table]:
    """Views `responses` (ratings missing of each; negative: too many), `prompts` (same people for both), `totals`."""
    both = (
        annotations.to_pandas()
        .groupby(["prompt_id", "response_id"])["annotator_id"]
        .agg(lambda ids: tuple(sorted(ids)))
    )
    same = both.groupby("prompt_id").nunique() == 1
    return {**_counts(annotations, {r["response_id"]: r["ratings"] for r in wanted.to_pylist()}, quarantined),
            "prompts": pa.table({"same_people": same.to_numpy()})}  # fmt: skip


def annotation_views(
    annotations: pa.Table, asked: pa.Table, above: int, extra: int, quarantined: int
) -> dict[str, pa.Table]:
    """Views `responses` (ratings missing: those asked for at first, and `extra` more where these differ by more than `above`) and `totals`."""
    first = spreads(annotations.filter(pc.equal(annotations["round"], 1)))
    wide = set(first["response_id"].filter(pc.fill_null(pc.greater(first["spread"], above), False)).to_pylist())
    wanted = {r["response_id"]: r["ratings"] + extra * (r["response_id"] in wide) for r in asked.to_pylist()}
    return _counts(annotations, wanted, quarantined)


def rater_views(collected: pa.Table, desk: DeskSection) -> dict[str, pa.Table]:
    """View `raters`: what a row says of who rated, where its desk says otherwise, else "". collected: what the desk gave, schema ANNOTATIONS."""
    simulated = pc.equal(collected["simulated"], desk.rated_by == "simulated annotators")
    alike = pc.fill_null(pc.and_(pc.equal(collected["desk"], desk.kind), simulated), False)
    named, flag = (pc.fill_null(pc.cast(collected[name], pa.string()), "null") for name in ("desk", "simulated"))
    says = pc.binary_join_element_wise("desk ", named, ", simulated ", flag, "")
    return {"raters": pa.table({"otherwise": pc.if_else(alike, "", says)})}


def _counts(annotations: pa.Table, wanted: dict[str, int], quarantined: int) -> dict[str, pa.Table]:
    counts = dict(zip(*(c.to_pylist() for c in pc.value_counts(annotations["response_id"]).flatten()), strict=True))
    missing = [n - counts.pop(response, 0) for response, n in wanted.items()] + [-n for n in counts.values()]
    share = quarantined / max(quarantined + len(annotations), 1)
    return {
        "responses": pa.table({"missing": pa.array(missing, pa.int64())}),
        "totals": pa.table({"quarantined_share": [share]}),
    }


def escalation_views(wanted: pa.Table, responses: int, above: int) -> dict[str, pa.Table]:
    """Views `spreads` (is each wide enough) and `totals` (share of responses escalated)."""
    return {
        "spreads": pa.table({"wide": pc.greater(wanted["spread"], above)}),
        "totals": pa.table({"escalated_share": [len(wanted) / max(responses, 1)]}),
    }


def label_views(labels: pa.Table, keep: int) -> dict[str, pa.Table]:
    """View `kept`: does an attribute of a response have more ratings than kept."""
    return {
        "kept": pa.table(
            {"too_many": pa.chunked_array([pc.greater(labels[f"{a}_n"].combine_chunks(), keep) for a in ATTRIBUTES])}
        )
    }


def agreed_views(agreed: pa.Table, max_spread: int, tasks: int) -> dict[str, pa.Table]:
    """Views `prompts` (rows of each), `spreads` (of the kept helpfulness votes, within the limit) and `totals` (share of tasks kept)."""
    votes = [[level for level, n in enumerate(row) if n] for row in agreed["helpfulness_votes"].to_pylist()]
    within = [bool(levels) and levels[-1] - levels[0] <= max_spread for levels in votes]
    rows = agreed.group_by("prompt_id").aggregate([([], "count_all")]).rename_columns(["prompt_id", "rows"])
    return {
        "prompts": rows,
        "spreads": pa.table({"within": pa.array(within, pa.bool_())}),
        "totals": pa.table({"kept_share": [len(rows) / max(tasks, 1)]}),
    }


def agreement_views(table: pa.Table) -> dict[str, pa.Table]:
    """View `helpfulness`: its rows alone. table: schema AGREEMENT."""
    return {"helpfulness": table.filter(pc.equal(table["attribute"], "helpfulness"))}
