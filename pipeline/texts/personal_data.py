"""Personal data and secrets in text: where they stand, and text with their kind in their place.

Kinds are named as Presidio names them; NATIONAL_ID stands for what it names by country. Telephone numbers and national ids are found in modules of
their own, keys by the patterns of detect-secrets and a few of later services; e-mail addresses, payment cards (Luhn), IBANs (ISO 13616: length by
country, mod 97), US social security numbers and IP addresses by the patterns here, each with the check that its number carries. Presidio itself is
not used: importing its recognisers loads spaCy, PyTorch and transformers.

What is nobody's is left alone: addresses under example.com and the other names of RFC 2606, IP addresses that aren't global, version numbers.
Names and postal addresses of people are not found: that takes a language model.
"""

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.settings import PHONE_REGIONS
from pipeline.texts.national_ids import find_ids
from pipeline.texts.phone_numbers import find_phones

KINDS = (
    "SECRET_KEY",
    "EMAIL_ADDRESS",
    "IBAN_CODE",
    "CREDIT_CARD",
    "US_SSN",
    "NATIONAL_ID",
    "IP_ADDRESS",
    "PHONE_NUMBER",
)
"""In order of precedence: where two overlap, the first is meant."""

SUSPECT = (
    r"@|[(\[{<] ?(?i:at|ät) ?[)\]}>]|(?i:[ (\[{<](?:dot|punto|ponto|kropka)[ )\]}>]|arroba|arobase|chiocciola)|"
    r"(?:\p{Nd}[ ().\-/:+*\x{a0}\x{2010}-\x{2013}]{0,3}){7}|"
    r"[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f]|\d\.\d{1,3}\.\d{1,3}\.\d|[A-Za-z0-9_+/=\-]{20}|PRIVATE KEY|://|"
    r"(?i:pass(?:word|wd|code|phrase))|[A-Z]{2}\d{2} ?[A-Z0-9]{4}|[A-Z]{2} \d\d \d\d \d\d|(?i:[A-Z]{3}\d\d[A-Z]\d\d|[A-Z]{5}\d{4})|\d{6}[A-FU-Y]\d"
)
"""What a text must have for a closer look; nearly all texts have nothing of it."""

EMAIL = re.compile(
    r"(?<![\w.+%-])[\w+%-]+(?:\.[\w+%-]+)*(?:@| ?[(\[] ?at ?[)\]] ?)(?P<domain>(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.)+"
    r"(?:[a-z]{2,24}|[A-Z]{2,24}|Com|Net|Org|Edu|Gov|Co|Io|Uk|Us|Ca|De|Fr|In))(?![a-z0-9]|\.[a-z0-9])"
)
RESERVED = re.compile(r"(?i)(?:^|\.)(?:example|test|invalid|localhost)$|(?:^|\.)example\.(?:com|org|net)$")
"""Domains of RFC 2606: for examples, of nobody. Nor is git@host anybody, which is how repositories are named."""

