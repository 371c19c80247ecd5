"""The model card, made from the run record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock_tuning.training.attribution import NOTICE
from penstock_tuning.training.folder import front_matter

_WEIGHTS = "int8, matrices with a scale for each column (dynamic quantization, 7 bits used), embeddings for each row"


def model_card(record: Mapping[str, Any], origins: list[str]) -> str:
    """Front matter as on the Hugging Face hub, then what a reader must know."""
    shape, metrics = record["configuration"]["shape"], record["metrics"]
    front = front_matter(
        record, origins, task="fill-mask", measured_on="held-out sources", kind="penstock-text-validation"
    )
    sizes = (shape["layers"], shape["width"], shape["heads"], shape["feed_forward"])
    architecture = "{} layers, width {}, {} heads, gated units of {}".format(*sizes)
    phases = ", ".join(f"{one['tokens']:,} in rows of {one['length']}" for one in record["configuration"]["phases"])
    return f"""{front}
# {record["name"]}

A bidirectional encoder of {record["parameters"] / 1e6:.1f} million parameters: the base of Penstock's small
classifiers. By itself it gives a vector for each token and decides nothing.

| | |
| --- | --- |
| architecture | ModernBERT with full attention: {architecture} |
| vocabulary | {shape["vocabulary"]}: byte-level BPE, digits one by one, offsets into the text as it was given |
| context | {shape["context"]} tokens |
| weights | {metrics["int8_megabytes"]} MB: {_WEIGHTS} |
| inputs | `input_ids`, `attention_mask`, int64 `[batch, tokens]` |
| output | `last_hidden_state`, float32 `[batch, tokens, {shape["width"]}]`; padding's means nothing |
| languages | English first; German, French, Spanish, Italian, Portuguese |
| licence | Apache-2.0; attribution of the training sets in `{NOTICE}` |

## Training

Masked tokens ({record["configuration"]["masking"]["share"]:.0%}, whole words), tokens read: {phases}. The text:
{record["data"]["train"]["tokens"]:,} tokens of {len(origins)} public sets; sources that any measurement uses are not
among them. {record["seconds"]["pretraining"] / 60:.0f} minutes on {record["hardware"]["processor"]}
({record["hardware"]["cores"]} cores, {record["hardware"]["device"]}); all of it in `run.json`.

## Measured

On text of sources that training never saw, in nats for each masked token: {metrics["fp32_loss"]} in fp32,
{metrics["int8_loss"]} in int8. Hidden states in int8 have a cosine of {metrics["mean_cosine"]} with those in fp32, the
worst hundredth at most {metrics["low_cosine"]}.

## Limits

It has read little beside encoders of its size that others publish, and knows few facts. What heads on it can do is
measured with them, not here.
"""
