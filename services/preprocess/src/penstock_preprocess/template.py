"""The model's chat template, rendered so that the text of a request can never become part of it.

The template never sees the text. It is rendered once with a private marker for each piece, and the
markers are then exchanged for the text, as `PromptPart`s of kind `text` between those of kind `template`.
Whether the template trims a message is seen from the white space put around its marker. The sandbox and
its settings are those of transformers' `apply_chat_template`.

Limits: a template that measures or searches the text (its length, a tag inside it) sees the marker; and
text that a template writes as a JSON string stands there without JSON's escapes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.exceptions import TemplateSyntaxError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from penstock.contracts.errors import ConfigurationError, InvalidRequest, StageError
from penstock.contracts.events import PromptPart

_PAD: Final = "\u2003"
"""White space that templates do not write themselves and that trimming removes."""
_MARKER = re.compile(f"({_PAD}?)\ue000([0-9]+):(content|name)\ue001({_PAD}?)")
_MAX_REASON = 200


@dataclass(frozen=True, slots=True)
class Turn:
    """One message, its text already normalized."""

    role: str
    text: str
    name: str | None = None


class _Refused(TemplateError):
    """The template called raise_exception."""


class _Generation(Extension):
    """`{% generation %}`, which marks what to train on: its body is rendered as it is."""

    tags = {"generation"}  # noqa: RUF012  # declared so by jinja2's own base class

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTemplate:
    """One model's chat template. Raises ConfigurationError where it cannot render a single user message."""

    def __init__(self, source: str, special_tokens: Mapping[str, str], name: str) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _refuse
        self._special_tokens = dict(special_tokens)
        self.digest = f"sha256:{hashlib.sha256(source.encode()).hexdigest()[:16]}"
        try:
            self._template = environment.from_string(source)
            self.render([Turn(role="user", text="x")], now_ms=0)
        except (TemplateSyntaxError, InvalidRequest, StageError) as error:
            raise ConfigurationError(
                f"PENSTOCK_MODEL_DIR: the chat template in {name} does not render one user message "
                f"({type(error).__name__}: {str(error)[:_MAX_REASON]})"
            ) from None

    def render(self, turns: Sequence[Turn], *, now_ms: int) -> tuple[PromptPart, ...]:
        """The prompt up to where the assistant begins.

        Raises InvalidRequest where the template refuses the roles or leaves a message out.
        """
        rendered = self._render(turns, now_ms)
        parts: list[PromptPart] = []
        shown: set[int] = set()
        position = 0
        for match in _MARKER.finditer(rendered):
            _add(parts, PromptPart(kind="template", text=rendered[position : match.start()]))
            position = match.end()
            index, field = int(match.group(2)), match.group(3)
            turn = turns[index]
            text = turn.text if field == "content" else turn.name or ""
            if field == "content":
                shown.add(index)
                text = text if match.group(1) else text.lstrip()
                text = text if match.group(4) else text.rstrip()
            part = PromptPart(kind="text", text=text, role=turn.role, message=index)
            _add(parts, part if field == "content" else part.model_copy(update={"field": field}))
        _add(parts, PromptPart(kind="template", text=rendered[position:]))
        for index, turn in enumerate(turns):
            if turn.text and index not in shown:
                raise InvalidRequest(
                    f"messages[{index}]: the model's chat template leaves out a message of this role at this place",
                    code="template_refused",
                    field=f"messages[{index}].role",
                )
        return tuple(parts)

    def _render(self, turns: Sequence[Turn], now_ms: int) -> str:
        try:
            return self._template.render(
                messages=[_hidden(index, turn) for index, turn in enumerate(turns)],
                add_generation_prompt=True,
                tools=None,
                documents=None,
                strftime_now=datetime.fromtimestamp(now_ms / 1000, UTC).strftime,
                **self._special_tokens,
            )
        except _Refused as error:
            reason = _MARKER.sub("*", str(error))[:_MAX_REASON]
            raise InvalidRequest(
                f"messages: the model's chat template refuses them: {reason}", code="template_refused", field="messages"
            ) from None
        except Exception as error:  # noqa: BLE001  # a template is a program: anything may come out of it
            raise StageError(
                f"the model's chat template failed ({type(error).__name__})", code="template_failed"
            ) from None


def special_tokens_of(config: Mapping[str, Any]) -> dict[str, str]:
    """`bos_token` and the like from `tokenizer_config.json`, each a string or an object with `content`."""
    found: dict[str, str] = {}
    for name, value in config.items():
        if not name.endswith("_token"):
            continue
        content = value.get("content") if isinstance(value, dict) else value
        if isinstance(content, str):
            found[name] = content
    return found


def _hidden(index: int, turn: Turn) -> dict[str, str]:
    # an empty message stays empty, for templates that leave such ones out
    content = f"{_PAD}\ue000{index}:content\ue001{_PAD}" if turn.text else ""
    message = {"role": turn.role, "content": content}
    if turn.name is not None:
        message["name"] = f"\ue000{index}:name\ue001"
    return message


def _add(parts: list[PromptPart], part: PromptPart) -> None:
    if part.text:
        parts.append(part)


def _refuse(message: str) -> NoReturn:
    raise _Refused(message)


def _to_json(value: Any, indent: int | None = None, **_: Any) -> str:
    # as transformers has it: jinja2's own escapes HTML characters
    return json.dumps(value, ensure_ascii=False, indent=indent)
