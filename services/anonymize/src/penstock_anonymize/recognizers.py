"""Which recognizers run for which language, and the few that Presidio does not ship.

What a checksum or an unmistakable form confirms is looked for in every language, since people write their
own country's numbers in any of them. What only context words confirm runs for the language of the words.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from presidio_analyzer import Pattern, PatternRecognizer
from presidio_analyzer import predefined_recognizers as presidio

from penstock_anonymize.phone import CONTEXT as PHONE_CONTEXT
from penstock_anonymize.phone import FEWEST_DIGITS as PHONE_DIGITS
from penstock_anonymize.phone import PhoneScanner
from penstock_anonymize.scanners import IbanScanner, PatternScanner, Scanner

LANGUAGES: Final = ("en", "de", "fr", "es", "it", "pt")
REGIONS: Final = {
    "en": ("US", "GB", "IN", "AU", "ZA"),
    "de": ("DE", "AT", "CH"),
    "fr": ("FR", "BE", "CH"),
    "es": ("ES", "MX", "AR"),
    "it": ("IT", "CH"),
    "pt": ("PT", "BR"),
}


class Email(presidio.EmailRecognizer):
    """Any address with a domain: one in a private or unknown top-level domain names a person too."""

    def validate_result(self, pattern_text: str) -> bool | None:
        """The form alone decides; Presidio's check needs the public suffix list."""
        return True


class Url(PatternRecognizer):
    """Addresses of pages: with a scheme any host, without one a host that is no file name or attribute.

    Presidio's own pattern takes `array.ar` out of `np.array`, and stops at a port.
    """

    _TAIL = r"[^\s()<>\"']*[^\s()<>\"'.,;:!?\]}]"
    _COMMON = (
        "com|org|net|edu|gov|info|biz|app|dev|cloud|online|site|shop|blog|io|ai|co|me|tv|eu|uk|de|at|ch|fr|be|es|it|pt|"
        "nl|pl|se|dk|no|fi|cz|ie|us|ca|mx|br|ar|au|nz|in|jp|kr|cn|ru|za"
    )
    _HOST = r"(?<![\w@./-])(?:[a-z0-9](?:[a-z0-9-]{0,62})\.)+"

    def __init__(self) -> None:
        patterns = [
            Pattern("scheme", rf"\b(?:https?|ftp|wss?)://{self._TAIL}", 0.7),
            Pattern("www", rf"(?<![\w@./-])www\d?\.{self._TAIL}", 0.6),
            Pattern("path", rf"{self._HOST}[a-z]{{2,24}}(?::\d{{1,5}})?/{self._TAIL}", 0.5),
            Pattern(
                "host",
                rf"(?<![\w@./-])(?:[a-z0-9-]{{1,63}}\.)*[a-z0-9-]{{3,63}}\.(?-i:{self._COMMON})"
                r"(?::\d{1,5})?/?(?![\w(@-]|\.\w)",
                0.5,
            ),
        ]
        super().__init__(supported_entity="URL", patterns=patterns, name="Url")


class Nhs(presidio.NhsRecognizer):
    """One in eleven telephone numbers passes the check of a British health number, so context must confirm it."""

    PATTERNS = [  # noqa: RUF012  # declared so by Presidio's own class
        Pattern("nhs", r"(?<![\w.+-])\d{3}[- ]?\d{3}[- ]?\d{4}(?![\w-])", 0.1)
    ]

    def validate_result(self, pattern_text: str) -> bool | None:  # type: ignore[override]  # as its base class has it
        """Never sure by itself."""
        return None if super().validate_result(pattern_text) else False


class ItalianVat(presidio.ItVatCodeRecognizer):
    """One in ten numbers of eleven digits passes the check of a partita IVA, so context must confirm it."""

    def validate_result(self, pattern_text: str) -> bool | None:  # type: ignore[override]  # as its base class has it
        """Never sure by itself."""
        return None if super().validate_result(pattern_text) else False