_OPEN, _CLOSE = r" ?[(\[{<] ?", r" ?[)\]}>] ?"
_DOT = rf"(?:{_OPEN}(?:dot|punto|ponto|kropka|\.){_CLOSE}| (?:dot|punto|ponto|kropka) |\.)"
AT = re.compile(r"(?i)[(\[{<] ?(?:at|ät|@|arroba) ?[)\]}>]|(?P<word>@|(?<= )(?:at|arroba|arobase|chiocciola)(?= ))")
"""What stands for @ in an address that is hidden from machines: in brackets, or as a word."""
DOT = re.compile(rf"(?i){_DOT}")
HIDDEN_DOMAIN = re.compile(
    rf"(?i) ?(?:[^\W_][\w-]{{0,61}}{_DOT}){{1,4}}(?:com|net|org|edu|gov|info|co|io|me|ac|eu|uk|us|ca|au|nz|ie|de|at|ch|fr|be|nl|es|pt|br|mx|ar|"
    r"it|pl|cz|se|no|dk|fi|gr|ro|hu|tr|ru|ua|in|pk|bd|id|ph|vn|th|jp|kr|cn|sg|ng|eg|za|ke|ir|il|ae)(?![\w@])"
)
HIDDEN_NAME = re.compile(
    rf"(?i)(?<![\w.+-])[\w+-]{{1,64}}(?:(?:{_DOT}|(?:{_OPEN}| )(?:underscore|hyphen|dash|minus|plus)(?:{_CLOSE}| ))[\w+-]{{1,64}}){{0,4}}(?= ?\Z)"
)
LONGEST_NAME = 100
"""Characters before what stands for @ that are looked at."""
MAIL_WORDS = re.compile(
    r"(?i)mail|write|contact|reach|correspond|address|send|inbox|correo|courriel|adresse|schreib|escr[ií]b|scriv|pisz"
)
MAIL_HOSTS = re.compile(
    r"(?i)(?:gmail|googlemail|hotmail|outlook|live|msn|yahoo|ymail|icloud|aol|gmx|web|proton|protonmail|posteo|fastmail|zoho|mail|yandex|qq|163|"
    r"naver|btinternet|orange|wanadoo|libero|t-online|wp|onet|seznam|rediffmail|uol|bol)\."
)
NO_NAMES = set(
    "a an the me us you him her it them this that there here i we they he she and or is are was were be been am look looks looking meet meeting "
    "sale visit available website site page pages store shop live lives work works worked working online stay buy order book find sold only up "
    "out start started arrive arrived people team price prices".split()
)
"""Words before "at NAME dot com" that begin no address, whatever stands around them."""

CARD = re.compile(r"(?<![\d.,-])\d(?:[ \u00a0\u2010-\u2013-]?\d){12,60}(?![\d-]|[.,]\d)")
"""Digits in groups, among which a card's may stand: before and after it come other numbers, as its expiry."""
DOTTED_CARD = re.compile(
    r"(?<![\d.,/-])\d{4}(?P<mark>[./_·])\d{4}(?:(?P=mark)\d{4}(?P=mark)\d{4}|\d\d(?P=mark)\d{5})(?![\d_]|[.,/-]\d)"
)
"""A card's groups with other marks between them, and nothing beside them: a list of numbers may have the same marks."""
CARD_DIGITS, CARD_GROUP, MOST_GROUPS = (13, 19), 3, 9
"""Fewest and most digits of a card; where other numbers stand beside it, the fewest of a group of its, and the most groups in all: more are a
list of numbers, of which some pass a card's check by chance."""
CARD_NUMBER = re.compile(
    r"4\d{12}(?:\d{3}){0,2}|(?:5[1-5]|2[2-7])\d{14}|3[47]\d{13}|3(?:0[0-5]|[68]\d)\d{11}|35\d{14}|6(?:011|5\d\d|4[4-9]\d)\d{12}|62\d{14,17}"
)
"""Visa, Mastercard, American Express, Diners Club, JCB, Discover, UnionPay: first digits and lengths (ISO/IEC 7812 ranges as published)."""

IBAN = re.compile(r"(?<![A-Za-z0-9])(?=([A-Za-z]{2}\d{2}(?:[ .\u00a0\u2010-\u2013-]?[A-Za-z0-9]){11,30}))")
IBAN_DIGITS = 10
"""Fewest digits of an IBAN that is not in capitals: among words one in 97 would pass its check."""
IBAN_LENGTHS = {
    country: int(entry[:2])
    for entry in (
        "15NO 16BE 18DK,FI,FO,GL,NL 19MK,SI 20AT,BA,EE,KZ,LT,LU,XK 21CH,CR,HR,LI,LV 22BG,BH,DE,GB,GE,IE,ME,RS,VA "
        "23AE,GI,IL,IQ,TL 24AD,CZ,ES,MD,PK,RO,SA,SE,SK,TN,VG 25PT,ST 26IS,TR 27FR,GR,IT,MC,MR,SM 28AL,AZ,BY,CY,DO,GT,HU,LB,PL,SV "
        "29BR,EG,PS,QA,UA 30JO,KW,MU 31MT,SC"
    ).split()
    for country in entry[2:].split(",")
}
"""Characters of an IBAN by country (SWIFT's IBAN registry)."""

