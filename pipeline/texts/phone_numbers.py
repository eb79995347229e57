"""Telephone numbers in text, by the numbering plans of phonenumbers (Google's libphonenumber): only numbers that a country gives out count.

Numbers with + or 00 and a country code are found by that alone, and so are the ways of writing them that are peculiar to the United States,
Canada and Great Britain. Any other number in national form counts where a word near it says that it is a telephone's, in one of some thirty
languages, and no nearer word says that it is something else (an order, an account). A number without its area code is not found.
"""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

from pipeline.settings import PHONE_REGIONS

NEAR, FAR, CLOSE, AFTER, OTHER = 45, 100, 30, 25, 30
"""Characters before a number in which a word may say what it is; the same of a number that begins as telephone numbers do, with 0 or a bracket,
and stands in groups; and of mere digits, nearly all of which are a subscriber's somewhere. Characters after a number, within its sentence, in
which a word may say it, and before it in which one may say that it is something else."""

FORMS = {
    "US": re.compile(
        r"(?<![\w.+-])(?<!\d[ ,\t])(?:1[ .-]?)?(?:\([2-9]\d\d\) ?|[2-9]\d\d[ .\-/]?)[2-9]\d\d[ .-]?\d{4}(?![\w-]|[ .,\t]\d)"
    ),
    "GB": re.compile(
        r"(?<![\w.+-])(?<!\d[ ,\t])(?:\(0\d{2,4}\) ?|0\d{2,4}[ -]?)\d{3,4}[ -]?\d{3,4}(?![\w-]|[ .,\t]\d)"
    ),
}
"""How numbers are written in the countries where groups alone tell a telephone number."""
SEVEN_DIGITS = re.compile(r"\d(?:[ ().\-/\u00a0\u2010-\u2013]{0,3}\d){6}")
"""What every number has."""
INTERNATIONAL = re.compile(r"(?<![\w+])(?:\+|00(?=[1-9]))\d(?:[ .()/-]{0,2}\d){6,14}(?![\w-]|[.,]\d)")
"""With + (or 00) and a country code."""
NATIONAL = re.compile(
    r"(?<![\dA-Za-zÀ-ӿ_+])(?<!\d[.,:/-])\(?\d(?:[ ().\-/\u00a0\u2010-\u2013]{0,3}\d){7,14}(?![\dA-Za-zÀ-ӿ_]|[ .,:/-]?\d)"
)
"""Eight digits and more, in groups or not, in the digits of any script."""
DATE = re.compile(
    r"(?:\d{1,2}([./-])(?:0?\d|1[0-2])\1|(?:0?\d|1[0-2])([./-])\d{1,2}\2)(?:19|20)?\d\d(?![./-]?\d)|"
    r"(?:19|20)\d\d([./-])[01]?\d\3[0-3]?\d(?!\d)"
)
DECIMALS = re.compile(r"\d\.\d+ \d|\d \d+\.\d")
FEWEST, MOST, GROUPS, BESIDE = 8, 13, 6, 2
"""Fewest and most digits of a number in national form after its 0, most groups of them, and most groups at an end that may be something else."""

