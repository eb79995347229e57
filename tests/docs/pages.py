"""The README and the pages of docs/ as data: fenced blocks, inline code, headings, links."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
README = PROJECT / "README.md"
PAGES = (README, *sorted((PROJECT / "docs").glob("*.md")))
FENCE = re.compile(r"^```(\S*)\s*$")
INLINE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} +(.+?) *$")


@dataclass(frozen=True)
class Code:
    """A fenced block, or a piece of inline code (language ""), with the page and the line where its text begins."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def lines(page: Path) -> Iterator[tuple[int, str, str | None]]:
    """Number and text of each line, and the language of the fenced block that it is in; None of prose. Fences are left out."""
    inside: str | None = None
    for number, text in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        fence = FENCE.match(text)
        if fence:
            inside = fence[1] if inside is None else None
        else:
            yield number, text, inside
    assert inside is None, f"{page.name}: its last fenced block has no end"


def blocks(page: Path) -> list[Code]:
    """The fenced blocks of a page."""
    found: list[Code] = []
    last = 0
    for number, text, language in lines(page):
        if language is None:
            continue
        if found and number == last + 1:
            found[-1] = Code(page, found[-1].line, language, f"{found[-1].text}{text}\n")
        else:
            found.append(Code(page, number, language, f"{text}\n"))
        last = number
    return found


def inline(page: Path) -> list[Code]:
    """The inline code of a page."""
    return [
        Code(page, n, "", code)
        for n, text, language in lines(page)
        if language is None
        for code in INLINE.findall(text)
    ]


def links(page: Path) -> list[tuple[int, str]]:
    """Line and target of each link that stands in prose."""
    prose = ((n, INLINE.sub("", text)) for n, text, language in lines(page) if language is None)
    return [(n, target) for n, text in prose for target in LINK.findall(text)]


def anchors(page: Path) -> set[str]:
    """What a link may name after `#`: the headings, as GitHub writes them."""
    found: list[str] = []
    for _, text, language in lines(page):
        heading = HEADING.match(text) if language is None else None
        if heading:
            words = LINK.sub(lambda m: m[0][1 : m[0].index("]")], heading[1])
            slug = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
            before = sum(re.fullmatch(rf"{re.escape(slug)}(-\d+)?", other) is not None for other in found)
            found.append(f"{slug}-{before}" if before else slug)
    return set(found)
