"""Prompt parts to token ids: the one rule that counting (preprocess) and generating (inference) share.

`template` parts may hold the model's control tokens. `text` parts come from outside and are encoded
as plain text: `<|im_start|>` typed by a user becomes the ordinary tokens of its characters. Each part
is encoded alone and the ids are joined; nothing is added at the ends, since chat templates write their
own begin-of-text token.

It renders no templates and decodes nothing; `tokenizer` is there for whoever does.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.contracts.errors import ConfigurationError, StageError
from penstock.contracts.events import PromptPart
from penstock.text.placeholders import PLACEHOLDER

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZER_FILE = "tokenizer.json"


class PromptTokenizer:
    """A model's tokenizer, and a second reading of it for which control tokens do not exist.

    Raises ConfigurationError where the file is no tokenizer, or where plain text would still yield
    one of its control tokens (possible with vocabularies that hold them as ordinary pieces).
    """

    def __init__(self, source: bytes, name: str = TOKENIZER_FILE) -> None:
        # imported here so that the contracts' users need not install it
        from tokenizers import Tokenizer  # noqa: PLC0415  # an extra: only services with a model have it

        try:
            declared: dict[str, Any] = json.loads(source)
            self.tokenizer: Tokenizer = Tokenizer.from_str(source.decode())
            controls = [added for added in declared.get("added_tokens", ()) if not _is_plain(added)]
            for added in controls:
                added["special"] = True  # what is special can be switched off in one place below
            self._plain: Tokenizer = Tokenizer.from_str(json.dumps(declared))
        except Exception as error:  # the library raises bare Exception for a bad file
            raise ConfigurationError(
                f"PENSTOCK_MODEL_DIR: {name} is not a tokenizer this release can read ({type(error).__name__})"
            ) from error
        for reading in (self.tokenizer, self._plain):
            reading.no_truncation()
            reading.no_padding()
        self._plain.encode_special_tokens = True
        self.digest = f"sha256:{hashlib.sha256(source).hexdigest()[:16]}"
        self._controls = frozenset(int(added["id"]) for added in controls) - _unknown_ids(declared)
        self._check(name, [str(added["content"]) for added in controls])

    @classmethod
    def from_folder(cls, folder: Path) -> PromptTokenizer:
        """Read `tokenizer.json` of a model folder; raises ConfigurationError."""
        path = folder / TOKENIZER_FILE
        try:
            source = path.read_bytes()
        except OSError as error:
            raise ConfigurationError(
                f"PENSTOCK_MODEL_DIR: cannot read {path} ({error.strerror}); give the folder of a model"
            ) from error
        return cls(source, str(path))

    @property
    def vocabulary_size(self) -> int:
        """Number of token ids, control tokens included."""
        return int(self.tokenizer.get_vocab_size(with_added_tokens=True))

    def encode_text(self, text: str) -> list[int]:
        """Token ids of text from outside; never a control token."""
        ids: list[int] = self._plain.encode(text, add_special_tokens=False).ids
        if not self._controls.isdisjoint(ids):
            raise StageError("a text part was encoded to a control token", code="forged_control_token")
        return ids

    def encode_template(self, text: str) -> list[int]:
        """Token ids of a piece of the chat template; control tokens are recognized."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def encode(self, parts: Iterable[PromptPart]) -> list[int]:
        """Token ids of the whole prompt, each part by its kind."""
        ids: list[int] = []
        for part in parts:
            ids += self.encode_template(part.text) if part.kind == "template" else self.encode_text(part.text)
        return ids

    def _check(self, name: str, contents: Sequence[str]) -> None:
        """Refuse a tokenizer whose plain reading still yields control tokens, or other ids than the model's own."""
        for content in contents:
            if self.tokenizer.token_to_id(content) != self._plain.token_to_id(content):
                raise ConfigurationError(f"PENSTOCK_MODEL_DIR: {name} gives its added tokens ids that are not stable")
            for probe in (content, f"a{content}b", f" {content} "):
                if not self._controls.isdisjoint(self._plain.encode(probe, add_special_tokens=False).ids):
                    raise ConfigurationError(
                        f"PENSTOCK_MODEL_DIR: {name} encodes the plain text of a control token as that token, so a "
                        "prompt could forge turns of the conversation; use a model with a byte-pair vocabulary"
                    )


def _is_plain(added: dict[str, Any]) -> bool:
    """Whether an added token is ordinary text: white space, which some vocabularies add, or a typed placeholder.

    Placeholders may stand in text: anonymize writes them, and gives what merely looks like one another name.
    """
    content = str(added.get("content", ""))
    return not added.get("special") and (not content.strip() or PLACEHOLDER.fullmatch(content) is not None)


def _unknown_ids(declared: dict[str, Any]) -> frozenset[int]:
    """The id of the unknown token, which plain text may well yield."""
    model = declared.get("model", {})
    unknown = model.get("unk_token")
    vocabulary = model.get("vocab", {})
    if isinstance(unknown, str) and isinstance(vocabulary, dict) and unknown in vocabulary:
        return frozenset({int(vocabulary[unknown])})
    return frozenset()
