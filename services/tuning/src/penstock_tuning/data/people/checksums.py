"""Numbers whose check digits hold, so that what recognizes them by rule recognizes these too.

Methods: Luhn (ISO/IEC 7812-1), IBAN (ISO 13616, mod 97), German tax id (ISO 7064 mod 11,10), Spanish DNI (mod 23),
French NIR (97 minus mod 97), Portuguese NIF (mod 11). American social security numbers have no check digit; areas
that are never given out (000, 666, 9xx) are avoided.
"""

from __future__ import annotations

import random

_BBAN = {"DE": "n18", "FR": "n10c11n2", "ES": "n20", "IT": "u1n10c12", "PT": "n21", "GB": "u4n14"}
_DNI = "TRWAGMYFPDXBNJZSQVHLCKE"
_UPPER = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def digits(draw: random.Random, count: int) -> str:
    """So many random digits."""
    return "".join(draw.choice("0123456789") for _ in range(count))


def card(draw: random.Random) -> str:
    """A payment card number of 15 or 16 digits that passes Luhn, in groups or in one piece."""
    prefix, length = draw.choice((("4", 16), ("51", 16), ("55", 16), ("37", 15), ("6011", 16)))
    body = prefix + digits(draw, length - len(prefix) - 1)
    total = sum(_luhn(int(digit), index) for index, digit in enumerate(reversed(body)))
    number = f"{body}{-total % 10}"
    groups = " ".join(number[at : at + 4] for at in range(0, length, 4))
    return draw.choice((number, groups, groups.replace(" ", "-")))


def _luhn(digit: int, index: int) -> int:
    doubled = digit * 2 if index % 2 == 0 else digit
    return doubled - 9 if doubled > 9 else doubled


def iban(draw: random.Random, country: str) -> str:
    """An IBAN of a country, its check digits right; in groups of four or in one piece."""
    bban, layout = "", _BBAN[country]
    while layout:
        kind, rest = layout[0], layout[1:]
        count = int("".join(_leading_digits(rest)))
        layout = rest[len(str(count)) :]
        letters = {"n": "0123456789", "u": _UPPER, "c": f"0123456789{_UPPER}"}[kind]
        bban += "".join(draw.choice(letters) for _ in range(count))
    check = 98 - _number(f"{bban}{country}00") % 97
    whole = f"{country}{check:02d}{bban}"
    return draw.choice((whole, " ".join(whole[at : at + 4] for at in range(0, len(whole), 4))))


def _leading_digits(text: str) -> str:
    end = next((at for at, letter in enumerate(text) if not letter.isdigit()), len(text))
    return text[:end]


def _number(text: str) -> int:
    return int("".join(str(int(letter, 36)) for letter in text))


def german_tax_id(draw: random.Random) -> str:
    """Eleven digits, the last by ISO 7064 mod 11,10."""
    body = str(draw.randint(1, 9)) + digits(draw, 9)
    product = 10
    for digit in body:
        total = (int(digit) + product) % 10 or 10
        product = total * 2 % 11
    return f"{body}{(11 - product) % 10}"


def spanish_dni(draw: random.Random) -> str:
    """Eight digits and their letter."""
    number = draw.randint(10_000_000, 99_999_999)
    return f"{number}{_DNI[number % 23]}"


def french_nir(draw: random.Random) -> str:
    """Thirteen digits (sex, year, month, place, order) and a key of two."""
    year, month, place = draw.randint(0, 99), draw.randint(1, 12), draw.randint(1, 95)
    body = f"{draw.choice('12')}{year:02d}{month:02d}{place:02d}"
    body += digits(draw, 6)
    return f"{body} {97 - int(body) % 97:02d}"


def portuguese_nif(draw: random.Random) -> str:
    """Nine digits, the last by mod 11."""
    body = draw.choice("123") + digits(draw, 7)
    rest = sum(int(digit) * (9 - index) for index, digit in enumerate(body)) % 11
    return f"{body}{0 if rest < 2 else 11 - rest}"


def american_ssn(draw: random.Random) -> str:
    """Area, group and serial number in the ranges that are given out."""
    area = draw.choice((draw.randint(1, 665), draw.randint(667, 899)))
    return f"{area:03d}-{draw.randint(1, 99):02d}-{draw.randint(1, 9999):04d}"
