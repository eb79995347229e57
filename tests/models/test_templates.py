import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import TemplateError
from transformers.utils import chat_template_utils

from pipeline.engines.vllm import PLAIN_TEMPLATE
from pipeline.models.encoding import TEMPLATES
from pipeline.models.templates import ANSWERED, ASKED, own_template, settled, tokens_of, written
from tests.models.families import LAYOUTS, tokenizer_of

SHAPES = pytest.mark.parametrize("shape", [ASKED, ANSWERED])
FAMILIES = pytest.mark.parametrize("family", LAYOUTS)
DATED = pytest.mark.parametrize("family", [name for name, layout in LAYOUTS.items() if layout.dated])
THE_DAY = datetime.datetime(2024, 7, 26)


def turns(shape: tuple[str, ...]) -> list[dict[str, str]]:
    """A conversation of three turns or four, of a shape."""
    return [{"role": role, "content": f"turn {n}"} for n, role in enumerate((*ANSWERED, *shape))]


def on_day(monkeypatch: pytest.MonkeyPatch, day: int) -> None:
    clock = type("Clock", (datetime.datetime,), {"now": classmethod(lambda cls, tz=None: cls(2026, 11, day))})
    monkeypatch.setattr(chat_template_utils, "datetime", clock)  # test double of the clock


@SHAPES
@DATED
def test_a_template_that_writes_the_date_writes_the_same_one_every_day(
    family: str, shape: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = LAYOUTS[family]
    tokenizer, template = tokenizer_of(layout), settled(layout.template, shape)
    own, fixed = set(), set()
    for day in (25, 26):
        on_day(monkeypatch, day)
        own.add(written(tokenizer, layout.template, turns(shape)))
        fixed.add(written(tokenizer, template, turns(shape)))
    assert len(own) == 2
    (text,) = fixed
    assert sum(THE_DAY.strftime(form) in text for form in ("%d %b %Y", "%B %d, %Y", "%Y-%m-%d", "%d %B %Y")) == 1


@settings(max_examples=30)
@given(
    st.lists(
        st.sampled_from([f"%{c}" for c in "d b B m Y y A a j e F T H I M S p -d -m".split()] + [" ", ", ", "/", "on "])
    )
)
def test_a_fixed_date_is_that_day_in_every_form(pieces: list[str]) -> None:
    form = "".join(pieces)
    tokenizer = tokenizer_of(LAYOUTS["llama_3"])
    template = settled("{{ messages[0]['content'] }}|{{ strftime_now('" + form + "') }}", ASKED)
    assert written(tokenizer, template, turns(ASKED)) == f"turn 0|{THE_DAY.strftime(form)}"


@SHAPES
@FAMILIES
def test_a_template_that_needs_no_change_has_none(family: str, shape: tuple[str, ...]) -> None:
    layout = LAYOUTS[family]
    template = settled(layout.template, shape)
    assert settled(template, shape) == template
    in_one_shape = (
        family == "mistral_v3" and shape == ANSWERED
    )  # writes a system message before the last turn, if that is the user's
    assert (template == layout.template) == (layout.takes_system and not layout.dated and not in_one_shape)
    tokenizer = tokenizer_of(layout)
    if not layout.dated:
        assert written(tokenizer, template, turns(shape)) == written(tokenizer, layout.template, turns(shape))


@SHAPES
@FAMILIES
def test_a_system_message_is_written_once_and_before_what_is_answered(family: str, shape: tuple[str, ...]) -> None:
    layout = LAYOUTS[family]
    messages = [{"role": "system", "content": "be brief"}, *turns(shape)]
    text = written(tokenizer_of(layout), settled(layout.template, shape), messages)
    assert text.count("be brief") == 1
    assert text.index("be brief") < text.index("turn 2")
    assert [text.count(f"turn {n}") for n in range(len(turns(shape)))] == [1] * len(turns(shape))


def test_a_template_without_a_system_role_gets_it_in_the_first_turn_as_gemma_3_does() -> None:
    two, three = LAYOUTS["gemma_2"], LAYOUTS["gemma_3"]
    messages = [{"role": "system", "content": "be brief"}, *turns(ASKED)]
    assert written(tokenizer_of(two), settled(two.template, ASKED), messages) == written(
        tokenizer_of(three), three.template, messages
    )


@pytest.mark.parametrize("name", ["plain", *TEMPLATES])
def test_our_own_templates_stay_as_they_are(name: str) -> None:
    template = TEMPLATES.get(name) or PLAIN_TEMPLATE.read_text()
    assert settled(template, ASKED if name == "plain" else ANSWERED) == template


@pytest.mark.parametrize("family", [name for name, layout in LAYOUTS.items() if not layout.takes_system])
def test_a_system_message_that_has_no_place_is_refused(family: str) -> None:
    layout = LAYOUTS[family]
    with pytest.raises(TemplateError, match="no turn of the user follows"):
        written(tokenizer_of(layout), settled(layout.template, ASKED), [{"role": "system", "content": "be brief"}])


def test_of_several_templates_the_default_one_counts() -> None:
    tokenizer = tokenizer_of(LAYOUTS["command_r"])
    tokenizer.chat_template = {"default": LAYOUTS["command_r"].template, "tool_use": "tools"}
    assert own_template(tokenizer) == LAYOUTS["command_r"].template


@FAMILIES
def test_a_text_has_one_beginning(family: str) -> None:
    layout = LAYOUTS[family]
    tokenizer = tokenizer_of(layout)
    ids = tokens_of(tokenizer, written(tokenizer, settled(layout.template, ASKED), turns(ASKED)))
    if layout.bos and layout.bos != layout.eos:
        assert ids.count(tokenizer.bos_token_id) == (layout.adds_bos or "bos_token" in layout.template)
