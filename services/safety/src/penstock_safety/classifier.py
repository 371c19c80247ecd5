"""The abusive-language classifier: a linear model over hashed n-grams, run by ONNX Runtime.

It scores runs of whole sentences within each window and reports those above a floor. Training, thresholds and
figures are in the tuning package and in the model card beside the model.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock.contracts.errors import ConfigurationError
from penstock_safety.detector import Finding
from penstock_safety.features import FeatureSettings, ngram_ids, pad, segments
from penstock_safety.scale import FLOOR, scaled

# The runtime reports usage to its maker unless told otherwise before the first import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime  # the variable above has to be set first

SHIPPED: Final = Path(str(resources.files("penstock_safety"))) / "models" / "abuse"
LABEL: Final = "abuse"
BATCH_SEGMENTS: Final = 256


class AbuseClassifier:
    """Implements `Detector`. The score is the probability on the scale that every model shares (`scale`)."""

    name = "abuse_classifier"
    labels = frozenset({LABEL})

    def __init__(self, folder: Path = SHIPPED, intra_op_threads: int = 1) -> None:
        """Loads `model.onnx` and `config.json`; raises ConfigurationError where they are missing or do not match."""
        try:
            config = json.loads((folder / "config.json").read_text("utf-8"))
            model = (folder / "model.onnx").read_bytes()
            self.features = FeatureSettings(**config["features"])
            self.flag_threshold = float(config["thresholds"]["flag"])
            self.block_threshold = float(config["thresholds"]["block"])
            expected = str(config["model_sha256"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigurationError(
                f"the abusive-language model in {folder} cannot be read ({type(error).__name__}); it needs model.onnx "
                "and the config.json written with it",
                field="PENSTOCK_SAFETY_ABUSE_MODEL",
            ) from error
        actual = hashlib.sha256(model).hexdigest()
        if actual != expected:
            raise ConfigurationError(
                f"the abusive-language model in {folder} does not match its config.json: model.onnx has another "
                "SHA-256; export both again",
                field="PENSTOCK_SAFETY_ABUSE_MODEL",
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = intra_op_threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        combined = hashlib.sha256(model + json.dumps(config, sort_keys=True).encode()).hexdigest()
        self.digest = f"sha256:{combined[:16]}"

    def detect(self, windows: Sequence[str]) -> list[list[Finding]]:
        """One list of findings per window; all segments of all windows go through the model together."""
        places: list[tuple[int, int, int]] = []
        texts: list[str] = []
        for index, window in enumerate(windows):
            for start, end in segments(window, self.features):
                places.append((index, start, end))
                texts.append(window[start:end])
        found: list[list[Finding]] = [[] for _ in windows]
        for begin in range(0, len(texts), BATCH_SEGMENTS):
            batch = self.probabilities(texts[begin : begin + BATCH_SEGMENTS])
            for (index, start, end), probability in zip(places[begin : begin + BATCH_SEGMENTS], batch, strict=True):
                score = self.score(float(probability))
                if score >= FLOOR:
                    found[index].append(Finding(LABEL, score, start, end, self.name))
        return found

    def probabilities(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The model's probability of each text, shape (texts,)."""
        ids = pad([ngram_ids(text, self.features) for text in texts])
        (output,) = self._session.run(["probability"], {"ids": ids})
        probabilities: NDArray[np.float32] = output
        return probabilities

    def score(self, probability: float) -> float:
        """The probability on the shared scale."""
        return scaled(probability, self.flag_threshold, self.block_threshold)
