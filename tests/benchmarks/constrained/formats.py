"""The formats that the schemas name, checked by parsing: jsonschema alone passes those it has no package for."""

from __future__ import annotations

import re
from datetime import date, datetime
from ipaddress import IPv4Address, IPv6Address
from uuid import UUID

from jsonschema import FormatChecker

CHECKER = FormatChecker(formats=())
_DATE = r"\d{4}-\d\d-\d\d"
_TIME = r"(\d\d:\d\d):(\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)"
_EMAIL = re.compile(r"[^@\s\"]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*\Z")


@CHECKER.checks("date", ValueError)
def _date(value: object) -> bool:
    return not isinstance(value, str) or (_is(_DATE, value) and bool(date.fromisoformat(value)))


@CHECKER.checks("time", ValueError)
def _time(value: object) -> bool:
    return not isinstance(value, str) or (_is(_TIME, value) and _moment(f"2000-01-01T{value}"))


@CHECKER.checks("date-time", ValueError)
def _date_time(value: object) -> bool:
    return not isinstance(value, str) or (_is(f"{_DATE}T{_TIME}", value) and _moment(value))


def _is(pattern: str, text: str) -> bool:
    return re.fullmatch(pattern, text, re.IGNORECASE | re.ASCII) is not None


def _moment(text: str) -> bool:
    """By RFC 3339, whose minutes may have a second 60, and fractions any length; datetime's have not."""
    whole = re.sub(r"\.\d+", "", re.sub(r"(T\d\d:\d\d):60", r"\1:59", text.upper()))
    return datetime.fromisoformat(whole).tzinfo is not None


@CHECKER.checks("ipv4", ValueError)
def _ipv4(value: object) -> bool:
    return not isinstance(value, str) or bool(IPv4Address(value).packed)


@CHECKER.checks("ipv6", ValueError)
def _ipv6(value: object) -> bool:
    return not isinstance(value, str) or bool(IPv6Address(value).packed)


@CHECKER.checks("uuid", ValueError)
def _uuid(value: object) -> bool:
    return not isinstance(value, str) or str(UUID(value)) == value.lower()


@CHECKER.checks("email")
def _email(value: object) -> bool:
    return not isinstance(value, str) or _EMAIL.match(value) is not None
