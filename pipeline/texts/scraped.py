"""HTML that a scraper left in a text, made the text that a person saw. Nothing in it is run or fetched."""

import re
from html.parser import HTMLParser

_BLOCKS = frozenset(
    "article blockquote dd div dl dt figure h1 h2 h3 h4 h5 h6 hr li ol p pre section table tbody tfoot thead tr ul".split()
)
_INLINE = frozenset(
    "a abbr b br cite code del em figcaption i img ins kbd mark q s samp small span strong sub sup td th tt u var".split()
)
_DROPPED = frozenset("button script style svg template title".split())
_VOID = frozenset("br hr img".split())
_TIGHT = frozenset("dd div dl dt li tbody tfoot thead tr".split())
"""Blocks that a line break parts from what is around them; the others have a blank line there."""
_ATTRIBUTES = frozenset(
    "align alt cite colspan dir height href lang rel rowspan src start target title type width".split()
)
_CLASSED = frozenset("a code img pre span".split())
"""Tags that may also have a class: a highlighter's, say."""

_BEGIN = re.compile(rf"<({'|'.join(sorted(_BLOCKS))})\b[^<>]*>", re.IGNORECASE)
_END = re.compile(rf"</({'|'.join(sorted(_BLOCKS))})\s*>", re.IGNORECASE)
_PAGE = re.compile(r"""<div\b[^<>]*\bclass\s*=\s*["'][^"'<>]*\bmarkdown\b""", re.IGNORECASE)
LONGEST = 100_000
"""Characters from which on a text is left as it is: no prompt is so long."""


def seen_text(text: str) -> str | None:
    """What a person saw of a text that is plainly HTML which a scraper left, as plain text; None for any other text.

    Plainly, where all of it is: it begins with the tag of a block (<p>, <ul>, <div> ...) and ends with that of one, no words stand between
    the blocks, and its tags are those of running text, without the attributes that a page's author gives them (class, id, style, on...).
    Or it begins as the answers on ChatGPT's page do, <div class="markdown ...">. Code that a user asks about is therefore kept as it is.
    Blocks become lines, items of lists begin with "- " or their number, the white space of <pre> stays; scripts and styles are left out.
    """
    if not text[:1].isspace() and text[:1] != "<":
        return None
    bare = text.strip()
    if not bare.startswith("<") or not bare.endswith(">") or len(bare) > LONGEST or not _BEGIN.match(bare):
        return None
    if not _END.fullmatch(bare, bare.rfind("<")):
        return None
    reader = _Reader()
    try:
        reader.feed(bare)
        reader.close()
    except AssertionError:  # as the parser says that a declaration is none
        return None
    return reader.text if reader.plain or _PAGE.match(bare) else None


class _Reader(HTMLParser):
    """Reads HTML into text. plain: whether it is a scraper's, as `seen_text` says."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.plain = True
        self._said: list[str] = []
        self._breaks = 0  # line breaks before the next words
        self._begun = False  # an item of a list has its mark, and no words yet
        self._open = self._pre = self._dropped = self._cells = 0
        self._lists: list[int | None] = []  # numbers of the next items; None where they have none

    @property
    def text(self) -> str:
        """The text that was read."""
        return "".join(self._said).strip()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take a tag that opens."""
        allowed = _ATTRIBUTES | {"class"} if tag in _CLASSED else _ATTRIBUTES
        if tag not in _BLOCKS | _INLINE | {"script", "style"} or any(name not in allowed for name, _ in attrs):
            self.plain = self.plain and tag in ("script", "style")
        self._open += tag not in _VOID
        self._dropped += tag in _DROPPED
        if tag in ("ul", "ol"):
            start = next((value for name, value in attrs if name == "start"), None) or ""
            self._lists.append((int(start) if start.isdecimal() and len(start) < 6 else 1) if tag == "ol" else None)
        self._around(tag)
        if tag == "li":
            self._item()
        elif tag == "tr":
            self._cells = 0
        elif tag in ("td", "th"):
            self._say(" | " if self._cells else "")
            self._cells += 1
        elif tag == "br":
            self._breaks = min(self._breaks + 1, 2)
        self._pre += tag == "pre"

    def handle_endtag(self, tag: str) -> None:
        """Take a tag that closes."""
        self._open = max(self._open - (tag not in _VOID), 0)
        self._dropped = max(self._dropped - (tag in _DROPPED), 0)
        self._pre = max(self._pre - (tag == "pre"), 0)
        if tag in ("ul", "ol") and self._lists:
            self._lists.pop()
        self._begun = self._begun and tag != "li"
        self._around(tag)

    def handle_data(self, data: str) -> None:
        """Take words."""
        if not self._open and data.strip():
            self.plain = False
        if self._dropped:
            return
        if self._pre:
            self._say(data.removeprefix("\n") if self._breaks else data)
        elif words := re.sub(r"[ \t\r\n\f]+", " ", data):
            parted = self._breaks or not self._said or self._said[-1].endswith((" ", "\n"))
            self._say(words.lstrip(" ") if parted else words)

    def _around(self, tag: str) -> None:
        """Part a block from what is around it; within a list only its items are parted."""
        if tag in _BLOCKS and not self._begun:
            self._breaks = max(self._breaks, 1 if tag in _TIGHT or (self._lists and tag in ("ul", "ol")) else 2)

    def _item(self) -> None:
        number = self._lists[-1] if self._lists else None
        if number is not None:
            self._lists[-1] = number + 1
        self._say("  " * (len(self._lists) - 1) + ("- " if number is None else f"{number}. "))
        self._begun = True

    def _say(self, words: str) -> None:
        if not words:
            return
        if self._breaks and self._said:
            self._said[-1] = self._said[-1].rstrip(" \n")
            self._said.append("\n" * self._breaks)
        self._breaks, self._begun = 0, False
        self._said.append(words)
