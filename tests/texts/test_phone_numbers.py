import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.settings import PHONE_REGIONS
from pipeline.texts.personal_data import find, mask
from pipeline.texts.phone_numbers import find_phones

FORMS = {
    "US": ("Call me on {}.", "917 555 0143", "(212) 736-5000"),
    "CA": ("My cell is {}.", "604-555-0187", "(416) 967-1111"),
    "GB": ("My mobile is {}.", "07911 123456", "020 7946 0958"),
    "DE": ("Meine Handynummer: {}", "0151 23456789", "030 / 90 18 20"),
    "FR": ("Mon numéro est {}.", "06 12 34 56 78", "01.42.68.53.00"),
    "IT": ("Il mio cellulare: {}", "347 815 2906", "06 6982 1234"),
    "ES": ("Mi teléfono es {}.", "612 34 56 78", "91 234 56 78"),
    "NL": ("Bel me op {}.", "06-28 41 93 70", "020 624 1111"),
    "PL": ("Telefon: {}", "608 417 253", "22 694 61 00"),
    "TR": ("Cep telefonum {}.", "0532 764 18 09", "(0212) 293 24 00"),
    "RU": ("Мой телефон {}.", "8 (912) 345-67-89", "8 495 697-03-49"),
    "UA": ("Мій номер {}.", "067 318 45 20", "044 253 08 71"),
    "IN": ("मेरा मोबाइल नंबर {} है।", "98765 43210", "022 2648 1937"),
    "PK": ("WhatsApp only: {}", "0321-4486172", "042-35761234"),
    "BD": ("আমার মোবাইল নম্বর {}", "01712-345678", "02-55165088"),
    "ID": ("Hubungi WA {} ya.", "0812-8847-3156", "(021) 570-1234"),
    "PH": ("Text mo ako sa {}.", "0917 123 4567", "(02) 8123 4567"),
    "VN": ("Số điện thoại: {}", "0912 345 678", "024 3825 5599"),
    "TH": ("โทร {}", "081-946-3728", "02 221 4501"),
    "JP": ("電話番号は{}です。", "090-1234-5678", "045-372-8164"),
    "KR": ("연락처 {}로 주세요.", "010-7462-9183", "02-312-3456"),
    "CN": ("我的电话是{}。", "13671284059", "010-6552 9988"),
    "BR": ("Me chama no zap {}.", "(21) 98714-6023", "(11) 3091-3116"),
    "MX": ("Mi cel es {}.", "55 3841 7629", "33 3616 9080"),
    "AR": ("Mi celular: {}", "11 5321-5678", "011 4321-5678"),
    "CO": ("Llámame al {}.", "321 456 7890", "(601) 342 8200"),
    "NG": ("Phone number na {}.", "0806 317 5294", "0803 123 4567"),
    "ET": ("ስልክ {}", "0911 234 567", "011 551 7700"),
    "CD": ("Mon téléphone : {}", "081 555 1234", "0991 234 567"),
    "EG": ("رقم الموبايل {}", "010 1234 5678", "02 2735 8888"),
    "ZA": ("Skakel my by {}.", "083 491 7206", "021 467 4000"),
    "KE": ("Nambari ya simu: {}", "0712 345 678", "020 222 2181"),
    "IR": ("شماره تماس {}", "0912 483 7615", "021 8888 1234"),
    "AU": ("My phone: {}", "0412 345 678", "(02) 9374 4000"),
}  # fmt: skip
"""A sentence of each country with its numbers in national form, of a mobile and of a landline where its people have them."""
GROUPS_TELL = ("US", "CA", "GB")


def test_there_is_a_form_of_every_country_that_is_looked_for() -> None:
    assert FORMS.keys() == set(PHONE_REGIONS)


@pytest.mark.parametrize("region", FORMS)
def test_national_forms_are_found_whole_where_a_word_says_what_they_are(region: str) -> None:
    sentence, *numbers = FORMS[region]
    for number in numbers:
        text = sentence.format(number)
        assert mask(text, find(text)) == sentence.format("<PHONE_NUMBER>")
        after = f"Bitte {number}, phone me."
        assert mask(after, find(after)) == "Bitte <PHONE_NUMBER>, phone me."


