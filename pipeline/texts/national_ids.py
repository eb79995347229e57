"""Numbers by which states know people: by their forms, and by the checks of python-stdnum (check digits, dates and places in the number).

A form that nothing else has, with letters or marks in their places, counts where its check holds. Plain digits, of which one in ten or eleven
passes a check by chance, count where a word near them names the number. Of some countries the word alone is known: their numbers carry no check.
"""

import re
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from itertools import chain
from typing import Any, NamedTuple

NEAR, AFTER = 45, 25
"""Characters before a number, and after it, in which a word may say what it is."""

ANY_ID = (
    r"\bid\b|\bid[ -]?(?:number|no|nr|card)|identit|identific|identyf|\bnational (?:number|no)\b|passport|passeport|pasaporte|paszport|"
    r"паспорт|身份|kimlik|ausweis"
)
"""Words for the number of a person in any country; enough beside a number that has two check digits, or a date and one."""


class Number(NamedTuple):
    """A country's number. check: module of stdnum, "": the form is all. own: form that is enough; plain: form that counts beside a word."""

    check: str
    own: str = ""
    plain: str = ""
    word: str = ""


NUMBERS = (
    Number("ar.cuit", own=r"2[03478]-\d{8}-\d"),
    Number("ar.dni", plain=r"\d{2}\.\d{3}\.\d{3}", word=r"\bdni\b|documento"),
    Number("au.tfn", plain=r"\d{3} ?\d{3} ?\d{2,3}", word=r"\btfn\b|tax file"),
    Number("be.nn", own=r"\d\d\.\d\d\.\d\d-\d{3}\.\d\d", plain=r"\d{11}", word="rijksregister|registre national|insz|niss"),
    Number("bg.egn", plain=r"\d{10}", word=r"егн|\begn\b"),
    Number("br.cpf", own=r"\d{3}\.\d{3}\.\d{3}[-/]\d\d", plain=r"\d{9}-?\d\d", word=rf"\bcpf\b|{ANY_ID}"),
    Number("ca.sin", plain=r"\d{3}[ -]?\d{3}[ -]?\d{3}", word=r"(?-i:\bSIN\b)|(?-i:\bNAS\b)|social insurance|assurance sociale"),
    Number("ch.ssn", own=r"756\.\d{4}\.\d{4}\.\d\d", plain=r"756\d{10}", word=r"\bahv\b|\bavs\b"),
    Number("cl.rut", own=r"\d{1,2}\.\d{3}\.\d{3}-[\dKk]", plain=r"\d{7,8}-[\dK]", word=r"\brut\b"),
    Number("cn.ric", own=r"\d{17}[\dXx]"),
    Number("cz.rc", plain=r"\d{6}/?\d{4}", word=r"rodn[ée]|\br\. ?č\.|birth number"),
    Number("de.idnr", plain=r"\d{2} ?\d{3} ?\d{3} ?\d{3}", word=r"steuer-?(?:id|nummer)|identifikationsnummer|\bidnr"),
    Number("dk.cpr", plain=r"\d{6}-?\d{4}", word=r"\bcpr\b"),
    Number("ee.ik", plain=r"\d{11}", word="isikukood|personal code"),
    Number("es.dni", own=r"\d{8}[ -]?[A-Z]|\d{2}\.\d{3}\.\d{3}[ -]?[A-Z]", plain=r"\d{8}[ -]?[A-Z]", word=r"\bdni\b|\bnif\b"),
    Number("es.nie", own=r"[XYZ][ -]?\d{7}[ -]?[A-Z]", plain=r"[XYZ]\d{7}[A-Z]", word=r"\bnie\b"),
    Number("fi.hetu", own=r"\d{6}[-+A-FU-Y]\d{3}[\dA-Y]", plain=r"\d{6}[A-FU-Y]\d{3}[\dA-Y]", word="hetu|henkilötunnus"),
    Number("fr.nir", own=r"[12] ?\d\d ?\d\d ?\d[\dAB] ?\d{3} ?\d{3} ?\d\d"),
    Number("", own=r"(?!BG|GB|NK|KN|TN|NT|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d\d ?\d\d ?\d\d ?[A-D]"),
    Number("", plain=r"[A-Z]{2} ?\d\d ?\d\d ?\d\d ?[A-D]", word=r"national insurance|\bni (?:no|number)|\bnino\b"),
    Number("hr.oib", plain=r"\d{11}", word=r"\boib\b"),
    Number("id.nik", plain=r"\d{16}", word=r"\bnik\b|\bktp\b"),
    Number("ie.pps", plain=r"\d{7}[A-W][A-IW]?", word=r"\bpps"),
    Number("il.idnr", plain=r"\d{9}", word="teudat|תעודת זהות"),
    Number("in_.aadhaar", plain=r"\d{4}[ -]?\d{4}[ -]?\d{4}", word="aadh?aa?r|uidai|आधार|ஆதார்|ఆధార్|আধার"),
    Number("in_.pan", plain=r"[A-Z]{5}\d{4}[A-Z]", word=r"(?-i:\bPAN\b)|permanent account"),
    Number("it.codicefiscale", own=r"(?i:[A-Z]{3} ?[A-Z]{3} ?\d\d[A-Z]\d\d ?[A-Z]\d{3}[A-Z])"),
    Number("kr.rrn", own=r"\d{6}-\d{7}"),
    Number("lt.asmens", plain=r"\d{11}", word="asmens kod"),
    Number("mx.curp", own=r"(?i:[A-Z]{4}\d{6}[HMX][A-Z]{5}[A-Z\d]\d)"),
    Number("my.nric", own=r"\d{6}-\d\d-\d{4}"),
    Number("nl.bsn", plain=r"\d{9}|\d{4}\.\d{2}\.\d{3}", word=r"\bbsn\b|burgerservice|\bsofi"),
    Number("no.fodselsnummer", plain=r"\d{6} ?\d{5}", word=r"fødsels|personnummer|\bfnr\b"),
    Number("pk.cnic", own=r"\d{5}-\d{7}-\d", plain=r"\d{13}", word=r"\bc?nic\b|شناختی"),
    Number("pl.pesel", plain=r"\d{11}", word=rf"pesel|{ANY_ID}"),
    Number("pt.nif", plain=r"\d{3} ?\d{3} ?\d{3}", word=r"\bnif\b|contribuinte"),
    Number("ro.cnp", plain=r"\d{13}", word=r"\bcnp\b|cod numeric"),
    Number("ru.inn", plain=r"\d{12}", word=r"\bинн\b"),
    Number("se.personnummer", plain=r"(?:19|20)?\d{6}[-+]?\d{4}", word=rf"personn(?:ummer|r)|\bpnr\b|samordningsnummer|{ANY_ID}"),
    Number("th.pin", own=r"\d-\d{4}-\d{5}-\d\d-\d", plain=r"\d{13}", word="บัตรประชาชน|เลขประจำตัว|thai id"),
    Number("tr.tckimlik", plain=r"\d{11}", word=rf"\bt\.? ?c\.? ?(?:kimlik|no)|tckn|{ANY_ID}"),
    Number("ua.rntrc", plain=r"\d{10}", word=r"\bіпн\b|рнокпп|ідентифікаційн"),
    Number("us.itin", plain=r"9\d\d-?\d\d-?\d{4}", word=r"\bitin\b|taxpayer"),
    Number("za.idnr", plain=r"\d{6} ?\d{4} ?\d{2} ?\d", word=ANY_ID),
)  # fmt: skip
"""By country; DNI, CPF and the like are found as tax numbers are, where those are the same."""


