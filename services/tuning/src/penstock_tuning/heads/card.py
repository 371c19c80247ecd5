"""The model card of heads, made from the run record and from what the folder's configuration says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock_tuning.training.attribution import NOTICE
from penstock_tuning.training.folder import front_matter

_OUTPUTS = {
    "similarity": "`token_embeddings` `[batch, tokens, {dimensions}]` and `embedding` `[batch, {dimensions}]`",
    "safety": "`safety` `[batch, 17]` and `safety_tokens` `[batch, tokens, 17]`",
    "pii": "`pii` `[batch, tokens, 6]`",
    "entailment": "`entailment` `[batch, 1]`, of a response and its evidence as a pair",
}


def model_card(record: Mapping[str, Any], said: Mapping[str, Any], origins: list[str]) -> str:
    """Front matter as on the Hugging Face hub, then what a reader must know."""
    recipe, metrics = record["configuration"], record["metrics"]
    front = front_matter(
        record,
        origins,
        task="text-classification",
        measured_on="sources kept apart to calibrate",
        kind="penstock-calibration",
    )
    tasks = [task for task in _OUTPUTS if task in recipe["shares"]]
    outputs = "; ".join(_OUTPUTS[task].format(dimensions=recipe["dimensions"]) for task in tasks)
    minutes = record["seconds"]["training"] / 60
    sizes = ", ".join(f"{name} {one['rows']:,} windows" for name, one in record["data"]["tasks"].items())
    begun = "a pretrained encoder" if recipe["pretrained"] else "random weights, to compare with"
    return f"""{front}
# {record["name"]}

Penstock's small classifiers: an encoder of {record["parameters"] / 1e6:.1f} million parameters and heads on it. One
pass gives all outputs; a service asks for those that it needs.

| | |
| --- | --- |
| weights | {metrics["int8_megabytes"]} MB; the encoder in int8, the heads in fp32 |
| inputs | `input_ids`, `attention_mask`, int64 `[batch, tokens]` |
| outputs | {outputs} |
| windows | {recipe["windows"]["tokens"]} tokens, {recipe["windows"]["overlap"]} shared; a text has the highest \
probability of its windows |
| languages | English first; German, French, Spanish, Italian, Portuguese |
| licence | Apache-2.0; attribution of the training sets in `{NOTICE}` |

## Training

From {begun}: {record["tokens"]:,} tokens in {record["steps"]:,} steps, each of one task ({sizes}).
{minutes:.0f} minutes on {record["hardware"]["processor"]} ({record["hardware"]["cores"]} cores,
{record["hardware"]["device"]}); all of it in `run.json`.

## Probabilities and thresholds

Outputs are calibrated probabilities: the calibration is folded into the weights. Labels with fewer than 20 texts of
either class to calibrate on keep the probabilities that training gave them. Thresholds for flagging let all labels
together flag {recipe["calibration"]["flag_rate"]:.1%} of ordinary texts of sources kept apart, those for blocking a
tenth of that.

{_table(said, metrics)}
## Measured on sources kept apart

Neither training nor these figures have read a test source.

| | |
| --- | --- |
{_rows(metrics)}

## Limits

Public sets name what is harmful unevenly: of most categories of harm there are a few hundred examples. Attacks of a
kind that no public set has will pass. Names in languages other than those above are found less often.
"""


def _table(said: Mapping[str, Any], metrics: Mapping[str, float]) -> str:
    if "safety" not in said:
        return ""
    lines = ["| label | flag | block | texts to calibrate on | recall at flag |", "| --- | --- | --- | --- | --- |"]
    for label, limits in said["safety"]["thresholds"].items():
        own = said["safety"]["calibration"][label]
        counts = f"{own['positives']} of {own['positives'] + own['negatives']}"
        recall = metrics.get(f"{label}_recall", "")
        lines.append(f"| {label} | {limits['flag']:.3f} | {limits['block']:.3f} | {counts} | {recall} |")
    return "\n".join(lines) + "\n"


def _rows(metrics: Mapping[str, float]) -> str:
    return "\n".join(f"| {name} | {value} |" for name, value in metrics.items() if not name.endswith("_recall"))