_WORDS = (
    # English
    r"phones? telephones? tel mobiles? mob cell(?:phone)?s? whats\s?app w\.?a call(?:s|ing|ed|er)? text(?:ing|ed)? sms fax dial reach "
    r"ring(?:ing|s)? rang hotline helpline landline voicemail contact viber telegram imessage rsvp enquir\w+ inquir\w+ "
    r"(?:my|our|his|her|their|your|new|whose)\s(?:number|num|no|nr) ",
    # French
    r"t[ée]l[ée]phon\w* t[ée]l portable (?:r?app|app)el\w* joindre joignable texto contactez num[ée]ro\sest "
    r"(?:mon|ton|son|notre|votre|leur|le)\snum[ée]ro ",
    # German, Dutch, Afrikaans
    r"telef\w+ handy\w* mobil\w* (?:ruf)?nummer an(?:zu)?rufen ruf(?:en|t)? anruf\w* erreich\w+ festnetz durchwahl melde\w* "
    r"mobiel\w* gsm bel(?:len|t)? app(?:en|je) selfoon\w* skakel foon ",
    # Spanish, Portuguese, Italian
    r"tel[ée]fono\w* m[óo]vil celular\w* cel fijo ll[áa]m\w+ wh?ats\w* wasap m[áa]r[cq]\w+ (?:mi|su|tu|meu|seu|mio|suo|tuo)\sn[úu]mero "
    r"n[úu]mero\s(?:es|[éeè]) contact[oae]\w* telem[óo]vel liga\w* ligue\w* zap contato cellulare chiam\w+ recapito ",
    # Polish, Turkish
    r"telefon\w* kom[óo]rk\w* numer\w* (?:za)?dzwo[nń]\w* cep numara\w* ara(?:y[ıi]n|s[ıi]n|yabilir)?\w{0,6} ",
    # Russian, Ukrainian
    r"телефон\w* тел номер\w* (?:по)?звон\w* мобильн\w* моб сотов\w* в[ао]тсап\w* (?:по)?дзвон\w* зателефон\w* мобільн\w* вайбер\w* ",
    # Indonesian, Filipino, Vietnamese, Swahili
    r"telepon\w* telpo?n? ponsel hp hape nomor hubungi kontak tawag\w* (?:tum|it)awag\w* numero\w* điện\sthoại đt s[đd]t gọi di\sđộng "
    r"liên\shệ zalo số\s(?:của|máy) simu piga nambari",
)
_WORDS_BY_SIGNS = (
    "फोन फ़ोन मोबाइल नंबर टेलीफोन टेलीफ़ोन कॉल व्हाट्सएप व्हाट्सऐप संपर्क "  # Hindi
    "ফোন মোবাইল নম্বর নাম্বার কল হোয়াটসঅ্যাপ যোগাযোগ "  # Bengali
    "فون موبائل نمبر رابطہ کال واٹس تلفن شماره تماس موبایل همراه "  # Urdu, Persian
    "هاتف جوال تليفون تلفون موبايل محمول رقم اتصل اتصال واتساب "  # Arabic
    "โทร เบอร์ มือถือ ติดต่อ "  # Thai
    "ስልክ ደውል "  # Amharic
    "电话 電話 手机 手機 致电 致電 联系 聯繫 聯絡 拨打 热线 携帯 ケータイ 番号 問い合わせ 連絡先 "  # Chinese, Japanese
    "전화 번호 연락 핸드폰 휴대폰 문자"  # Korean
)
"""Words whose language doesn't set them apart, or writes with signs that are no letters."""


def _any_of(words: str, signs: str) -> re.Pattern[str]:
    return re.compile(rf"(?i)(?<!\w)(?:{'|'.join(words.split())})(?!\w)|{'|'.join(signs.split())}")


PHONE_WORDS = _any_of("".join(_WORDS), _WORDS_BY_SIGNS)
OTHER_WORDS = _any_of(
    r"orders? invoices? receipts? ref refs references? isbns? issns? ean upc imei sku asin items? lots? batch accounts? acct a/c tracking "
    r"parcels? tickets? case cases serial models? part parts catalogue? zip postcode po id version code policy claim licen[cs]e plate flight "
    r"price cost population votes? scores? total sum amount report patents? barcode timestamp customer member(?:ship)? vat iban card "
    r"passport ssn tax article created times? unix epoch seed token size length count views followers subscribers bytes rows seconds "
    r"commandes? factures? r[ée]f colis bestell\w* auftrag\w* rechnung\w* sendung\w* kunden\w* aktenzeichen konto\w* "
    r"pedidos? facturas? cuenta expediente encomenda fatura\w* conta ordine fattura conto bestelling\w* factuur\w* rekening\w* zamówieni\w* "
    r"faktur\w* sipariş\w* hesap заказ\w* сч[её]т\w* замовлен\w* рахун\w* pesanan resi đơn\shàng tài\skhoản",
    "订单 訂單 发票 账号 帐号 注文 口座 주문 계좌 คำสั่งซื้อ บัญชี ऑर्डर खाता سفارش حساب طلب",
)
"""What says that a number is no telephone's."""
SENTENCE_END = re.compile(r"[.!?;\n\d]")


