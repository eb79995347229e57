import random
import re
import time
from itertools import pairwise

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.texts.personal_data import IBAN_LENGTHS, KINDS, Found, find, luhn, mask, masked, masked_turns, mod_97
from tests.prompts import planted as makers
from tests.prompts.planted import planted


@pytest.mark.parametrize("kind", KINDS)
def test_of_a_hundred_planted_items_of_each_kind_nearly_all_are_found_whole(kind: str) -> None:
    texts = planted(kind, 100)
    left = [mask(text, find(text)) for text, _ in texts]
    gone = [item not in shown for (_, item), shown in zip(texts, left, strict=True)]
    named = [f"<{kind}>" in shown for shown in left]
    assert sum(gone) >= 97
    assert sum(named) >= 97


@pytest.mark.parametrize(
    "text",
    [
        "Your order 4155552671 has left the shop.",
        "The meeting moves from 2023-11-14 to 2023-11-21.",
        "Version 91.198.174.192 broke it, says 192.168.0.1.",
        "Write to support@example.com or me@localhost about @ada.",
        "Card 4539 1488 0343 6468 fails its check, and so does DE75512108001245126198.",
        "The SSN 123-45-6789 stands in every example, 000-12-3456 can't exist.",
        "Pi is 3.14159265358979, a year has 31536000 seconds.",
        "A password must have 12 characters; the word pass is in it.",
        "It is 12:30:45, or 2001:db8::1 in a book; 1:: and f:: are of a script.",
        "[ 950 703 718 596 1037 359]\n [1035 1071 1203 802 1457 2569]",
        "4539 1488 0343 6467 4539 1488 0343 6467 4539 1488 is a row of a table.",
        "Clone git@github.com:ada/notes.git and use actions/cache@v3.When it fails, wait.",
        "Let's meet me at noon dot com, or email me at noon dot com, is a name; support at example dot com is nobody.",
        "Inflation held at 3 dot 5 percent; look at the dot in the corner, and at node dot js.",
        "The talk (at noon) is dot matrix printing; I work at yahoo dot com in sales.",
        "4539.1488.0343.6468 fails, and 4539.1488.0343.6467.4539 is a list, like 0.4539.1488.0343.6467.",
        "DE89.3704.0044.0532.0130.01 fails, in12 words that are no number at all.",
        "Divide 200.128.1.0/24 and 22.1.11.128/27 into smaller networks.",
    ],
)
def test_numbers_and_addresses_that_are_nobodys_are_left_alone(text: str) -> None:
    assert find(text) == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Mail a.b@posteo.de, or call (312) 555-0148.", "Mail <EMAIL_ADDRESS>, or call <PHONE_NUMBER>."),
        ("IBAN GB29 NWBK 6016 1331 9268 19 IS NEW", "IBAN <IBAN_CODE> IS NEW"),
        ("my ssn: 457 55 5462!", "my ssn: <US_SSN>!"),
        ("call 4155552671 now", "call <PHONE_NUMBER> now"),
        ("To: a.b@posteo.deCc: C.D@POSTEO.DE.", "To: <EMAIL_ADDRESS>Cc: <EMAIL_ADDRESS>."),
        ("at 185.199.108.153.", "at <IP_ADDRESS>."),
        ("pay 4539 1488 0343 6467 12/27 123 now", "pay <CREDIT_CARD> 12/27 123 now"),
        ("4539148803436467 124", "<CREDIT_CARD> 124"),
        ("card 1 4539-1488-0343-6467", "card 1 <CREDIT_CARD>"),
        ("12 345 4539 1488 0343 6467 1227", "12 345 <CREDIT_CARD> 1227"),
        ("call +1 212 555 0123 24/7", "call <PHONE_NUMBER> 24/7"),
        ("John.Smith@Gmail.Com, or a.b@gmail.com-thanks", "<EMAIL_ADDRESS>, or <EMAIL_ADDRESS>-thanks"),
        ("john dot doe at riverbank dot com", "<EMAIL_ADDRESS>"),
        ("JOHN DOT DOE AT RIVERBANK DOT COM", "<EMAIL_ADDRESS>"),
        ("(john.doe[at]riverbank[dot]com)", "(<EMAIL_ADDRESS>)"),
        ("jd (at) riverbank (dot) org, or jd{at}riverbank{dot}co{dot}uk", "<EMAIL_ADDRESS>, or <EMAIL_ADDRESS>"),
        ("Write to lena at gmail dot com.", "Write to <EMAIL_ADDRESS>."),
        ("john dot doe at example dot com", "<EMAIL_ADDRESS>"),
        ("john.doe[at]example[dot]com", "<EMAIL_ADDRESS>"),
        ("my mail: lena underscore vogt at posteo dot de", "my mail: <EMAIL_ADDRESS>"),
        ("lena @ posteo dot de; lena<at>posteo.de", "<EMAIL_ADDRESS>; <EMAIL_ADDRESS>"),
        ("juan punto perez arroba gmail punto com", "<EMAIL_ADDRESS>"),
        ("card 4539.1488.0343.6467.", "card <CREDIT_CARD>."),
        ("card 4539/1488/0343/6467", "card <CREDIT_CARD>"),
        ("amex 3782.822463.10005", "amex <CREDIT_CARD>"),
        ("4539–1488–0343–6467", "<CREDIT_CARD>"),
        ("GB29.NWBK.6016.1331.9268.19 and GB29-NWBK-6016-1331-9268-19", "<IBAN_CODE> and <IBAN_CODE>"),
        ("iban de89 3704 0044 0532 0130 00 is new", "iban <IBAN_CODE> is new"),
        ("password: Tulip77garden, ok?", "password: <SECRET_KEY> ok?"),
        ("https://joe:hunter22x@db.riverbank.org/x", "https<SECRET_KEY>db.riverbank.org/x"),
    ],
)
def test_what_is_found_is_masked_by_its_kind(text: str, shown: str) -> None:
    assert mask(text, find(text)) == shown


