"""What a record of a conversation looks like, as teams and public data sets write them, and its turns: the user's alone, or all of them.

- a list of turns in a field of LISTS, or that list as JSON in a text; a turn says who speaks in a field of WHO, and what in one of WHAT
  (ShareGPT, OpenAI's messages, WildChat, LMSYS-Chat-1M, Claude's export; of Chatbot Arena's two conversations the first);
- `mapping`, nodes by id: the path to `current_node` (ChatGPT's export);
- `prompt` as a message with `replies`: at each the reply of the least rank (OASST's trees);
- `turns` or `prompt` as a list of texts, all of them the user's (MT-Bench, Arena);
- `prompt`, `instruction` with `input` or `context` below it (Alpaca, Dolly), `question` or `query`, as a text; earlier pairs in `history`.

Fields and roles may be in any case. Where a record has several, the first that looks like turns counts, in the order in which they
stand here. Where all turns are wanted, the answer to a prompt stands in a field of ANSWERS, and what the system says in one of SYSTEMS
(nvidia/Daring-Anteater, OpenOrca) or in a turn.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, NamedTuple

from pipeline.forms.renamed import renamed
from pipeline.prompts.trees import first_replies, paths, to_current
from pipeline.records import storable
from pipeline.texts.scraped import seen_text

NAME = re.compile(r"\w[\w-]{0,30}")
"""A role or field that may be shown; anything else in its place could be text of anyone."""

LISTS = ("conversations", "messages", "conversation", "dialogue", "dialog", "chat", "chat_messages", "items", "turns",
         "conversation_a", "conversation_b")  # fmt: skip
TEXTS = ("turns", "prompt")
"""Fields whose list may be of texts, or of turns that don't say who speaks: all are the user's."""
ALONE = ("prompt", "instruction", "question", "query")
ANSWERS = ("response", "output", "completion", "answer")
"""Fields of the answer to a prompt that stands alone."""
SYSTEMS = ("system", "system_prompt")
"""Fields of what the system says, where no turn does."""
OF_TURNS = ("role", "content")
"""Fields of a turn that a source's `columns` may name."""
WHO = ("role", "from", "speaker", "author", "sender", "name")
WHAT = ("content", "value", "text", "message", "utterance", "body")
_FROM = (("from", "role", *WHO[2:]), ("value", "content", *WHAT[2:]))
"""WHO and WHAT in the field `conversations`."""

USER, ASSISTANT, SYSTEM = "user", "assistant", "system"
TOOLS = frozenset(
    "tool tools function function_call function_response function_result tool_call tool_calls tool_response tool_result tool_results "
    "tool_output observation ipython".split()
)
"""Words for what a tool is asked, and answers."""
_CALLS = ("tool_calls", "function_call")
"""Fields of an assistant's turn that asks a tool."""
_WORDS = {
    USER: "human user prompter customer client",
    ASSISTANT: "gpt assistant chatgpt bing bard bot chatbot model ai llm claude gemini copilot llama mistral palm grok deepseek qwen vicuna "
    "agent support " + " ".join(TOOLS),
    SYSTEM: "system developer",
}
ROLES = {word: kind for kind, words in _WORDS.items() for word in words.split()}
"""Who speaks, by the word for it. What a tool is asked and answers counts as an assistant's. A customer asks as a user does, and support or an
agent answers; where other people talk to each other, no one is an assistant, and their roles are unknown here."""
_MODEL = re.compile(r"(?:chat)?gpt|claude|gemini|llama|mistral|deepseek|qwen|vicuna|grok|palm")
"""How names of models begin that stand for the assistant: gpt-4, claude-3-opus."""

_OBJECTS = re.compile(r"\s*\[\s*\{\s*\"")
_NONE: Mapping[str, str] = {}