class _Form(NamedTuple):
    check: str
    pattern: re.Pattern[str]
    word: re.Pattern[str] | None


def _forms() -> Iterator[_Form]:
    for number in NUMBERS:
        if number.own:
            yield _Form(number.check, re.compile(rf"(?:{number.own}){_END}"), None)
        if number.plain:
            yield _Form(number.check, re.compile(rf"(?i)(?:{number.plain}){_END}"), re.compile(rf"(?i){number.word}"))


_END = r"(?![A-Za-z0-9]|[-./]\d)"
_BEGINS = (
    re.compile(r"\d(?<![A-Za-z0-9_.+-]\d)(?=(?:[ ./-]?\d){5})"),
    re.compile(
        r"\b[A-Za-z](?=[ -]?\d{7}|[A-Za-z](?: ?\d\d ?\d\d ?\d\d|[A-Za-z]{2,3}\d{4}|[A-Za-z] ?[A-Za-z]{3} ?\d\d[A-Za-z]))"
    ),
)
"""Where one may begin: a digit with five others, a letter with the digits of the forms that begin with letters."""
_FORMS = tuple(_forms())


def find_ids(text: str) -> Iterator[tuple[int, int]]:
    """Where numbers of people stand, by their longest form."""
    for begin in chain.from_iterable(pattern.finditer(text) for pattern in _BEGINS):
        forms = ((form, match) for form in _FORMS if (match := form.pattern.match(text, begin.start())))
        ends = [m.end() for form, m in forms if _told(form.word, text, *m.span()) and _holds(form.check, m[0])]
        if ends:
            yield begin.start(), max(ends)


def _told(word: re.Pattern[str] | None, text: str, start: int, end: int) -> bool:
    return not word or bool(word.search(text, max(start - NEAR, 0), start) or word.search(text, end, end + AFTER))


def _holds(check: str, number: str) -> bool:
    """Whether a number passes its country's check."""
    return not check or bool(_module(check).is_valid(re.sub(r"[ ./]", "", number)))


@cache
def _module(check: str) -> Any:
    return import_module(f"stdnum.{check}")
