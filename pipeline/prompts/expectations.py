"""What must hold of conversations, candidates, topics, complexity and prompts before they are published."""

from collections.abc import Collection, Iterable, Sequence
from itertools import chain

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.prompts.filters import prompt_id
from pipeline.prompts.sampling import multi_turn_prompts
from pipeline.prompts.schema import CANDIDATES as CANDIDATE_COLUMNS
from pipeline.prompts.sources import ReadReport
from pipeline.prompts.topics import moved
from pipeline.rules import Rule
from pipeline.settings import PromptFilters, Prompts

_ID = Rule("prompt_once", "Each prompt appears exactly once.", "ExpectColumnValuesToBeUnique", {"column": "prompt_id"})
_SOME = Rule("some_rows", "The table has at least one row.", "ExpectTableRowCountToBeBetween", {"min_value": 1})
_LEVELS = Rule("in_range", "Every complexity lies between 1 and 5.", "ExpectColumnValuesToBeBetween",
               {"column": "complexity", "min_value": 1, "max_value": 5})  # fmt: skip
_RATED = Rule("rated", "Every prompt has a complexity.", "ExpectColumnValuesToNotBeNull", {"column": "complexity"})
_CONTENT = (
    Rule("id_of_content", "Every `prompt_id` is the hash of the prompt's own turns.", "ExpectColumnValuesToBeInSet",
         {"column": "own_id", "value_set": [True]}, view="contents"),
    Rule("turns_counted", "Every prompt has at least one user turn, and `n_turns` counts them.", "ExpectColumnValuesToBeInSet",
         {"column": "counted", "value_set": [True]}, view="contents"),
    Rule("language", "Every prompt is in the language that the profile asks for.", "ExpectColumnValuesToBeInSet",
         {"column": "wanted_language", "value_set": [True]}, view="contents"),
)  # fmt: skip

CONVERSATIONS = (
    Rule("conversation_once", "Each conversation appears exactly once.", "ExpectColumnValuesToBeUnique", {"column": "conversation_id"}),
    Rule("only_user_turns", "Every turn that is kept is the user's.", "ExpectColumnValuesToBeInSet",
         {"column": "role", "value_set": ["user"]}, view="turns"),
    Rule("every_source", "Every source gives at least one conversation. If one gives none, check its files and their form.",
         "ExpectColumnValuesToBeBetween", {"column": "kept", "min_value": 1}, view="sources"),
    Rule("well_formed", "At most one record in ten of a source is malformed. If more are, check its form (docs/own-data.md).",
         "ExpectColumnValuesToBeBetween", {"column": "malformed_share", "max_value": 0.1}, view="sources"),
    Rule("no_fault", "Every file of a source is read to its end. If a fault stops the reading, mend the file or remove it from the source.",
         "ExpectColumnValuesToBeNull", {"column": "fault"}, view="sources"),
    Rule("not_cut", "Every file of a source is complete. If one breaks off, fetch it again.", "ExpectColumnValuesToBeNull", {"column": "cut"},
         gating=False, view="sources"),
)  # fmt: skip

CANDIDATES = (
    _SOME,
    _ID,
    *_CONTENT,
    Rule("one_a_conversation", "Each conversation gives at most one candidate.", "ExpectColumnValuesToBeUnique", {"column": "conversation_id"}),
    Rule("some_kept", "At least one conversation in fifty gives a candidate. If fewer do, relax the filters or check the sources.",
         "ExpectColumnValuesToBeBetween", {"column": "kept_share", "min_value": 0.02}, view="totals"),
    Rule("all_accounted", "Every conversation is either a candidate or rejected.", "ExpectColumnValuesToBeInSet",
         {"column": "unaccounted", "value_set": [0]}, view="totals"),
)  # fmt: skip

TOPICS = (
    _ID,
    Rule("has_topic", "Every candidate has a topic.", "ExpectColumnValuesToNotBeNull", {"column": "topic"}),
    Rule("all_candidates", "The table has exactly the candidate prompts.", "ExpectColumnValuesToBeInSet",
         {"column": "missing_or_extra", "value_set": [0]}, view="totals"),
    Rule("topics_kept", "Every prompt keeps its topic and every topic its name, unless the profile's topics changed.",
         "ExpectColumnValuesToBeInSet", {"column": "moved_or_renamed", "value_set": [0]}, view="totals"),
    Rule("none_swallows", "No topic holds more than half of the candidates.", "ExpectColumnValuesToBeBetween",
         {"column": "largest_share", "max_value": 0.5}, gating=False, view="totals"),
)  # fmt: skip

COMPLEXITY = (
    _SOME,
    _ID,
    _LEVELS,
    _RATED,
    Rule("few_unrated", "At most one prompt in ten has no rating. If more have none, mend what refuses them; to ask a mended server again, "
         "change its `revision`.", "ExpectColumnValuesToBeBetween", {"column": "unrated_share", "max_value": 0.1}, view="totals"),
    Rule("spread", "At least three levels of complexity are in use.", "ExpectColumnUniqueValueCountToBeBetween",
         {"column": "complexity", "min_value": 3}, gating=False),
)  # fmt: skip