class UnusableError(ValueError):
    """A record that gives no conversation; `reason` is its short name."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class Found(NamedTuple):
    """The turns of a record: the shape, they as they stand there, and the fields of a turn, the first of which counts.

    users: whether a turn that doesn't say who speaks, or is a text by itself, is the user's. alone: whether it is a prompt, whose answer would
    stand in another field. root: of a tree, of which the turns are one path.
    """

    shape: str
    turns: Sequence[Any]
    who: tuple[str, ...] = WHO
    what: tuple[str, ...] = WHAT
    users: bool = False
    alone: bool = False
    root: Mapping[str, Any] | None = None


class Asked(NamedTuple):
    """The user's turns of a conversation, its shape with the fields of a turn, and how many of these turns were HTML."""

    turns: list[str]
    shape: str
    html: int


class Whole(NamedTuple):
    """A conversation as messages: the system's first, if it says anything, then the user's and the assistant's by turns.

    shape: with the fields of a turn. html: how many of the turns were HTML. joined: how many were joined with the one before, of the same side.
    """

    messages: list[dict[str, str]]
    shape: str
    html: int
    joined: int


def turns_of(record: Any, columns: Mapping[str, str] = _NONE) -> Found:
    """The turns of a record. columns: of a source; where it names a field that holds the conversation, no other is looked at.

    Raises `UnusableError` where the record holds no conversation in a shape that is known.
    """
    if not isinstance(record, Mapping):
        raise UnusableError("not_a_record", f"the record is a {type(record).__name__}, not an object")
    wanted = {ours: theirs for ours, theirs in columns.items() if ours not in OF_TURNS}
    given = renamed(record, wanted) if wanted else record
    given = {name: value for name, value in given.items() if name in wanted} if wanted else given
    called = {ours: columns[ours] for ours in OF_TURNS if ours in columns}
    found = _found_in(given, called)
    if not found and not wanted and any(str(name) != str(name).lower() for name in record):
        given = {str(name).lower(): value for name, value in record.items()}
        found = _found_in(given, called)
    if not found:
        raise UnusableError("no_conversation", _nothing(record, given, wanted))
    if not called:
        return found
    who, what = ((name,) if name in called else None for name in OF_TURNS)
    return found._replace(turns=_called(found.turns, called), who=who or found.who, what=what or found.what)


def paths_of(found: Found, columns: Mapping[str, str] = _NONE) -> Iterator[Found]:
    """The conversations of a record: of a tree every path from its root to a reply without replies, else the one.

    columns: those that `turns_of` was given.
    """
    if found.root is None:
        yield found
        return
    called = {ours: columns[ours] for ours in OF_TURNS if ours in columns}
    for path in paths(found.root):
        yield found._replace(turns=_called(path, called))


def user_turns(found: Found) -> Asked:
    """The user's turns, in order. Raises `UnusableError` where it is no conversation that a user began."""
    turns, fields, html = list[str](), "", 0
    for n, turn in enumerate(found.turns, start=1):
        who, kind = _speaker(turn, found, n)
        if kind == USER:
            what, text, was_html = _said(turn, found, n)
            fields = fields or (f"{who}, {what}" if who else what)
            turns.append(text)
            html += was_html
        elif kind == ASSISTANT and not turns:
            raise UnusableError("starts_mid_conversation", "an assistant turn comes before the first user turn")
    if not turns:
        raise UnusableError("no_user_turn", "the conversation has no turn of a user")
    return Asked(turns, f"{found.shape}: {fields}" if fields else found.shape, html)


def all_turns(record: Mapping[str, Any], found: Found) -> Whole:
    """All turns of a conversation, in order. record: the one in which it was found.

    Turns of one side that follow each other are joined, by an empty line. Raises `UnusableError` where it is no conversation that a user
    began, has a blank turn, or has turns that a model is not to learn to write or can't be asked with: a tool's, or the system's later on.
    """
    said, fields, html, joined = list[dict[str, str]](), "", 0, 0
    answers = _answers(record, found) if found.alone else [None] * len(found.turns)
    for n, (turn, answer) in enumerate(zip(found.turns, answers, strict=True), start=1):
        who, kind = _speaker(turn, found, n)
        begun = bool(said) and said[-1]["role"] != SYSTEM
        if kind == ASSISTANT and _is_tools(turn, found):
            raise UnusableError("tool_turn", f"turn {n} is a tool's, or asks one")
        if kind == ASSISTANT and not begun:
            raise UnusableError("starts_mid_conversation", "an assistant turn comes before the first user turn")
        if kind == SYSTEM and begun:
            raise UnusableError("later_system_turn", f"turn {n} is the system's, after the conversation has begun")
        what, text, was_html = _said(turn, found, n)
        fields = fields or (f"{who}, {what}" if who else what)
        html += was_html
        joined += _add(said, kind, text, n)
        if answer is not None:
            joined += _add(said, ASSISTANT, answer, n)
    if not any(message["role"] == USER for message in said):
        raise UnusableError("no_user_turn", "the conversation has no turn of a user")
    if said[0]["role"] != SYSTEM and (system := _system(record)):
        said.insert(0, {"role": SYSTEM, "content": system})
    return Whole(said, f"{found.shape}: {fields}" if fields else found.shape, html, joined)