def find_phones(text: str, regions: Sequence[str] = PHONE_REGIONS) -> Iterator[tuple[int, int]]:
    """Where telephone numbers stand. regions: ISO 3166 codes of the countries in whose national form numbers are looked for."""
    if not SEVEN_DIGITS.search(text):
        return
    for match in INTERNATIONAL.finditer(text):
        for number in _shortened(match[0]):
            if _in_use(re.sub(r"^00", "+", number), "ZZ"):
                yield match.start(), match.start() + len(number)
                break
    for region in FORMS.keys() & set(regions):
        for match in FORMS[region].finditer(text):
            told = not match[0].isdigit() or _told(text, *match.span(), NEAR)
            if told and _in_use(match[0], region):
                yield match.span()
    end = -FAR
    for match in NATIONAL.finditer(text):
        if DATE.match(match[0]) or DECIMALS.search(match[0]):
            continue
        reach = CLOSE if match[0].isdecimal() else FAR if match[0][0] in "(0" else NEAR
        told = match.start() - end < NEAR or _told(text, *match.span(), reach)
        part = (
            next((p for p in _parts(match[0]) if _as_written_in(match[0][slice(*p)], regions)), None) if told else None
        )
        if part:
            end = match.start() + part[1]
            yield match.start() + part[0], end


def _told(text: str, start: int, end: int, reach: int) -> bool:
    """Whether a word by a number says that it is a telephone's, and no later one that it is something else."""
    said = max((m.end() for m in PHONE_WORDS.finditer(text, max(start - reach, 0), start)), default=-1)
    other = max((m.end() for m in OTHER_WORDS.finditer(text, max(start - OTHER, 0), start)), default=-1)
    if said != other:
        return said > other
    stop = SENTENCE_END.search(text, end, end + AFTER)
    return bool(PHONE_WORDS.search(text, end, stop.start() if stop else end + AFTER))


def _shortened(number: str) -> Iterator[str]:
    """A number as it stands, then without its last groups of digits, which may be something else ("24/7")."""
    ends = [m.end() for m in re.finditer(r"\d+", number)]
    yield from (number[:end] for end in reversed(ends))


def _parts(number: str) -> Iterator[tuple[int, int]]:
    """Beginning and end of what may be a number in national form: the whole, then without groups of digits at its end or its beginning."""
    groups = [m.span() for m in re.finditer(r"\(?\d+", re.sub(r" 24/7\Z", "", number))]
    for first in range(min(len(groups), BESIDE + 1)):
        for last in range(len(groups), max(len(groups) - BESIDE, first + 1) - 1, -1):
            start, end = groups[first][0], groups[last - 1][1]
            start += number[start] == "(" and ")" not in number[start:end]
            digits = sum(c.isdecimal() for c in number[start:end]) - (number[start : start + 1] == "0")
            single = sum(b - a == 1 for a, b in groups[first + 1 : last])
            if FEWEST <= digits <= MOST and last - first <= GROUPS and not single:
                yield start, end


def _as_written_in(number: str, regions: Sequence[str]) -> bool:
    """Whether a number is one of a region's subscribers in the form that is used there."""
    return _national("".join(str(int(c)) for c in number if c.isdecimal()), tuple(regions))


@lru_cache(1 << 14)
def _national(digits: str, regions: tuple[str, ...]) -> bool:
    return any(digits in _ways_of_writing(digits, region) for region in regions)


WITHOUT_PREFIX = {"AR", "IN", "RU", "TR", "US", "CA"}
"""Regions where numbers are written with and without the prefix (0, 8, 1) for calls within the country."""


def _ways_of_writing(digits: str, region: str) -> set[str]:
    """Digits of a number as its region writes it; none where no subscriber there has it."""
    import phonenumbers

    if not _in_use(digits, region):
        return set()
    number = phonenumbers.parse(digits, region)
    usual = re.sub(r"\D", "", phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.NATIONAL))
    bare = phonenumbers.national_significant_number(number)
    return {usual, bare, "1" + bare} if region in WITHOUT_PREFIX else {usual}


def _in_use(number: str, region: str) -> bool:
    """Whether a number is of a range that its country gives to subscribers. region ZZ: it has its country code."""
    import phonenumbers

    try:
        return bool(phonenumbers.is_valid_number(phonenumbers.parse(number, None if region == "ZZ" else region)))
    except phonenumbers.NumberParseException:
        return False
