"""What preprocess needs of a model: its tokenizer, chat template, special tokens and context length.

Reads the files of a folder in the layout of the onnxruntime-genai builder. The weights are of no
interest here: that is inference.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from penstock.contracts.errors import ConfigurationError
from penstock.models.digests import CONFIG_FILE as GENAI_CONFIG
from penstock.models.folders import TEMPLATE_FILE, TOKENIZER_CONFIG, chat_template
from penstock.text.prompt_tokens import PromptTokenizer
from penstock_preprocess.template import ChatTemplate, special_tokens_of

VARIABLE: Final = "PENSTOCK_MODEL_DIR"


@dataclass(frozen=True, slots=True)
class PromptModel:
    """The prompt side of one model."""

    name: str
    tokenizer: PromptTokenizer
    template: ChatTemplate
    context_tokens: int
    also: tuple[str, ...] = ()
    """Other names that requests may give it."""
    adapters: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Names of its adapters -> the versions that an event has for one."""

    @property
    def names(self) -> tuple[str, ...]:
        """All its names, its own first, then its adapters', each once."""
        return tuple(dict.fromkeys((self.name, *self.also, *self.adapters)))

    @classmethod
    def from_folder(cls, folder: Path, name: str | None = None, *, also: tuple[str, ...] = ()) -> PromptModel:
        """Read a model folder, whose name is the model's where none is given; raises ConfigurationError."""
        if not folder.is_dir():
            raise ConfigurationError(f"{VARIABLE}: {folder} is not a folder; give the folder of a model")
        config = _read_json(folder / TOKENIZER_CONFIG)
        return cls(
            name=name or folder.resolve().name,
            tokenizer=PromptTokenizer.from_folder(folder),
            template=_template(folder, config),
            context_tokens=_context_tokens(folder, _read_json(folder / GENAI_CONFIG)),
            also=also,
        )


def _template(folder: Path, config: dict[str, Any]) -> ChatTemplate:
    try:
        found = chat_template(folder, config)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{VARIABLE}: cannot read {folder / TEMPLATE_FILE} ({type(error).__name__})") from None
    if found is None:
        raise ConfigurationError(
            f"{VARIABLE}: {folder} has no chat template; add {TEMPLATE_FILE}, or chat_template to {TOKENIZER_CONFIG}"
        )
    source, place = found
    return ChatTemplate(source, special_tokens_of(config), str(place))


def _context_tokens(folder: Path, config: dict[str, Any]) -> int:
    model = config.get("model")
    length = model.get("context_length") if isinstance(model, dict) else None
    if not isinstance(length, int) or isinstance(length, bool) or length < 2:
        raise ConfigurationError(
            f"{VARIABLE}: {folder / GENAI_CONFIG} has no model.context_length; export the model anew"
        )
    return length


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"{VARIABLE}: cannot read {path} ({error.strerror})") from None
    except ValueError:
        raise ConfigurationError(f"{VARIABLE}: {path} is not JSON") from None
    if not isinstance(document, dict):
        raise ConfigurationError(f"{VARIABLE}: {path} holds no JSON object")
    return document
