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


MAKERS = dict(zip(SENTENCES, [email, phone, card, iban, ssn, address, key], strict=True))


def planted(kind: str, n: int, seed: int = 7) -> list[tuple[str, str]]:
    """n texts with one item of personal data each, and what of it must not be seen: of a told password, or an address with one, that alone."""
    draw = random.Random(f"{kind}/{seed}")
    items = [MAKERS[kind](draw) for _ in range(n)]
    secret = re.compile(r"^password: |^https://\w+:|@db\.riverbank\.org$")
    return [(draw.choice(SENTENCES[kind]).format(item), secret.sub("", item)) for item in items]