def test_a_private_key_is_masked_to_its_end() -> None:
    block = "-----BEGIN RSA PRIVATE KEY-----\nMIIabc\n-----END RSA PRIVATE KEY-----"
    assert mask(f"Is {block} safe?", find(f"Is {block} safe?")) == "Is <SECRET_KEY> safe?"


@given(st.text("0123456789", min_size=2, max_size=19))
def test_the_card_check_is_the_textbooks(digits: str) -> None:
    assert luhn(digits) == (makers.luhn_digit(digits[:-1]) == digits[-1])


@given(st.sampled_from(sorted(IBAN_LENGTHS)), st.integers(0, 10**9))
def test_the_iban_check_is_long_division(country: str, number: int) -> None:
    iban = f"{country}00{number:0{IBAN_LENGTHS[country] - 4}}"
    rest = 0
    for character in iban[4:] + iban[:4]:
        rest = int(str(rest) + str("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ".index(character))) % 97
    assert mod_97(iban) == rest


TEXTS = st.text(st.sampled_from("a1 @.-:<+(5b/€"), max_size=40)


@settings(deadline=None)
@given(st.lists(TEXTS, max_size=4), st.sampled_from(KINDS))
def test_what_is_found_is_in_order_and_apart_and_the_rest_of_the_text_is_kept(texts: list[str], kind: str) -> None:
    text = " ".join([*texts, planted(kind, 1)[0][0]])
    found = find(text)
    assert all(a.end <= b.start for a, b in pairwise(found))
    shown = mask(text, found)
    kept, at = [], 0
    for one in found:
        kept.append(text[at : one.start])
        at = one.end
    assert re.split("|".join(f"<{k}>" for k in KINDS), shown) == [*kept, text[at:]] if found else shown == text


def test_masking_a_column_is_masking_each_text() -> None:
    draw = random.Random(4)
    texts = [text for kind in KINDS for text, _ in planted(kind, 20)] + ["Nothing is in here.", ""]
    draw.shuffle(texts)
    column, kinds = masked(pa.array(texts))
    assert column.to_pylist() == [mask(text, find(text)) for text in texts]
    assert kinds == {n: sorted({f.kind for f in find(t)}) for n, t in enumerate(texts) if find(t)}


def test_masking_turns_keeps_their_lists() -> None:
    turns = pa.array([["Hello.", "I am a.b@posteo.de"], [], ["call (312) 555-0148", "or a.b@posteo.de", ""]])
    lists, kinds = masked_turns(turns)
    assert lists.to_pylist() == [
        ["Hello.", "I am <EMAIL_ADDRESS>"],
        [],
        ["call <PHONE_NUMBER>", "or <EMAIL_ADDRESS>", ""],
    ]
    assert kinds == {0: ["EMAIL_ADDRESS"], 2: ["EMAIL_ADDRESS", "PHONE_NUMBER"]}
    assert masked_turns(turns.slice(1, 1))[0].to_pylist() == [[]]
    assert masked_turns(turns.slice(2))[1] == {0: ["EMAIL_ADDRESS", "PHONE_NUMBER"]}


@pytest.mark.parametrize(
    "text",
    [
        "a dot " * 8_000,
        "a at b dot " * 5_000,
        "x" * 40_000 + " at gmail dot com",
        "[at]" * 10_000,
        "4539." * 8_000,
        "de12 ab " * 5_000,
    ],
)
def test_long_hostile_texts_take_time_in_proportion(text: str) -> None:
    begun = time.process_time()
    find(text)
    assert time.process_time() - begun < 3


@given(st.sampled_from(KINDS), st.integers(0, 99))
def test_what_is_planted_is_looked_at_closely(kind: str, n: int) -> None:
    text = planted(kind, 100)[n][0]
    assert not find(text) or masked(pa.array([text]))[1]


def test_a_found_place_has_kind_beginning_and_end() -> None:
    assert find("x a.b@posteo.de") == [Found("EMAIL_ADDRESS", 2, 15)]