def ends_answered(found: Found) -> bool:
    """Whether the last turn is an assistant's."""
    try:
        return bool(found.turns) and _speaker(found.turns[-1], found, len(found.turns))[1] == ASSISTANT
    except UnusableError:
        return False


# ------------------------------------------------------------------------------------------------------------------------- records


def _found_in(record: Mapping[str, Any], called: Mapping[str, str]) -> Found | None:
    """The turns of a record; a list that doesn't look like turns only where there is nothing else. called: what a turn's fields are called."""
    lists = (
        (name, turns)
        for name in LISTS
        if (value := record.get(name)) is not None and (turns := _list_of(value)) is not None
    )
    odd: Found | None = None
    for name, turns in lists:
        found = _in_field(name, turns)
        if turns and _is_turn(turns[0], found, called):
            return found
        odd = odd or found
    nodes = record.get("mapping")
    if isinstance(nodes, Mapping) and nodes:
        return Found("mapping", to_current(record))
    return _alone(record) or odd


def _is_turn(turn: Any, found: Found, called: Mapping[str, str]) -> bool:
    if not isinstance(turn, Mapping):
        return found.users and isinstance(turn, str)
    if found.who[0] in turn:
        return True
    who = called["role"].partition(".")[0].lower() if "role" in called else None
    return any(name == who or name in found.who for name in (str(name).lower() for name in turn))


def _in_field(name: str, turns: list[Any]) -> Found:
    """Turns that stand in a field as a list."""
    who, what = _FROM if name == "conversations" else (WHO, WHAT)
    if name not in TEXTS:
        return Found(name, turns, who, what)
    return Found(f"{name}: texts" if turns and isinstance(turns[0], str) else name, turns, who, what, users=True)


def _list_of(value: Any) -> list[Any] | None:
    """A list, or the one that a text holds as JSON, as in CSV."""
    if isinstance(value, str) and value.lstrip()[:1] == "[":
        with suppress(ValueError, RecursionError):
            value = json.loads(value)
    return value if isinstance(value, list) else None


def _alone(record: Mapping[str, Any]) -> Found | None:
    prompt = record.get("prompt")
    if isinstance(prompt, Mapping):
        return Found("tree of replies", first_replies(prompt), root=prompt)
    turns = _list_of(prompt) if _is_list(prompt) or record.get("response_a") is not None else None
    if turns is not None:
        return _in_field("prompt", turns)._replace(alone=True)
    name = next((name for name in ALONE if isinstance(record.get(name), str)), None)
    if name is None:
        return None
    more = next((m for m in ("input", "context") if isinstance(t := record.get(m), str) and t.strip()), None)
    text, shape = record[name], name
    if name == "instruction" and more:
        text, shape = f"{text}\n\n{record[more]}", f"{name}, {more}"
    before = [pair[0] for pair in _pairs(record)]
    return Found(f"{shape}, history" if before else shape, [*before, text], users=True, alone=True)


def _pairs(record: Mapping[str, Any]) -> list[list[Any]]:
    """What was asked and answered before a prompt."""
    return [pair for pair in _list_of(record.get("history")) or () if isinstance(pair, list) and pair]


