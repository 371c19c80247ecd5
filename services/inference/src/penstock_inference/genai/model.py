"""A model folder opened by onnxruntime-genai, and sequences on it: tokens in, the next token's logits out.

The library is an extra, imported here and nowhere else. Its generators are fed tokens that were chosen outside
(`append_tokens`, `get_logits`): its own sampling is not used, so that every parameter means what it means elsewhere.
Each sequence has a key/value cache of its own, as long as its prompt and answer may get.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from penstock.contracts.errors import ConfigurationError
from penstock_inference.engine import Logits
from penstock_inference.layout import Sizes
from penstock_inference.runner import Limits
from penstock_inference.session import spinning

LIBRARY: Final = "onnxruntime-genai"
_ITEM: Final = 4
"""Bytes: float32, the widest that the builder makes caches and logits of."""


class Line:
    """One sequence of tokens and its cache."""

    def __init__(self, generator: Any) -> None:
        self._generator = generator

    def push(self, ids: Sequence[int]) -> None:
        """Run the model over the next tokens: a stretch of the prompt, or the token that was chosen last."""
        self._generator.append_tokens(np.asarray(ids, dtype=np.int32))

    def logits(self) -> Logits:
        """What the model says of the token after the last one pushed: [vocabulary]."""
        logits: Logits = np.asarray(self._generator.get_logits(), dtype=np.float32)  # [1, 1, vocabulary]
        last: Logits = logits[0, -1]
        return last


class GenaiModel:
    """An opened folder. Raises ConfigurationError where the folder, the library or the limits do not fit."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        if limits.provider != "cpu":
            raise ConfigurationError(
                f"PENSTOCK_INFERENCE_PROVIDER: {limits.provider} is for the engine `penstock` alone; leave it out, or "
                "set PENSTOCK_INFERENCE_ENGINE and the targets' `engine` to that"
            )
        sizes = Sizes.read(folder)
        self.rows = limits.rows
        self.context_length = min(sizes.context_length, limits.context or sizes.context_length)
        self.vocabulary_size = sizes.vocabulary_size
        self.eos_ids = sizes.eos_ids
        longest = min(limits.step_tokens, self.context_length)
        logits = longest * self.vocabulary_size * _ITEM
        token = sizes.layers * 2 * sizes.kv_heads * sizes.head_size * _ITEM
        self.cache_tokens = ((limits.memory_mib << 20) - logits) // token
        """Tokens that all sequences may hold together."""
        if self.cache_tokens < self.context_length:
            raise ConfigurationError(
                f"PENSTOCK_INFERENCE_MEMORY_MIB: {limits.memory_mib} MiB are too few for one sequence of "
                f"{self.context_length} tokens and the logits of {longest}, which need "
                f"{((logits + token * self.context_length) >> 20) + 1}; raise it, or lower "
                "PENSTOCK_INFERENCE_CONTEXT or PENSTOCK_INFERENCE_STEP_TOKENS"
            )
        self._library = _import()
        self.version = str(self._library.__version__)
        self._model = self._open(folder, limits)

    def begin(self, length: int) -> Line:
        """A new sequence of at most `length` tokens."""
        parameters = self._library.GeneratorParams(self._model)
        parameters.set_search_options(do_sample=False, max_length=length)
        return Line(self._library.Generator(self._model, parameters))

    def _open(self, folder: Path, limits: Limits) -> Any:
        options = {
            "intra_op_num_threads": limits.threads,
            "inter_op_num_threads": 1,
            "log_severity_level": 3,
            **spinning(limits.spin_us),
        }
        try:
            config = self._library.Config(str(folder))
            config.overlay(json.dumps({"model": {"decoder": {"session_options": options}}}))
            return self._library.Model(config)
        except Exception as error:  # the library's errors share no base below Exception
            raise ConfigurationError(
                f"PENSTOCK_MODEL_DIR: {LIBRARY} cannot open {folder} ({type(error).__name__})"
            ) from error


def _import() -> Any:
    try:
        import onnxruntime_genai  # noqa: PLC0415  # an extra: only who asks for it has it
    except ImportError as error:
        raise ConfigurationError(
            f"PENSTOCK_INFERENCE_ENGINE: {LIBRARY} is not installed, or not for this machine; "
            "install penstock-inference[genai], or leave the setting out"
        ) from error
    return onnxruntime_genai