SSN = re.compile(r"(?<![\w-])(?!000|666|9)\d{3}(?P<mark>[- ]?)(?!00)\d{2}(?P=mark)(?!0000)\d{4}(?![\w-])")
NO_SSN = {"123456789", "078051120", "219099999"}
"""Numbers that stand for an SSN in print."""
SSN_WORDS = re.compile(r"(?i)\bssns?\b|social[ -]security|\bss ?(?:#|number|no)")

IPV4 = re.compile(r"(?<![\w.-])(?:\d{1,3}\.){3}\d{1,3}(?![\w-]|\.\w|/\d)")
IPV6 = re.compile(r"(?<![\w:.])(?=(?::*[0-9A-Fa-f]){6})(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:]|/\d)")
VERSION_WORDS = re.compile(
    r"(?i)(?:\bv(?:er(?:sion|\.)?)?|release|build|firmware|section|chapter|clause|paragraph|driver|update|patch|§|chrome/?)[ :#.]*$"
)
RESOLVERS = {"1.1.1.1", "1.0.0.1", "8.8.8.8", "8.8.4.4", "9.9.9.9"}
"""Public name servers: they point to nobody."""

KEYS = re.compile(
    r"\bsk-(?:proj|ant|svcacct|or)-[\w-]{20,}|\bAIza[\w-]{35}|\bhf_[A-Za-z0-9]{30,}|\bgh[pousr]_[A-Za-z0-9]{36,}|\bgithub_pat_\w{50,}|"
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----(?s:.*?)(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
)
"""Forms that detect-secrets 1.5 doesn't know, and private keys up to their end."""
PASSWORD = re.compile(
    r"(?i)\bpass(?:word|wd|code|phrase)\b[\"']?\s{0,3}(?:(?:is|was)(?: set to)?\s|[=:])\s{0,3}[\"'`]?"
    r"(?P<value>(?=[^\s\"'`]*\d)(?=[^\s\"'`]*[A-Za-z])[^\s\"'`]{6,80})"
)
"""A password that is told: at least 6 characters, with a letter and a digit."""
PLUGINS = {
    "aws": "AWSKeyDetector",
    "azure_storage_key": "AzureStorageKeyDetector",
    "basic_auth": "BasicAuthDetector",
    "discord": "DiscordBotTokenDetector",
    "gitlab_token": "GitLabTokenDetector",
    "jwt": "JwtTokenDetector",
    "mailchimp": "MailchimpDetector",
    "npm": "NpmDetector",
    "openai": "OpenAIDetector",
    "pypi_token": "PypiTokenDetector",
    "sendgrid": "SendGridDetector",
    "slack": "SlackDetector",
    "square_oauth": "SquareOAuthDetector",
    "stripe": "StripeDetector",
    "telegram_token": "TelegramBotTokenDetector",
    "twilio": "TwilioKeyDetector",
}
"""detect-secrets' plugins that know one service's keys. Those that go by entropy, or by a word before any value, take much of ordinary text."""
REST_OF_KEY = re.compile(r"[\w+/=-]*")
"""What still belongs to a key where its pattern ends early."""

NEAR = 45
"""Characters before a number in which a word may say what it is."""


@dataclass(frozen=True)
class Found:
    """A place in a text: kind, beginning, end."""

    kind: str
    start: int
    end: int


def find(text: str, phone_regions: Sequence[str] = PHONE_REGIONS) -> list[Found]:
    """Personal data in a text, in order, none overlapping another. phone_regions: as `find_phones` takes them."""
    found = [Found(kind, *span) for kind, spans in _FINDERS.items() for span in spans(text)]
    found += [Found("PHONE_NUMBER", *span) for span in find_phones(text, phone_regions)]
    taken: list[Found] = []
    for one in sorted(found, key=lambda f: (KINDS.index(f.kind), f.start, -f.end)):
        if all(one.end <= other.start or other.end <= one.start for other in taken):
            taken.append(one)
    return sorted(taken, key=lambda f: f.start)


def mask(text: str, found: Iterable[Found]) -> str:
    """A text with `<KIND>` in the place of what was found, which is in order."""
    parts, at = [], 0
    for one in found:
        parts += [text[at : one.start], f"<{one.kind}>"]
        at = one.end
    return "".join([*parts, text[at:]])


def masked(texts: pa.Array, phone_regions: Sequence[str] = PHONE_REGIONS) -> tuple[pa.Array, dict[int, list[str]]]:
    """Texts with what was found in them masked, and the kinds in each text that has any, by its place."""
    suspect = pc.indices_nonzero(pc.match_substring_regex(texts, SUSPECT)).to_pylist()
    found = {n: spans for n in suspect if (spans := find(texts[n].as_py(), phone_regions))}
    if not found:
        return texts, {}
    at = pa.array([n in found for n in range(len(texts))])
    new = pa.array([mask(texts[n].as_py(), spans) for n, spans in found.items()], pa.string())
    kinds = {n: sorted({f.kind for f in spans}) for n, spans in found.items()}
    return pc.replace_with_mask(texts, at, new), kinds


def masked_turns(
    turns: pa.ListArray, phone_regions: Sequence[str] = PHONE_REGIONS
) -> tuple[pa.ListArray, dict[int, list[str]]]:
    """As `masked`, of prompts that are lists of turns: the same lists, and the kinds found in each prompt that has any."""
    offsets = np.append(0, np.asarray(pc.list_value_length(turns), dtype=np.int64).cumsum())
    texts, found = masked(turns.flatten(), phone_regions)
    kinds: dict[int, set[str]] = {}
    for place, names in found.items():
        kinds.setdefault(int(np.searchsorted(offsets, place, "right")) - 1, set()).update(names)
    lists = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), texts) if found else turns
    return lists, {row: sorted(names) for row, names in kinds.items()}