PROMPTS = (
    _ID,
    *_CONTENT,
    _LEVELS,
    _RATED,
    Rule("new", "No prompt is in another delivery, nor is a near-duplicate of one there.", "ExpectColumnValuesToBeInSet",
         {"column": "in_another", "value_set": [False]}, view="contents"),
    Rule("full", "The delivery has as many prompts as the profile asks for. If not, add conversations, relax the filters or ask for fewer prompts.",
         "ExpectColumnValuesToBeInSet", {"column": "missing", "value_set": [0]}, view="totals"),
    Rule("multi_turn_share", "The share of multi-turn prompts is the profile's, to rounding. If not, the pool has too few of one kind.",
         "ExpectColumnValuesToBeInSet", {"column": "multi_turn_off", "value_set": [0]}, gating=False, view="totals"),
    Rule("level_shares", "Levels of complexity follow the profile's weights to within one prompt. If not, the pool has too few prompts of a level.",
         "ExpectColumnValuesToBeBetween", {"column": "level_off", "max_value": 1}, gating=False, view="totals"),
    Rule("allowed", "Every prompt comes from a source of the profile, under that source's licence. If not, materialize the pool again.",
         "ExpectColumnValuesToBeInSet", {"column": "allowed", "value_set": [True]}, view="contents"),
    Rule("none_replaced", "Every prompt that the delivery had stays in it. If one is gone, the pool or sample changed, and annotators may have it.",
         "ExpectColumnValuesToBeInSet", {"column": "replaced", "value_set": [0]}, gating=False, view="totals"),
)  # fmt: skip


def conversation_views(roles: Collection[str], reports: Sequence[ReadReport]) -> dict[str, pa.Table]:
    """Views `turns` (the roles in use, a row each) and `sources` (kept, share of malformed records, where it breaks off or has a fault)."""
    sources = {
        "kept": [r.kept for r in reports],
        "malformed_share": [r.malformed / max(r.records, 1) for r in reports],
        "cut": pa.array([r.cut for r in reports], pa.string()),
        "fault": pa.array([r.fault for r in reports], pa.string()),
    }
    return {"turns": pa.table({"role": pa.array(sorted(roles), pa.string())}), "sources": pa.table(sources)}


def candidate_views(
    kept: Iterable[pa.RecordBatch], rejected: int, conversations: int, filters: PromptFilters
) -> dict[str, pa.Table]:
    """Views `contents` (a row a candidate) and `totals`; rejected, conversations: numbers of rows."""
    batches = (pa.table(batch) for batch in kept)
    empty = CANDIDATE_COLUMNS.empty_table()
    contents = pa.concat_tables(pa.table(_contents(part, filters.language)) for part in chain([empty], batches))
    share, missing = len(contents) / max(conversations, 1), conversations - len(contents) - rejected
    return {"contents": contents, "totals": pa.table({"kept_share": [share], "unaccounted": [missing]})}


def topic_views(
    topics: pa.Table, candidates: pa.Table, known: pa.Table, names: pa.ChunkedArray, known_names: pa.ChunkedArray
) -> dict[str, pa.Table]:
    """View `totals`: candidates missing or extra, prompts moved and topics renamed since they were known, share of the largest topic."""
    mine, theirs = (set(t["prompt_id"].to_pylist()) for t in (topics, candidates))
    largest = pc.max(pc.struct_field(pc.value_counts(topics["topic"]), "counts")).as_py() or 0
    renamed = sum(a != b for a, b in zip(known_names.to_pylist(), names.to_pylist(), strict=False))
    totals = {
        "missing_or_extra": [len(mine ^ theirs)],
        "moved_or_renamed": [moved(known, topics) + renamed + max(len(known_names) - len(names), 0)],
        "largest_share": [largest / max(len(topics), 1)],
    }
    return {"totals": pa.table(totals)}


def complexity_views(rated: pa.Table, unrated: pa.Table) -> dict[str, pa.Table]:
    """View `totals`: the share of the prompts that could not be rated."""
    return {"totals": pa.table({"unrated_share": [len(unrated) / max(len(rated) + len(unrated), 1)]})}


def prompt_views(prompts: pa.Table, taken: Collection[str], wanted: Prompts, replaced: int = 0) -> dict[str, pa.Table]:
    """Views `contents` (a row a prompt) and `totals` (what is missing or off the shares).

    taken: ids that other deliveries keep from this one. replaced: prompts that the delivery had before, and has no more.
    """
    contents = _contents(prompts, wanted.filters.language)
    contents["in_another"] = pc.is_in(prompts["prompt_id"], pa.array(list(taken), pa.string()))
    licences = {name: source.licence for name, source in wanted.sources.items()}
    pairs = zip(prompts["source"].to_pylist(), prompts["licence"].to_pylist(), strict=True)
    contents["allowed"] = pa.array([licences.get(source) == licence for source, licence in pairs], pa.bool_())
    multi = pc.sum(pc.greater(prompts["n_turns"], 1)).as_py() or 0
    levels, weights = _levels(prompts), np.array(wanted.sample.complexity_weights)
    totals: dict[str, list[float]] = {
        "replaced": [replaced],
        "missing": [wanted.sample.prompts - len(prompts)],
        "multi_turn_off": [multi - multi_turn_prompts(len(prompts), wanted.sample)],
        "level_off": [float(np.abs(levels - len(prompts) * weights / weights.sum()).max())],
    }
    return {"contents": pa.table(contents), "totals": pa.table(totals)}


def _levels(prompts: pa.Table) -> npt.NDArray[np.float64]:
    return np.array([pc.sum(pc.equal(prompts["complexity"], level)).as_py() or 0 for level in range(1, 6)], dtype=float)


def _contents(prompts: pa.Table, language: str) -> dict[str, pa.Array | pa.ChunkedArray]:
    own = pa.array([prompt_id(turns) for turns in prompts["turns"].to_pylist()], pa.string())
    lengths = pc.list_value_length(prompts["turns"])
    return {
        "own_id": pc.equal(prompts["prompt_id"], own),
        "counted": pc.and_(pc.equal(prompts["n_turns"], lengths), pc.greater(lengths, 0)),
        "wanted_language": pc.equal(prompts["language"], language),
    }
