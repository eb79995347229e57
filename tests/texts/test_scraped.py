"""HTML that a scraper left, and what a user asks about HTML."""

import html

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.texts.scraped import LONGEST, seen_text


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("<p>Why is the sky &lt;blue&gt;?</p>", "Why is the sky <blue>?"),
        (" <P>One</P>\n<p>two<br>three <b>four</b>\n five</p>\n", "One\n\ntwo\nthree four five"),
        ("<p>These:</p><ul><li>one</li><li><p>two</p></li><li>three<ol><li>a</li><li>b</li></ol></li></ul>",
         "These:\n\n- one\n- two\n\n- three\n  1. a\n  2. b"),
        ('<ol start="3"><li>c</li><li>d</li></ol>', "3. c\n4. d"),
        ('<p>What does <code>ls</code> do here?</p><pre class="lang-sh"><code>\nfor x in y:\n    ls  x\n</code></pre><p>Why?</p>',
         "What does ls do here?\n\nfor x in y:\n    ls  x\n\nWhy?"),
        ('<div class="markdown prose w-full"><p>Hi</p><pre><button onclick="x()">Copy code</button><code id="c">a = 1</code></pre></div>',
         "Hi\n\na = 1"),
        ('<p>See <a href="http://x" rel="nofollow">this</a></p><table><tr><th>a</th><th>b</th></tr><tr><td>1</td><td>2</td></tr></table>',
         "See this\n\na | b\n1 | 2"),
        ("<p>One</p><script>alert('x')</script><style>p {}</style><p>two</p>", "One\n\ntwo"),
        ("<div>One<div>two</div></div>", "One\ntwo"),
        ("<p></p>", ""),
    ],
)  # fmt: skip
def test_what_a_scraper_left_is_made_the_text_that_a_person_saw(text: str, seen: str) -> None:
    assert seen_text(text) == seen


@pytest.mark.parametrize(
    "text",
    [
        "Why is the sky blue?",
        "a < b and b > c",
        "How do I centre a <div>?",
        "<p> is a tag. What is <b>?",
        "<div>a</div> Why doesn't this work?",
        "Why doesn't this work? <div>a</div>",
        "<div>one</div> and how is it other than <div>two</div>",
        '<div class="container"><div class="row">x</div></div>',
        '<p id="demo">x</p>',
        '<p onclick="go()">x</p>',
        '<p style="color: red">x</p>',
        "<html><body><p>x</p></body></html>",
        "<form><input name='x'></form>",
        "<div><nav>x</nav></div>",
        "<p><![odd[x]]></p>",
        "<my-tag>x</my-tag>",
        "<p>" + "x" * LONGEST + "</p>",
        "",
        "<",
    ],
)
def test_what_a_user_wrote_stays_as_it_is(text: str) -> None:
    assert seen_text(text) is None


@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"]), min_size=1), min_size=1))
def test_any_words_come_back_from_paragraphs(words: list[str]) -> None:
    assert seen_text("".join(f"<p>{html.escape(word)}</p>" for word in words)) == "\n\n".join(words)


PIECES = ["<p>", "</p>", "<ul>", "<li>", "</li>", "</ul>", "<br>", "<pre>", "</pre>", "<script>", "</script>", "<!--", "-->", "<![", "<!",
          "<?", "&lt;", "&#0;", "&#x110000;", "x ", "\n", "<ol start='9'>", "</ol>", "<td>", "<tr>", "]]>", '"', "<a href=", ">"]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=30))
def test_no_text_is_too_odd_to_be_looked_at(pieces: list[str]) -> None:
    seen = seen_text(f"<p>{''.join(pieces)}</p>")
    assert seen is None or seen == seen.strip()