def _answers(record: Mapping[str, Any], found: Found) -> list[str | None]:
    """The answer to each turn of a prompt, as far as the record has it in fields of its own. Raises `UnusableError` where one is no text."""
    fields = {str(name).lower(): value for name, value in record.items()}
    pairs, earlier = _pairs(fields), len(found.turns) - 1
    given = [pair[1] if len(pair) > 1 else None for pair in pairs] if len(pairs) == earlier else [None] * earlier
    given += [next((fields[name] for name in ANSWERS if fields.get(name) is not None), None)] if found.turns else []
    return [None if answer is None else _answer(answer, n) for n, answer in enumerate(given, start=1)]


def _answer(answer: Any, n: int) -> str:
    """The text of an answer, which may be an assistant's one message (TRL's `completion`)."""
    if isinstance(answer, list) and len(answer) == 1 and isinstance(answer[0], Mapping):
        role, answer = answer[0].get("role"), answer[0].get("content")
        if role != ASSISTANT:
            raise UnusableError("bad_turn", f"the answer to turn {n} is not the assistant's")
    if not isinstance(answer, str):
        raise UnusableError("bad_turn", f"the answer to turn {n} is a {type(answer).__name__}, not text")
    return _seen(answer)[0]


def _system(record: Mapping[str, Any]) -> str | None:
    """What the system says, in a field of its own; None for nothing."""
    fields = {str(name).lower(): value for name, value in record.items()}
    said = next((fields[name] for name in SYSTEMS if isinstance(fields.get(name), str)), "")
    return storable(said) if said.strip() else None


def _is_list(value: Any) -> bool:
    """Whether a value is a list, or a text that is one of objects in JSON: a user's text seldom begins so."""
    return isinstance(value, list) or (isinstance(value, str) and bool(_OBJECTS.match(value)))


def _nothing(record: Mapping[str, Any], given: Mapping[str, Any], wanted: Mapping[str, str]) -> str:
    """Why a record holds no conversation, the names of its fields, and what to do."""
    odd = next((name for name in (*LISTS, *ALONE) if given.get(name) is not None), None)
    if odd:
        kind = type(given[odd]).__name__
        text = "nor JSON of one" if odd in LISTS else "nor a text"
        return f"`{wanted.get(odd, odd)}` is a {kind}, not a list {text}"
    filled = [name for name, value in record.items() if value is not None]
    names = [name for name in map(str, filled) if NAME.fullmatch(name)]
    seen = f"its fields are: {', '.join(names[:20])}"
    if wanted:
        return f"the record has none of the fields that `columns` names for {', '.join(wanted)}; {seen}"
    field = next((n for n in names if isinstance(record.get(n), list)), None)
    example = f"messages: {field}" if field else f"prompt: {_texts(record, names)}"
    return f"the record has no field of a conversation; {seen}; name the one that holds it in the source: `columns: {{{example}}}`"


def _texts(record: Mapping[str, Any], names: Sequence[str]) -> str:
    """The field that may hold a prompt: the first with a text of several words, else the first with any."""
    texts = [name for name in names if isinstance(record.get(name), str)]
    return next((name for name in texts if " " in record[name]), texts[0] if texts else "FIELD")


# --------------------------------------------------------------------------------------------------------------------------- turns


def _speaker(turn: Any, found: Found, n: int) -> tuple[str, str]:
    """Field that says who speaks, and who it is: USER, ASSISTANT or SYSTEM."""
    if type(turn) is dict:  # what most turns are, at once
        who = found.who[0]
        role = turn.get(who)
        if type(role) is str and (kind := ROLES.get(role)):
            return who, kind
    if not isinstance(turn, Mapping):
        if found.users and isinstance(turn, str):
            return "", USER
        raise UnusableError("bad_turn", f"turn {n} is a {type(turn).__name__}, not an object")
    who, role = _first(turn, found.who)
    if isinstance(role, Mapping):  # ChatGPT's `author`
        role = role.get("role")
    if role is None:
        if found.users:
            return "", USER
        raise UnusableError("bad_turn", _lacks(turn, n, found.who, "who speaks", "role"))
    kind = _kind(role) if isinstance(role, str) else None
    if kind is None:
        named = (
            who in ("role", "from") and isinstance(role, str) and NAME.fullmatch(role)
        )  # else it may be a person's name
        shown = repr(role) if named else f"a {type(role).__name__}"
        raise UnusableError("bad_turn", f"turn {n}: `{who}` is {shown}, which is not a known role")
    return who, kind


