"""Fits the linear model over hashed n-grams and keeps it as plain arrays.

Logistic regression over binary features scaled to unit length. Export to ONNX and measurement are in their
own modules.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import structlog
from numpy.typing import NDArray
from scipy.sparse import csr_matrix  # type: ignore[import-untyped,import-not-found,unused-ignore]  # it has no types
from sklearn.linear_model import LogisticRegression

from penstock_safety.features import FeatureSettings, ngram_ids
from penstock_tuning.abuse.split import Split

log = structlog.get_logger(__name__)

INVERSE_REGULARIZATION = 3.0
"""The best of 1, 3, 10 and 40 by recall on a twenty-fifth of the training rows kept aside."""


@dataclass(frozen=True)
class Weights:
    """`table` has one weight per bucket, `table[0]` (padding) is 0. Score = table[ids].sum()/sqrt(n) + bias."""

    table: NDArray[np.float32]
    bias: float
    features: FeatureSettings

    def save(self, path: Path) -> None:
        np.savez_compressed(path, table=self.table, bias=self.bias, features=json.dumps(asdict(self.features)))

    @classmethod
    def load(cls, path: Path) -> Weights:
        with np.load(path) as stored:
            features = FeatureSettings(**json.loads(str(stored["features"])))
            return cls(stored["table"].astype(np.float32), float(stored["bias"]), features)


def matrix(texts: list[str], settings: FeatureSettings) -> csr_matrix:
    """Rows of unit length over `settings.buckets` columns."""
    columns: list[NDArray[np.int32]] = []
    values: list[NDArray[np.float32]] = []
    bounds = [0]
    for text in texts:
        ids = ngram_ids(text, settings).astype(np.int32)
        columns.append(ids)
        values.append(np.full(len(ids), 1.0 / np.sqrt(max(len(ids), 1)), dtype=np.float32))
        bounds.append(bounds[-1] + len(ids))
    return csr_matrix(
        (np.concatenate(values), np.concatenate(columns), np.array(bounds, dtype=np.int64)),
        shape=(len(texts), settings.buckets),
    )


def fit(split: Split, settings: FeatureSettings, iterations: int) -> Weights:
    """Trains on `split.texts`; minutes on one core and about 2 GB for 200,000 rows."""
    features = matrix(split.texts, settings)
    log.info("abuse.train.featurized", rows=features.shape[0], nonzeros=int(features.nnz))
    labels = np.array(split.labels)
    model = LogisticRegression(C=INVERSE_REGULARIZATION, max_iter=iterations, tol=1e-6, solver="lbfgs")
    model.fit(features, labels)
    table = model.coef_[0].astype(np.float32)
    table[0] = 0.0
    log.info("abuse.train.fitted", positives=int(labels.sum()), iterations=int(model.n_iter_[0]))
    return Weights(table, float(model.intercept_[0]), settings)
