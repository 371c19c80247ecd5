"""The base of everything on the wire: frozen models, and the name and version of a schema.

It does not know topics or Kafka: `topics` and the runtime do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Self, TypeVar

from pydantic import BaseModel, ConfigDict

from penstock.contracts.errors import UnsupportedSchema

C = TypeVar("C", bound="Contract")

_set = object.__setattr__
_REFERENCE = re.compile(r"^(penstock\.[a-z][a-z0-9-]{0,62})/([1-9][0-9]{0,4})$")


class Contract(BaseModel):
    """A frozen part of a message. Unknown fields are ignored, so that an older reader can follow a newer writer."""

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="null", protected_namespaces=())

    def having(self, **changes: Any) -> Self:
        """A copy with some fields of other values, which are not validated: `model_copy` at a quarter of its time."""
        given = self.__pydantic_fields_set__
        return _assembled(
            type(self), {**self.__dict__, **changes}, given if changes.keys() <= given else given | changes.keys()
        )

    @classmethod
    def trusted(cls, **fields: Any) -> Self:
        """One with exactly these fields, all of them and none validated: `model_construct` at a tenth of its time."""
        return _assembled(cls, fields, set(fields))

    def __deepcopy__(self, memo: Mapping[int, Any] | None = None) -> Self:
        """Itself, which nobody changes: a field's default is otherwise copied for every message that is refused."""
        return self


def _assembled(kind: type[C], fields: dict[str, Any], given: set[str]) -> C:
    made = kind.__new__(kind)
    _set(made, "__dict__", fields)
    _set(made, "__pydantic_fields_set__", given)
    _set(made, "__pydantic_extra__", None)
    _set(made, "__pydantic_private__", None)
    return made


class Message(Contract):
    """A whole record value with its own schema name and version."""

    schema_name: ClassVar[str]
    schema_version: ClassVar[int] = 1
    reads_ahead: ClassVar[int] = 1
    """How many versions beyond its own a reader takes: the next release may be running beside it."""

    @classmethod
    def schema_ref(cls) -> str:
        """The value of the `schema` header, e.g. `penstock.request-preprocessed/1`."""
        return f"{cls.schema_name}/{cls.schema_version}"

    @classmethod
    def accepts(cls, reference: str) -> None:
        """Check a `schema` header against this message.

        Raises UnsupportedSchema where the name is another one or the version is newer than this release reads.
        """
        match = _REFERENCE.fullmatch(reference)
        if match is None:
            raise UnsupportedSchema(
                f"header schema: expected NAME/VERSION such as {cls.schema_ref()}, got {len(reference)} characters "
                "of another form",
                code="unknown_schema",
                field="header schema",
                limit=cls.schema_ref(),
            )
        name, version = match.group(1), int(match.group(2))
        if name != cls.schema_name:
            raise UnsupportedSchema(
                f"header schema: this topic carries {cls.schema_name}, got another schema; publish to the topic "
                "of that schema",
                code="unknown_schema",
                field="header schema",
                limit=cls.schema_ref(),
            )
        newest = cls.schema_version + cls.reads_ahead
        if version > newest:
            raise UnsupportedSchema(
                f"header schema: version {version} is newer than {newest}, the newest this release "
                "reads; upgrade the services or publish the older version",
                code="unsupported_schema_version",
                field="header schema",
                limit=newest,
            )

    def encode(self) -> bytes:
        """The record value: compact JSON, absent fields left out."""
        return self.__pydantic_serializer__.to_json(self, exclude_none=True)


def shape(value: Any) -> str:
    """Describe a value without quoting it: its JSON type and its length."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return f"a string of {len(value)} characters"
        case bytes():
            return f"{len(value)} bytes"
        case dict():
            return f"an object with {len(value)} fields"
        case list() | tuple():
            return f"an array of {len(value)} items"
        case _:
            return "a value of another type"