@pytest.mark.parametrize("region", sorted(FORMS.keys() - set(GROUPS_TELL)))
def test_national_forms_are_left_alone_where_no_word_or_another_one_stands_by(region: str) -> None:
    for number in FORMS[region][1:]:
        if list(find_phones(number, GROUPS_TELL)):  # it is written as one of theirs
            continue
        assert find(f"The museum has {number} on a label.") == []
        assert find(f"Call the shop about order {number} today.") == []


@pytest.mark.parametrize("region", sorted(FORMS.keys() - set(GROUPS_TELL)))
def test_a_region_that_a_profile_leaves_out_is_not_looked_for(region: str) -> None:
    sentence, *numbers = FORMS[region]
    assert all(list(find_phones(sentence.format(number), ())) == [] for number in numbers)
    assert all(list(find_phones(sentence.format(number), [region])) for number in numbers)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Mon numero est 01 42 68 53 00, call me", "Mon numero est <PHONE_NUMBER>, call me"),
        ("Call me on 030 901820 or 0151 23456789", "Call me on <PHONE_NUMBER> or <PHONE_NUMBER>"),
        ("My mobile number is 98765 43210, text me", "My mobile number is <PHONE_NUMBER>, text me"),
        ("My phone: 0412 345 678", "My phone: <PHONE_NUMBER>"),
        ("Tel. 020 7946 0958 / 0171 2345678", "Tel. <PHONE_NUMBER> / <PHONE_NUMBER>"),
        ("mobile: 0412 345 678 24/7", "mobile: <PHONE_NUMBER> 24/7"),
        ("(phone 02-3284-0396 / 010-9949-3703)", "(phone <PHONE_NUMBER> / <PHONE_NUMBER>)"),
        ("تلفن: ۰۹۱۲ ۴۸۳ ۷۶۱۵", "تلفن: <PHONE_NUMBER>"),
        ("携帯は０９０-１２３４-５６７８です", "携帯は<PHONE_NUMBER>です"),
        ("Order a pizza first, then ring me: 0412 345 678", "Order a pizza first, then ring me: <PHONE_NUMBER>"),
        ("or +49 30 901820, 0049 151 23456789", "or <PHONE_NUMBER>, <PHONE_NUMBER>"),
    ],
)
def test_numbers_are_found_whole_among_others_and_in_other_digits(text: str, shown: str) -> None:
    assert mask(text, find(text)) == shown


@pytest.mark.parametrize(
    "text",
    [
        "Call me about order 98765 43210.",
        "Ring the publisher: ISBN 0 306 40615 2, please.",
        "Call on 02.12.2024 at 10.30, or on 2024-12-02.",
        "Text me 100 words; 12345678 people voted, 2,536,431,018 live here.",
        "The mobile shop took 18.00 17.50 and 16.25 19.75 euros.",
        "Phone prices: 1.234.567 against 1 234 567.",
        "Call 999 or 112 or 0800.",
        'The call returned {"created": 1673222706, "text": ""}.',
        "My phone says version 17.6.1, build 21G93, serial 0412345678.",
        "Call the 2019 2020 2021 2022 champions.",
        "Telefon 12345",
        "My phone shows 54°35'12.4\"N 005°55'44.1\"W and 48.858370, 2.294481.",
        "phone 1234567890123456789012345678901234567890",
    ],
)
def test_other_numbers_near_a_word_for_telephones_are_left_alone(text: str) -> None:
    assert find(text) == []


@settings(deadline=None, max_examples=300)
@given(
    st.text(st.sampled_from("0123456789 ()-./+"), max_size=40), st.sampled_from(["Call ", "Tel. ", "रिंग फोन ", "电话"])
)
def test_what_is_found_is_a_number_as_it_stands(text: str, word: str) -> None:
    for start, end in find_phones(word + text):
        number = (word + text)[start:end]
        assert start >= len(word)
        assert 7 <= sum(c.isdigit() for c in number) <= 16
        assert number[0] in "+(0123456789"
        assert number[-1].isdigit()


@pytest.mark.parametrize(
    "text",
    [
        "call 1 2 3 4 5 6 7 8 " * 2_000,
        "phone " + "0" * 40_000,
        "phone " + "12-" * 15_000,
        "phone 0412 345 67x " * 2_000,
        "(" * 40_000,
        "number " * 6_000 + "0412",
    ],
)
def test_long_hostile_texts_take_time_in_proportion(text: str) -> None:
    begun = time.process_time()
    find(text)
    assert time.process_time() - begun < 3