class FrenchSocialSecurity(PatternRecognizer):
    """France's NIR: 13 digits (2A and 2B for Corsica) and a key, 97 minus the number modulo 97."""

    def __init__(self) -> None:
        form = r"(?<!\w)[1-478] ?\d{2} ?(?:0[1-9]|1[0-2]|[2-9]\d) ?(?:\d{2}|2[AB]) ?\d{3} ?\d{3} ?\d{2}(?!\w)"
        super().__init__(supported_entity="FR_NIR", patterns=[Pattern("nir", form, 0.3)], name="FrenchSocialSecurity")

    def validate_result(self, pattern_text: str) -> bool | None:
        """Whether the key fits."""
        compact = pattern_text.replace(" ", "").upper()
        number = compact[:-2].replace("2A", "19").replace("2B", "18")
        return 97 - int(number) % 97 == int(compact[-2:])


class BrazilianTaxpayer(PatternRecognizer):
    """Brazil's CPF: nine digits and two check digits, modulo 11."""

    def __init__(self) -> None:
        form = r"(?<![\w.-])\d{3}\.?\d{3}\.?\d{3}-?\d{2}(?![\w-])"
        super().__init__(supported_entity="BR_CPF", patterns=[Pattern("cpf", form, 0.3)], name="BrazilianTaxpayer")

    def validate_result(self, pattern_text: str) -> bool | None:
        """Whether both check digits fit."""
        digits = [int(c) for c in pattern_text if c.isdigit()]
        if len(set(digits)) == 1:
            return False
        return all(_modulo_11(digits[:size], size + 1) == digits[size] for size in (9, 10))


class PortugueseTaxpayer(PatternRecognizer):
    """Portugal's NIF: eight digits and a check digit; one in eleven numbers fits, so context must confirm."""

    def __init__(self) -> None:
        super().__init__(
            supported_entity="PT_NIF",
            patterns=[Pattern("nif", r"(?<![\w.-])[1235689]\d{2} ?\d{3} ?\d{3}(?![\w-])", 0.1)],
            context=["nif", "contribuinte", "fiscal", "finanças"],
            name="PortugueseTaxpayer",
        )

    def invalidate_result(self, pattern_text: str) -> bool | None:
        """Whether the check digit does not fit."""
        digits = [int(c) for c in pattern_text if c.isdigit()]
        return _modulo_11(digits[:8], 9) != digits[8]


def _modulo_11(digits: Sequence[int], weight: int) -> int:
    rest = sum(digit * (weight - place) for place, digit in enumerate(digits)) % 11
    return 0 if rest < 2 else 11 - rest


@dataclass(frozen=True, slots=True)
class Rule:
    """A recognizer, where it runs, and what a text must have for it to be worth running."""

    make: Callable[[], PatternRecognizer]
    languages: tuple[str, ...] = LANGUAGES
    digits: int = 0
    """Fewest digits in the text."""
    needs: str = ""
    """A cheap pattern, case-insensitive, without a match of which this recognizer cannot have one."""
    weak: bool = False
    """Whether only a context word can confirm it, so that one must be in the text."""


