import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.texts.national_ids import NUMBERS, find_ids
from pipeline.texts.personal_data import find, mask
from tests.prompts import planted as makers


def shown(text: str) -> str:
    return mask(text, find(text))


@pytest.mark.parametrize(
    "number",
    [
        "12345678Z",
        "12.345.678-Z",
        "X1234567L",
        "BRTLCU84M52F205L",
        "BRT LCU 84M52 F205L",
        "390.533.447-05",
        "110105198704122831",
        "2 55 08 14 168 025 38",
        "255081416802538",
        "131052-308T",
        "AB 12 34 56 C",
        "85.07.30-033.28",
        "756.9217.0769.85",
        "BOXW310820HNERXN09",
        "20-05536168-2",
        "12.531.909-2",
        "1-2345-45678-78-1",
    ],
)
def test_a_form_that_nothing_else_has_is_found_by_itself(number: str) -> None:
    assert shown(f"I wrote {number} on the form, is that right?") == "I wrote <NATIONAL_ID> on the form, is that right?"


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("My PESEL is {}.", "92081147381"),
        ("BSN {}; room 3.14", "716204836"),
        ("Aadhaar {} is linked", "5910 2847 3612"),
        ("CPF {} do comprador", "39053344705"),
        ("printed on the smart ID. My number is {} they say", "8804125237088"),
        ("T.C. kimlik no {}", "10000000146"),
        ("{} is my SIN, he says", "123 456 782"),
        ("my PAN is {}", "ABCPE1234F"),
        ("身份证号 {}，谢谢", "110105198704122831"),
        ("mon n° NAS {}", "123 456 782"),
        ("national insurance no. {}", "ab123456c"),
        ("personnummer {}", "850709-9805"),
        ("NIK {}", "3171011708450001"),
        ("Steuer-ID {}", "36 574 261 809"),
        ("NIF {}", "501 964 843"),
    ],
)
def test_digits_are_found_beside_the_word_that_names_them_and_not_without(text: str, number: str) -> None:
    assert shown(text.format(number)) == text.format("<NATIONAL_ID>")
    if number != "110105198704122831":
        assert list(find_ids(f"The museum shows {number} on a label.")) == []


@pytest.mark.parametrize(
    "text",
    [
        "12345678A and 12.345.678-A fail their check, and so does X1234567A.",
        "PESEL 92081147382, BSN 716204837, Aadhaar 5910 2847 3613, CPF 39053344706.",
        "My id is 12345678 and the order id 123456782.",
        "It is no sin to count 123 456 782 sheep; run 12345678-5 times.",
        "Ship 20240115-1234 on 2024-01-15, part AB123456Z.",
        "Use the colour A1B2C3D4E5F6 or the hash da39a3ee5e6b4b0d3255bfef95601890afd80709.",
        "RR473124829CZ is a parcel, 978-0-14-303943-3 a book.",
    ],
)
def test_other_numbers_are_left_alone(text: str) -> None:
    assert find(text) == []


@given(st.integers(0, 10**8 - 1), st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZ"))
def test_a_spanish_number_is_found_where_its_letter_is_the_remainders(number: int, letter: str) -> None:
    right = "TRWAGMYFPDXBNJZSQVHLCKE"[number % 23] == letter
    assert [("x " + f"{number:08}{letter}")[a:b] for a, b in find_ids(f"x {number:08}{letter}")] == (
        [f"{number:08}{letter}"] if right else []
    )


@given(st.integers(10**8, 10**9 - 1))
def test_a_dutch_number_is_found_where_its_weighted_sum_is_a_multiple_of_eleven(number: int) -> None:
    digits = [int(d) for d in str(number)]
    weighted = sum(d * w for d, w in zip(digits, [9, 8, 7, 6, 5, 4, 3, 2, -1], strict=True))
    assert bool(list(find_ids(f"bsn {number}"))) == (weighted % 11 == 0)


@settings(deadline=None)
@given(st.integers(10**11 * 2, 10**12 - 1))
def test_an_aadhaar_is_found_where_its_digits_multiply_to_nought_in_the_group_of_the_pentagon(number: int) -> None:
    text = f"{number}"
    grouped = f"{text[:4]} {text[4:8]} {text[8:]}"
    right = makers.verhoeff(text) == 0 and text != text[::-1]
    assert bool(list(find_ids(f"aadhaar {grouped}"))) == right


@given(st.integers(10**8, 10**9 - 1).map(str).filter(lambda body: len(set(body)) > 1))
def test_a_brazilian_number_is_found_with_its_two_digits(body: str) -> None:
    number = makers.cpf(body)
    dotted = f"{number[:3]}.{number[3:6]}.{number[6:9]}-{number[9:]}"
    wrong = f"{dotted[:-1]}{(int(dotted[-1]) + 1) % 10}"
    assert list(find_ids(f"x {dotted}")) == [(2, 16)]
    assert list(find_ids(f"x {wrong}")) == []


def test_every_check_is_there() -> None:
    from importlib import import_module

    assert all(hasattr(import_module(f"stdnum.{n.check}"), "is_valid") for n in NUMBERS if n.check)
    assert all(n.word or n.own for n in NUMBERS)
    assert all(bool(n.plain) == bool(n.word) for n in NUMBERS)


@pytest.mark.parametrize(
    "text",
    [
        "1 " * 30_000,
        "12345678" * 5_000,
        "AB 12 34 56 " * 4_000,
        "A" * 40_000,
        "id 8804125237089 " * 2_000,
        "abc def 12" * 3_000,
    ],
)
def test_long_hostile_texts_take_time_in_proportion(text: str) -> None:
    begun = time.process_time()
    list(find_ids(text))
    assert time.process_time() - begun < 3
