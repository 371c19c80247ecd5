"""Quotas of the parties' users: what a file declares, what the brokers have, and bringing them to it.

    [upstream]
    producer_byte_rate = 20_971_520    bytes a second, on each broker
    consumer_byte_rate = 20_971_520    likewise
    request_percentage = 100           of one thread of each broker, in percent

Nothing is declared unless somebody does. A party that the file names has exactly what stands there, and none where its
table is empty; a party that it does not name is left alone. Quotas of a user together with a client id, which go
before these, and a user's other quotas are not looked at. The wire is `penstock.runtime.quota_requests`.
"""

from __future__ import annotations

import time
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from penstock.contracts.errors import BackendUnavailable, ConfigurationError
from penstock.contracts.topics import Party
from penstock.runtime.acl import PARTIES, PRINCIPAL_PREFIX
from penstock.runtime.settings import ServiceSettings

TIMEOUT_S = 20.0

Users = Mapping[str, Mapping[str, float]]
"""User -> name of a quota -> its value."""


class Quota(BaseModel):
    """What one party may take of each broker; absent is without limit."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    producer_byte_rate: Annotated[int, Field(gt=0)] | None = None
    """Bytes a second written."""
    consumer_byte_rate: Annotated[int, Field(gt=0)] | None = None
    """Bytes a second read."""
    request_percentage: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Time of request and network threads, in percent of one thread: more than 100 is more than one."""


NAMES: Final = tuple(Quota.model_fields)


@dataclass(frozen=True, slots=True, order=True)
class Row:
    """One quota of one user, as declared and as the brokers have it; None is without limit."""

    user: str
    name: str
    declared: float | None
    present: float | None

    @property
    def ok(self) -> bool:
        """The brokers have what is declared."""
        return self.declared == self.present


def read(file: Path) -> dict[Party, Quota]:
    """The declaration in a TOML file; raises ConfigurationError, naming the file and what is wrong in it."""
    try:
        text = file.read_text(encoding="utf-8")
        return TypeAdapter(dict[Party, Quota]).validate_python(tomllib.loads(text))
    except OSError as error:
        raise ConfigurationError(f"the quotas in {file} cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"{file} is not TOML: {error}") from None
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)[0]
        party, *quota = (str(part) for part in found["loc"] if part != "[key]")
        at = ".".join((party, *quota))
        raise ConfigurationError(
            f"{file}: {at}: {found['msg'][:1].lower()}{found['msg'][1:]}; a table for each of {', '.join(PARTIES)}, "
            f"in it {', '.join(NAMES)}"
        ) from None


def plan(declared: Mapping[Party, Quota], principal_prefix: str = PRINCIPAL_PREFIX) -> dict[str, dict[str, float]]:
    """The quotas of each user that is declared, by the names that brokers have for them."""
    return {
        f"{principal_prefix}{party}": quota.model_dump(exclude_none=True) for party, quota in sorted(declared.items())
    }


def users(principal_prefix: str = PRINCIPAL_PREFIX, parties: Iterable[Party] = PARTIES) -> list[str]:
    """The users that parties run as."""
    return [f"{principal_prefix}{party}" for party in parties]


def compare(wanted: Users, present: Users, ours: Iterable[str]) -> list[Row]:
    """A row for each quota that one of `ours` should have or has."""
    rows = []
    for user in ours:
        declared, there = wanted.get(user, {}), present.get(user, {})
        rows += [
            Row(user, name, declared.get(name), there.get(name)) for name in NAMES if name in {**declared, **there}
        ]
    return rows


def check(settings: ServiceSettings, wanted: Users, ours: Iterable[str]) -> list[Row]:
    """Compare the brokers' quotas with those wanted. Raises as `quota_requests.describe`."""
    from penstock.runtime import quota_requests  # noqa: PLC0415  # aiokafka is an extra

    return compare(wanted, quota_requests.describe(settings), ours)


def apply(settings: ServiceSettings, wanted: Users) -> list[Row]:
    """Give each user that is named exactly what is wanted; what differed before.

    Returns once a broker shows it. Raises BackendUnavailable where none does in 20 s, and as `quota_requests.alter`.
    """
    from penstock.runtime import quota_requests  # noqa: PLC0415  # aiokafka is an extra

    differing = [row for row in check(settings, wanted, wanted) if not row.ok]
    if not differing:
        return []
    changes: dict[str, dict[str, float | None]] = {}
    for row in differing:
        changes.setdefault(row.user, {})[row.name] = row.declared
    quota_requests.alter(settings, changes)
    # brokers learn of what the controller has taken a moment later
    until = time.monotonic() + TIMEOUT_S
    while not all(row.ok for row in check(settings, wanted, wanted)):
        if time.monotonic() > until:
            raise BackendUnavailable(f"the broker did not show the new quotas within {TIMEOUT_S:.0f} s")
        time.sleep(0.1)
    return differing


def remove(settings: ServiceSettings, ours: Iterable[str]) -> list[Row]:
    """Leave these users without a quota of those declared here; what they had. Raises as `apply`."""
    return apply(settings, {user: {} for user in ours})