RULES: Final[tuple[Rule, ...]] = (
    Rule(Email, needs="@"),
    Rule(Url, needs=r"://|[a-z0-9]\.[a-z]{2}|www"),
    Rule(presidio.CreditCardRecognizer, digits=12),
    Rule(presidio.IbanRecognizer, digits=4, needs=r"[a-z]{2}\d{2}[ -]?[a-z0-9]{4}"),
    Rule(presidio.IpRecognizer, needs=r"\d\.\d{1,3}\.\d|:[0-9a-f]{0,4}:"),
    Rule(presidio.MacAddressRecognizer, needs=r"[0-9a-f]{2}[:-][0-9a-f]{2}[:-]|[0-9a-f]{4}\.[0-9a-f]{4}\."),
    Rule(presidio.CryptoRecognizer, digits=1, needs=r"(?:bc1|[13])[a-z0-9]{25}"),
    Rule(presidio.UsSsnRecognizer, digits=9),
    Rule(presidio.UsItinRecognizer, digits=9),
    Rule(Nhs, digits=10, weak=True),
    Rule(presidio.UkNinoRecognizer, digits=6, needs=r"[a-z]{2} ?\d{2} ?\d"),
    Rule(presidio.DeTaxIdRecognizer, digits=11),
    Rule(presidio.DeSocialSecurityRecognizer, digits=11),
    Rule(presidio.EsNifRecognizer, digits=7, needs=r"\d{7}-?[a-z]"),
    Rule(presidio.EsNieRecognizer, digits=7, needs=r"\d{7}-?[a-z]"),
    Rule(presidio.ItFiscalCodeRecognizer, digits=1, needs=r"[a-z]{6}[0-9l-v]{2}"),
    Rule(FrenchSocialSecurity, digits=13),
    Rule(BrazilianTaxpayer, digits=11),
    Rule(presidio.UsPassportRecognizer, ("en",), digits=8, weak=True),
    Rule(presidio.UsBankRecognizer, ("en",), digits=8, weak=True),
    Rule(presidio.UsLicenseRecognizer, ("en",), digits=3, weak=True),
    Rule(presidio.UsMbiRecognizer, ("en",), digits=4),
    Rule(presidio.UkPassportRecognizer, ("en",), digits=7, weak=True),
    Rule(presidio.UkDrivingLicenceRecognizer, ("en",), digits=5, needs=r"[a-z9]{5}\d{6}"),
    Rule(presidio.CaSinRecognizer, ("en",), digits=9),
    Rule(presidio.DeIdCardRecognizer, ("de",), digits=1),
    Rule(presidio.DePassportRecognizer, ("de",), digits=1),
    Rule(presidio.DeTaxNumberRecognizer, ("de",), digits=10),
    Rule(presidio.DeHealthInsuranceRecognizer, ("de",), digits=9),
    Rule(presidio.EsPassportRecognizer, ("es",), digits=6, weak=True),
    Rule(presidio.ItDriverLicenseRecognizer, ("it",), digits=7, weak=True),
    Rule(presidio.ItIdentityCardRecognizer, ("it",), digits=5, weak=True),
    Rule(presidio.ItPassportRecognizer, ("it",), digits=7, weak=True),
    Rule(ItalianVat, ("it",), digits=11, weak=True),
    Rule(PortugueseTaxpayer, ("pt",), digits=9, weak=True),
)
PHONE: Final = "PHONE_NUMBER"
ENTITIES: Final = tuple(sorted({str(rule.make().supported_entities[0]) for rule in RULES} | {PHONE}))
"""Every entity type there is a recognizer for."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A scanner ready to run, with its rule's conditions."""

    scanner: Scanner
    digits: int = 0
    needs: re.Pattern[str] | None = None
    words: re.Pattern[str] | None = None
    """The scanner's context words."""
    weak: bool = False


@dataclass(frozen=True, slots=True)
class Roster:
    """What runs for one language: patterns first, then telephone numbers in what they left."""

    patterns: tuple[Entry, ...]
    phone: Entry | None


def rosters(entities: Sequence[str] | None) -> dict[str | None, Roster]:
    """The roster of each language, and under None that of all; `entities` limits them to some types."""
    made = [(rule, _entry(rule)) for rule in RULES]
    wanted = set(ENTITIES if entities is None else entities)
    found: dict[str | None, Roster] = {}
    for language in (*LANGUAGES, None):
        patterns = tuple(
            entry
            for rule, entry in made
            if entry.scanner.entity in wanted and (language is None or language in rule.languages)
        )
        regions = REGIONS[language] if language else tuple(dict.fromkeys(sum(REGIONS.values(), ())))
        phone = Entry(PhoneScanner(regions), PHONE_DIGITS, None, _any_word(PHONE_CONTEXT)) if PHONE in wanted else None
        found[language] = Roster(patterns, phone)
    return found


def digest(entities: Sequence[str], threshold: float) -> str:
    """What decides the findings, as a digest: entities, patterns, scores, words, regions and the threshold."""
    described: list[object] = [threshold, sorted(entities), PHONE_CONTEXT, REGIONS]
    for rule in RULES:
        scanner = PatternScanner(rule.make())
        described.append([scanner.entity, rule.languages, rule.needs, scanner.context, scanner.sources])
    return f"sha256:{hashlib.sha256(json.dumps(described).encode()).hexdigest()[:16]}"


def _entry(rule: Rule) -> Entry:
    recognizer = rule.make()
    kind = IbanScanner if isinstance(recognizer, presidio.IbanRecognizer) else PatternScanner
    scanner = kind(recognizer)
    needs = re.compile(rule.needs, re.IGNORECASE) if rule.needs else None
    return Entry(scanner, rule.digits, needs, _any_word(scanner.context), rule.weak)


def _any_word(words: Sequence[str]) -> re.Pattern[str] | None:
    if not words:
        return None
    return re.compile(rf"(?<!\w)(?:{'|'.join(re.escape(word) for word in words)})(?!\w)", re.IGNORECASE)
