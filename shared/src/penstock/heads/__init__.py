"""A trained folder of heads under ONNX Runtime: texts to probabilities, spans and vectors.

windows    how a text becomes rows of tokens, in training and in use alike
spans      neighbouring tokens of one label as places in the text
config     what `config.json` says of the heads, checked
runtime    the folder opened and run
kept       answers by the digest of their text, for what comes again

Needs `penstock[embeddings]`. It knows no Kafka, trains nothing, and leaves what follows from an answer to the services.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

SHIPPED: Final = Path("deploy/models/penstock-heads")
"""The folder that comes with Penstock, from the top of a checkout or an image's working folder."""
