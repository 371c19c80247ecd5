"""Requests with personal data that exists nowhere else: every value is made once, from a seed, and is well-formed.

E-mail domains and addresses lie in the ranges kept for documentation and private use; numbers carry valid
check digits, so that a recognizer that verifies them does not pass them over.
"""

from __future__ import annotations

import json
import random
import string
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.support.kafka import Publishing

from penstock.contracts.events import Priority

KINDS = ("email", "phone", "iban", "card", "ip", "ssn")
_NOUNS = {
    "email": "e-mail address",
    "phone": "phone number",
    "iban": "IBAN",
    "card": "credit card number",
    "ip": "IP address",
    "ssn": "social security number",
}
_CITIES = ("212", "312", "415", "617", "713", "206")


@dataclass
class CanaryRequest:
    """One request and the personal data in it."""

    publishing: Publishing
    request_id: str
    canaries: list[str] = field(default_factory=list)
    user: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    stream: bool = False


class Canaries:
    """Makes values and requests; the same for the same seed and order."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._seed = seed
        self._made: set[str] = set()

    def requests(self, count: int) -> list[CanaryRequest]:
        """`count` requests: each kind in turn in the last message, more of them in every other place there is."""
        return [self._request(number) for number in range(count)]

    def value(self, kind: str) -> str:
        """A value of a kind that was not made before."""
        make: dict[str, Callable[[], str]] = {
            "email": self._email,
            "phone": self._phone,
            "iban": self._iban,
            "card": self._card,
            "ip": self._ip,
            "ssn": self._ssn,
        }
        while (value := make[kind]()) in self._made:
            pass
        self._made.add(value)
        return value

    def _request(self, number: int) -> CanaryRequest:
        kind = KINDS[number % len(KINDS)]
        canaries: list[str] = []

        def new(kind: str) -> str:
            canaries.append(self.value(kind))
            return canaries[-1]

        messages = []
        if number % 7 == 0:
            messages.append({"role": "system", "content": f"The caller's IP address is {new('ip')}. Be brief."})
        if number % 2:
            other = KINDS[(number // 2) % len(KINDS)]
            given = new(other)
            messages += [
                {"role": "user", "content": f"Hello, my {_NOUNS[other]} is {given}, write it down."},
                {"role": "assistant", "content": f"Noted: {given}."},
            ]
        messages.append({"role": "user", "content": f"My {_NOUNS[kind]} is {new(kind)}. Please confirm."})
        body: dict[str, object] = {"messages": messages, "max_tokens": 24}
        request = CanaryRequest(Publishing(b""), f"canary-{self._seed}-{number}", canaries)
        if number % 3 == 0:
            body["user"] = request.user = new("email")
        if number % 3 == 1:
            request.metadata = {"contact": new("phone"), "account": new("iban"), "origin": new("ip")}
            body["metadata"] = request.metadata
        if number % 4 == 0:
            body["stop"] = [new("email"), f"card {new('card')}"]
        if number % 5 == 0:
            body["stream"] = request.stream = True
        if number % 11 == 0:
            schema = {"type": "object", "properties": {"contact": {"type": "string", "examples": [new("email")]}}}
            body["response_format"] = {"type": "json_schema", "json_schema": {"name": "contact", "schema": schema}}
            messages[-1]["content"] = f"Answer as JSON with the key {kind}. {messages[-1]['content']}"
        if number % 13 == 0:
            messages[-1]["name"] = new("email")
        headers = [("request-id", request.request_id.encode()), ("x-customer", new("email").encode())]
        key = None
        if number % 6 in (2, 3):
            # two requests of one conversation, whose placeholders are kept from one to the next
            key = f"conversation-{self._seed}-{number // 2}".encode()
            headers.append(("conversation-id", key))
        lane: Priority = "bulk" if number % 6 in (4, 5) else "interactive"
        request.publishing = Publishing(json.dumps(body).encode(), headers, key, lane)
        return request

    def _digits(self, count: int) -> str:
        return "".join(self._random.choices(string.digits, k=count))

    def _letters(self, count: int) -> str:
        return "".join(self._random.choices("bcdfghjklmnpqrstvwxz", k=count))

    def _email(self) -> str:
        return f"{self._letters(6)}.{self._letters(6)}{self._digits(2)}@{self._letters(9)}.example.org"

    def _phone(self) -> str:
        area, exchange = self._random.choice(_CITIES), self._random.randint(223, 899)
        line = self._random.randint(1000, 9999)
        if exchange % 100 == 11:
            exchange += 1
        form = self._random.choice(("+1 {}-{}-{}", "+1 {} {} {}", "({}) {}-{}"))
        return form.format(area, exchange, line)

    def _iban(self) -> str:
        account = self._digits(18)
        # ISO 13616: DE is 1314 when letters count from A = 10
        check = 98 - int(account + "131400") % 97
        plain = f"DE{check:02d}{account}"
        spaced = " ".join(plain[start : start + 4] for start in range(0, len(plain), 4))
        return self._random.choice((plain, spaced))

    def _card(self) -> str:
        digits = [int(digit) for digit in "4" + self._digits(14)]
        doubled = [sum(divmod(digit * 2, 10)) if place % 2 == 0 else digit for place, digit in enumerate(digits)]
        plain = "".join(map(str, digits)) + str(-sum(doubled) % 10)
        separator = self._random.choice(("", " ", "-"))
        return separator.join(plain[start : start + 4] for start in range(0, 16, 4))

    def _ip(self) -> str:
        return "10." + ".".join(str(self._random.randint(100, 255)) for _ in range(3))

    def _ssn(self) -> str:
        area = self._random.randint(100, 665)
        return f"{area}-{self._random.randint(10, 99)}-{self._random.randint(1000, 9999)}"