def shown(table: pa.Table, phone_regions: Sequence[str] = PHONE_REGIONS) -> pa.Table:
    """A table with personal data masked in its column `turns` (lists of strings), as it may be shown."""
    turns = masked_turns(table["turns"].combine_chunks(), phone_regions)[0]
    return table.set_column(table.schema.get_field_index("turns"), "turns", turns)


# --------------------------------------------------------------------------------------------------------------------------- finders


def _emails(text: str) -> Iterator[tuple[int, int]]:
    for match in EMAIL.finditer(text):
        if not RESERVED.search(match["domain"]) and not match[0].startswith("git@"):
            yield match.span()
    for at in AT.finditer(text):
        domain = HIDDEN_DOMAIN.match(text, at.end())
        name = HIDDEN_NAME.search(text[max(at.start() - LONGEST_NAME, 0) : at.start()]) if domain else None
        if domain and name and _is_address(text, at, name[0], domain[0]):
            yield max(at.start() - LONGEST_NAME, 0) + name.start(), domain.end()


def _is_address(text: str, at: re.Match[str], name: str, domain: str) -> bool:
    """Whether what reads like "NAME at HOST dot com" is an address: beside a plain "at" it takes more than the words.

    Whoever hides john.doe means somebody, whatever the domain; a lone word at example.com is nobody.
    """
    plain, sign = DOT.sub(".", domain.strip()), (at["word"] or "").lower()
    if (RESERVED.search(plain) and name.isalpha()) or (sign in ("at", "@") and plain == domain.strip()):
        return False
    told = MAIL_HOSTS.match(plain) or MAIL_WORDS.search(text, max(at.start() - len(name) - NEAR, 0), at.start())
    return sign != "at" or not name.isalpha() or (bool(told) and name.lower() not in NO_NAMES)


def _cards(text: str) -> Iterator[tuple[int, int]]:
    for match in CARD.finditer(text):
        groups = [(m.start() + match.start(), m[0]) for m in re.finditer(r"\d+", match[0])]
        first = 0
        while first < len(groups):
            last = _card_end(groups, first)
            if last:
                yield groups[first][0], groups[last - 1][0] + len(groups[last - 1][1])
            first = last or first + 1
    for match in DOTTED_CARD.finditer(text):
        if _is_card(re.sub(r"\D", "", match[0])):
            yield match.span()


