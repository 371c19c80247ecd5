"""What preprocess needs of a model: its tokenizer, chat template, special tokens and context length.

Reads the files of a folder in the layout of the onnxruntime-genai builder. The weights are of no
interest here: that is inference.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from penstock.contracts.errors import ConfigurationError
from penstock.text.prompt_tokens import PromptTokenizer
from penstock_preprocess.template import ChatTemplate, special_tokens_of

GENAI_CONFIG: Final = "genai_config.json"
TOKENIZER_CONFIG: Final = "tokenizer_config.json"
TEMPLATE_FILE: Final = "chat_template.jinja"
VARIABLE: Final = "PENSTOCK_MODEL_DIR"


@dataclass(frozen=True, slots=True)
class PromptModel:
    """The prompt side of one model."""

    name: str
    tokenizer: PromptTokenizer
    template: ChatTemplate
    context_tokens: int

    @classmethod
    def from_folder(cls, folder: Path) -> PromptModel:
        """Read a model folder; raises ConfigurationError with what is missing."""
        if not folder.is_dir():
            raise ConfigurationError(f"{VARIABLE}: {folder} is not a folder; give the folder of a model")
        config = _read_json(folder / TOKENIZER_CONFIG)
        return cls(
            name=folder.resolve().name,
            tokenizer=PromptTokenizer.from_folder(folder),
            template=_template(folder, config),
            context_tokens=_context_tokens(folder, _read_json(folder / GENAI_CONFIG)),
        )


def _template(folder: Path, config: dict[str, Any]) -> ChatTemplate:
    path = folder / TEMPLATE_FILE
    special = special_tokens_of(config)
    if path.is_file():
        try:
            return ChatTemplate(path.read_text(encoding="utf-8"), special, str(path))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{VARIABLE}: cannot read {path} ({type(error).__name__})") from None
    declared = config.get("chat_template")
    if isinstance(declared, list):  # several by name, as some models have for the use of tools
        declared = next((entry.get("template") for entry in declared if entry.get("name") == "default"), None)
    if not isinstance(declared, str):
        raise ConfigurationError(
            f"{VARIABLE}: {folder} has no chat template; add {TEMPLATE_FILE}, or chat_template to {TOKENIZER_CONFIG}"
        )
    return ChatTemplate(declared, special, str(folder / TOKENIZER_CONFIG))


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