def _kind(role: str) -> str | None:
    """Who speaks, by a word in any case, with spaces or hyphens, or by a model's name."""
    word = _word(role)
    return ROLES.get(word) or (ASSISTANT if _MODEL.match(word) else None)


@lru_cache(1 << 10)
def _word(role: str) -> str:
    return re.sub(r"[\s-]+", "_", role.strip().lower())


def _called(turns: Sequence[Any], called: Mapping[str, str]) -> list[Any]:
    """Turns with their fields under our names. called: what a turn's fields are called."""
    return [renamed(turn, called) if isinstance(turn, Mapping) and called else turn for turn in turns]


def _is_tools(turn: Any, found: Found) -> bool:
    """Whether an assistant's turn is what a tool is asked, or answers."""
    if not isinstance(turn, Mapping):
        return False
    _, role = _first(turn, found.who)
    role = role.get("role") if isinstance(role, Mapping) else role
    return (isinstance(role, str) and _word(role) in TOOLS) or any(turn.get(name) for name in _CALLS)


def _said(turn: Any, found: Found, n: int) -> tuple[str, str, bool]:
    """Field that says what is said, the text, and whether it was HTML that a scraper left."""
    what, text = ("", turn) if isinstance(turn, str) else _first(turn, found.what)
    return what, *_seen(text if isinstance(text, str) else _text(turn, text, what, n))


def _seen(text: str) -> tuple[str, bool]:
    """A text as a person saw it, and whether it was HTML that a scraper left."""
    seen = seen_text(text)
    return storable(text if seen is None else seen), seen is not None


def _add(said: list[dict[str, str]], role: str, text: str, n: int) -> bool:
    """Add a turn to a conversation, to the last message where that is of the same side; whether that is so."""
    if not text.strip():
        if role == SYSTEM:
            return False
        raise UnusableError("blank_turn", f"turn {n}, or the answer to it, is blank")
    if said and said[-1]["role"] == role:
        said[-1]["content"] += f"\n\n{text}"
        return True
    said.append({"role": role, "content": text})
    return False


def _first(turn: Mapping[str, Any], names: tuple[str, ...]) -> tuple[str, Any]:
    """The first of these fields that has a value, and it; None for none."""
    for name in names:
        if (value := turn.get(name)) is not None:
            return name, value
    lowered = {str(name).lower(): value for name, value in turn.items()}
    return next(((name, lowered[name]) for name in names if lowered.get(name) is not None), (names[0], None))


def _text(turn: Mapping[str, Any], said: Any, what: str, n: int) -> str:
    """The text of a turn that isn't one by itself: parts of it, in a list or as ChatGPT's export has them."""
    if isinstance(said, Mapping) and isinstance(said.get("parts"), list):
        said = said["parts"]
    if isinstance(said, list):
        return _joined(said, n)
    if said is None:
        raise UnusableError("bad_turn", _lacks(turn, n, WHAT, "what is said", "content"))
    raise UnusableError("bad_turn", f"turn {n}: `{what}` is a {type(said).__name__}, not text")


def _joined(parts: list[Any], turn: int) -> str:
    """The text of a turn that is given in parts, as OpenAI's messages may be. Raises `UnusableError` where one is no text."""
    said = [part if isinstance(part, str) else _part(part) for part in parts]
    texts = [text for text in said if isinstance(text, str)]
    if not texts or len(texts) < len(parts):
        raise UnusableError("not_text", f"turn {turn} has parts that are not text, for example images")
    return "\n".join(texts)


def _part(part: Any) -> Any:
    return part.get("text") if isinstance(part, Mapping) and part.get("type") in ("text", "input_text") else None


def _lacks(turn: Mapping[str, Any], n: int, names: Sequence[str], what: str, field: str) -> str:
    fields = ", ".join([name for name in map(str, turn) if NAME.fullmatch(name)][:20])
    return (
        f"turn {n} has none of the fields {', '.join(names)}; its fields are: {fields}; name the one that says {what} in the source: "
        f"`columns: {{{field}: FIELD}}`"
    )