def _card_end(groups: list[tuple[int, str]], first: int) -> int:
    """The group after a card that begins with the group `first`, the longest that there is; 0: none begins there."""
    for last in range(len(groups), first, -1):
        parts = [digits for _, digits in groups[first:last]]
        digits = "".join(parts)
        if not CARD_DIGITS[0] <= len(digits) <= CARD_DIGITS[1]:
            continue
        whole = len(parts) in (1, len(groups))
        if (whole or (len(groups) <= MOST_GROUPS and min(map(len, parts)) >= CARD_GROUP)) and _is_card(digits):
            return last
    return 0


def _is_card(digits: str) -> bool:
    return bool(CARD_NUMBER.fullmatch(digits)) and len(set(digits)) > 1 and luhn(digits)


def luhn(digits: str) -> bool:
    """Whether the last digit is the check digit of the others (ISO/IEC 7812-1, annex B)."""
    doubled = [int(d) * (1 + n % 2) for n, d in enumerate(reversed(digits))]
    return sum(d - 9 * (d > 9) for d in doubled) % 10 == 0


def _ibans(text: str) -> Iterator[tuple[int, int]]:
    for match in IBAN.finditer(text):
        length = IBAN_LENGTHS.get(match[1][:2].upper(), 99)
        places = [n for n, c in enumerate(match[1]) if c.isalnum()]
        if len(places) < length:
            continue
        end = match.start() + places[length - 1] + 1
        number = re.sub(r"[\W_]", "", text[match.start() : end])
        sure = number.isupper() or sum(map(str.isdecimal, number)) >= IBAN_DIGITS
        if sure and not text[end : end + 1].isalnum() and mod_97(number) == 1:
            yield match.start(), end


def mod_97(iban: str) -> int:
    """Remainder of an IBAN's number (ISO 13616: the first four characters go last, letters are 10 to 35): 1 where it is valid."""
    return int("".join(str(int(c, 36)) for c in iban[4:] + iban[:4])) % 97


def _ssns(text: str) -> Iterator[tuple[int, int]]:
    for match in SSN.finditer(text):
        digits = re.sub(r"\D", "", match[0])
        told = match["mark"] == "-" or SSN_WORDS.search(text, max(match.start() - NEAR, 0), match.start())
        if told and digits not in NO_SSN:
            yield match.span()


def _ips(text: str) -> Iterator[tuple[int, int]]:
    for pattern in (IPV4, IPV6):
        for match in pattern.finditer(text):
            before = text[max(match.start() - 20, 0) : match.start()]
            if _global(match[0]) and match[0] not in RESOLVERS and not VERSION_WORDS.search(before):
                yield match.span()


def _global(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_global
    except ValueError:
        return False


def _secrets(text: str) -> Iterator[tuple[int, int]]:
    for match in KEYS.finditer(text):
        yield match.span()
    for match in PASSWORD.finditer(text):
        yield match.span("value")
    for plugin in _plugins():
        for match in (m for pattern in plugin.denylist for m in pattern.finditer(text)):
            if hasattr(plugin, "is_formally_valid") and not plugin.is_formally_valid(match[0]):  # of JSON web tokens
                continue
            rest = REST_OF_KEY.match(text, match.end())
            yield match.start(), rest.end() if rest and not match[0].endswith("@") else match.end()


@cache
def _plugins() -> list[Any]:
    from importlib import import_module

    return [getattr(import_module(f"detect_secrets.plugins.{module}"), name)() for module, name in PLUGINS.items()]


_FINDERS: dict[str, Callable[[str], Iterator[tuple[int, int]]]] = {
    "SECRET_KEY": _secrets,
    "EMAIL_ADDRESS": _emails,
    "IBAN_CODE": _ibans,
    "CREDIT_CARD": _cards,
    "US_SSN": _ssns,
    "NATIONAL_ID": find_ids,
    "IP_ADDRESS": _ips,
}
"""Of all kinds but telephone numbers, which depend on regions."""
