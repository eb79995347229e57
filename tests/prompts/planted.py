"""Personal data that is nobody's, made by generators, in sentences written for this purpose."""

import random
import re
import string
from collections.abc import Callable

from pipeline.texts.personal_data import IBAN_LENGTHS, mod_97

FIRST = "lena omar priya jonas mei carla idris noor felix tara bruno yuki".split()
LAST = "vogt adeyemi rao lind zhou costa haddad brandt moss ferri tanaka".split()
HOSTS = (
    "fastmail.com posteo.de uni-minho.pt northwind-freight.co.uk gmail.com riverbank.org mail.ru kitchen.studio".split()
)
AREAS = "206 212 303 312 415 503 617 646 702 808 917 919".split()
SENTENCES = {
    "EMAIL_ADDRESS": ["Write to {} that the room is booked.", "My mail is {}; draft a reply.", "Contact: {}\nShorten this CV.",
                      "({}) is it polite to ask twice?"],
    "PHONE_NUMBER": ["Call {} after six and ask for the keys.", "Put my number {} in the ad.", "phone: {}", "Rewrite: you can reach me on {}."],
    "CREDIT_CARD": ["My card {} was refused.", "Is {} a valid card number?", "Charge it to {}, expiry May.", "card no. {}\nwrite the complaint"],
    "IBAN_CODE": ["Please pay the rent to {}.", "IBAN {} is on the invoice; check the text.", "Account: {}", "Transfer it to {}, thank you."],
    "US_SSN": ["My social security number is {}.", "SSN {} goes on the form, doesn't it?", "Applicant, ssn {}, moved twice.",
               "Social Security no. {}"],
    "NATIONAL_ID": ["My {} is on the form.", "Applicant: {}", "Is {} spelt right in this letter?", "{}\nis what they ask for; answer them."],
    "IP_ADDRESS": ["Somebody at {} logs in every night.", "Our server has the address {}.", "ip: {}", "Block {} and tell the customers why."],
    "SECRET_KEY": ["I pasted {} into a page by mistake.", "Is {} still safe to use?", "token: {}", "The mail said {} and nothing else."],
}  # fmt: skip


def email(draw: random.Random) -> str:
    name = draw.choice(["{f}.{l}", "{f}{n}", "{f}_{l}", "{f}+{l}", "{l}-{n}", "{f}.{l}.{n}"])
    local = name.format(f=draw.choice(FIRST), l=draw.choice(LAST), n=draw.randrange(100))
    return draw.choice([f"{local}@", f"{local}@", f"{local.title()}@", f"{local} (at) "]) + draw.choice(HOSTS)


def phone(draw: random.Random) -> str:
    area, middle, last = draw.choice(AREAS), f"{draw.randrange(200, 999)}", f"{draw.randrange(10_000):04}"
    forms = ["({}) {}-{}", "{}-{}-{}", "{}.{}.{}", "+1 {} {} {}", "1-{}-{}-{}", "{} {} {}"]
    if draw.random() < 0.3:
        return f"+44 77{draw.randrange(100):02} 900{draw.randrange(1000):03}"
    return draw.choice(forms).format(area, middle, last)


def luhn_digit(digits: str) -> str:
    """The digit that makes a number valid, found by trying all ten against the plain definition of the sum."""
    for last in string.digits:
        total = 0
        for place, digit in enumerate(reversed(digits + last)):
            twice = int(digit) * 2 if place % 2 else int(digit)
            total += twice // 10 + twice % 10
        if total % 10 == 0:
            return last
    raise AssertionError("one of ten digits always fits")


def card(draw: random.Random) -> str:
    prefix, length = draw.choice(
        [("4", 16), ("51", 16), ("55", 16), ("2221", 16), ("34", 15), ("37", 15), ("6011", 16), ("3530", 16)]
    )
    body = prefix + "".join(draw.choice(string.digits) for _ in range(length - len(prefix) - 1))
    number = body + luhn_digit(body)
    groups = [number[:4], number[4:10], number[10:]] if length == 15 else [number[n : n + 4] for n in range(0, 16, 4)]
    return draw.choice(["", " ", "-"]).join(groups)


def iban(draw: random.Random) -> str:
    country = draw.choice(["DE", "GB", "FR", "NL", "ES", "CH", "PL", "NO"])
    letters = {"GB": 4, "NL": 4}.get(country, 0)
    rest = "".join(draw.choice(string.ascii_uppercase) for _ in range(letters))
    rest += "".join(draw.choice(string.digits) for _ in range(IBAN_LENGTHS[country] - 4 - letters))
    check = next(f"{n:02}" for n in range(2, 99) if mod_97(f"{country}{n:02}{rest}") == 1)
    number = country + check + rest
    return number if draw.random() < 0.5 else " ".join(number[n : n + 4] for n in range(0, len(number), 4))


def ssn(draw: random.Random) -> str:
    area = draw.choice([n for n in range(1, 900) if n != 666])
    mark = draw.choice(["-", "-", " ", ""])
    return f"{area:03}{mark}{draw.randrange(1, 100):02}{mark}{draw.randrange(1, 10_000):04}"


def cpf(body: str) -> str:
    """A Brazilian number from its nine first digits: each of the two others is 11 less the remainder of the weighted sum, 0 for 10 and 11."""
    for _ in range(2):
        rest = sum(int(d) * w for d, w in zip(body, range(len(body) + 1, 1, -1), strict=True)) % 11
        body += str(0 if rest < 2 else 11 - rest)
    return body


def verhoeff(digits: str) -> int:
    """Product of a number's digits in the symmetries of the pentagon (0 to 4 turn, 5 to 9 turn and mirror), each moved by its place; 0: valid."""

    def times(a: int, b: int) -> int:
        if a < 5:
            return (a + b) % 5 if b < 5 else 5 + (a + b - 5) % 5
        return 5 + (a - 5 - b) % 5 if b < 5 else (a - b) % 5

    moved = [1, 5, 7, 6, 2, 8, 3, 0, 9, 4]
    product = 0
    for place, digit in enumerate(map(int, reversed(digits))):
        for _ in range(place % 8):
            digit = moved[digit]
        product = times(product, digit)
    return product


def national_id(draw: random.Random) -> str:
    """A number of one of six countries, after the word for it where it is digits alone."""

    def digits(n: int) -> str:
        return "".join(draw.choice(string.digits) for _ in range(n))

    born = f"{draw.randrange(1950, 2000)}{draw.randrange(1, 13):02}{draw.randrange(1, 29):02}"
    kind = draw.randrange(6)
    if kind == 0:
        number = draw.randrange(10**7, 10**8)
        return f"{number}{draw.choice(['', '-'])}{'TRWAGMYFPDXBNJZSQVHLCKE'[number % 23]}"
    if kind == 1:
        number_ = cpf(str(draw.randrange(10**8, 10**9)))
        return f"{number_[:3]}.{number_[3:6]}.{number_[6:9]}-{number_[9:]}"
    if kind == 2:
        body = "110105" + born + digits(3)
        check = sum(int(d) * 2 ** (17 - n) for n, d in enumerate(body))
        return body + "10X98765432"[check % 11]
    if kind == 3:
        body = born[2:] + digits(4)
        return f"PESEL {body}{-sum(int(d) * w for d, w in zip(body, [1, 3, 7, 9] * 2 + [1, 3], strict=True)) % 10}"
    if kind == 4:
        body = str(draw.randrange(2 * 10**10, 10**11))
        number_ = next(body + d for d in string.digits if verhoeff(body + d) == 0)
        return f"Aadhaar {number_[:4]} {number_[4:8]} {number_[8:]}"
    body = born[6:] + born[4:6] + born[2:4] + f"{draw.randrange(2, 900):03}"
    return f"{body[:6]}-{body[6:]}{'0123456789ABCDEFHJKLMNPRSTUVWXY'[int(body) % 31]}"


def address(draw: random.Random) -> str:
    if draw.random() < 0.3:
        return "2a02:" + ":".join(f"{draw.randrange(1, 65536):x}" for _ in range(7))
    return ".".join(
        str(n) for n in (draw.choice([23, 62, 81, 93, 151, 185]), *(draw.randrange(1, 255) for _ in range(3)))
    )


def key(draw: random.Random) -> str:
    def of(alphabet: str, n: int) -> str:
        return "".join(draw.choice(alphabet) for _ in range(n))

    some = string.ascii_letters + string.digits
    forms: list[Callable[[], str]] = [
        lambda: "AKIA" + of(string.ascii_uppercase + "234567", 16),
        lambda: "ghp_" + of(some, 36),
        lambda: "glpat-" + of(some, 20),
        lambda: "sk-proj-" + of(some, 40),
        lambda: "hf_" + of(string.ascii_letters, 34),
        lambda: "AIza" + of(some, 35),
        lambda: "SG." + of(some, 22) + "." + of(some, 43),
        lambda: "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJsZW5hIn0." + of(some, 43),
        lambda: f"password: {of(string.ascii_lowercase, 6)}{of(string.digits, 3)}",
        lambda: f"https://{of(string.ascii_lowercase, 6)}:{of(some, 10)}@db.riverbank.org",
    ]
    return draw.choice(forms)()


MAKERS = dict(zip(SENTENCES, [email, phone, card, iban, ssn, national_id, address, key], strict=True))


def planted(kind: str, n: int, seed: int = 7) -> list[tuple[str, str]]:
    """n texts with one item of personal data each, and what of it must not be seen: of a password or a number that is told, or an
    address with a password, that alone."""
    draw = random.Random(f"{kind}/{seed}")
    items = [MAKERS[kind](draw) for _ in range(n)]
    secret = re.compile(r"^(?:password:|PESEL|Aadhaar) |^https://\w+:|@db\.riverbank\.org$")
    return [(draw.choice(SENTENCES[kind]).format(item), secret.sub("", item)) for item in items]
