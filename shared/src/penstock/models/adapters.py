"""LoRA adapters in the layout of PEFT: which folders are taken, and what is checked against the model they are for.

A folder has `adapter_config.json` and `adapter_model.safetensors`
(https://huggingface.co/docs/peft/developer_guides/checkpoint). Whatever the configuration asks for that is not
computed here, such as DoRA or modules saved whole, is refused: answers would quietly be others than in training.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from penstock.models.digests import CONFIG_FILE
from penstock.models.errors import ModelRefused
from penstock.models.folders import ModelFolder, graph_name, is_card, read_object, refuse_pickles
from penstock.models.projections import Projection, projections
from penstock.models.safetensors import Tensor, tensors

ADAPTER_CONFIG: Final = "adapter_config.json"
ADAPTER_WEIGHTS: Final = "adapter_model.safetensors"
TYPES: Final = ("F32", "F16", "BF16")

_TENSOR = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
_NOT_COMPUTED = (
    *("use_dora", "use_qalora", "lora_bias", "fan_in_fan_out", "modules_to_save", "trainable_token_indices"),
    *("rank_pattern", "alpha_pattern", "layer_replication", "target_parameters", "alora_invocation_tokens"),
    *("arrow_config", "use_bdlora", "monteclora_config"),
)
_KEEP_THE_BASE = frozenset({"gaussian", "eva", "orthogonal", "true", "false"})
"""Ways to begin the training that leave the model's own weights as they are; others change these too."""


@dataclass(frozen=True, slots=True)
class LoraConfig:
    """What an adapter's configuration says."""

    rank: int
    scale: float
    targets: tuple[str, ...]
    """As it lists them; empty where it gives a pattern instead."""
    base_model: str | None

    @classmethod
    def read(cls, path: Path) -> LoraConfig:
        """The configuration in a file; raises ModelRefused naming the field that is wrong or not computed."""
        config = read_object(path)
        if config.get("peft_type") != "LORA":
            raise ModelRefused(f"{path}: peft_type is not LORA; only LoRA adapters are served")
        if config.get("task_type") not in (None, "CAUSAL_LM"):
            raise ModelRefused(f"{path}: task_type is not CAUSAL_LM; the adapter is not for generating text")
        for name in _NOT_COMPUTED:
            if config.get(name):
                raise ModelRefused(f"{path}: {name} is set, which is not computed here; train the adapter without it")
        if config.get("bias", "none") != "none":
            raise ModelRefused(f"{path}: bias is not none; train the adapter without biases")
        begun = config.get("init_lora_weights", True)
        if str(begun).lower() not in _KEEP_THE_BASE:
            raise ModelRefused(
                f"{path}: init_lora_weights changes the model's own weights; convert the adapter to plain "
                "LoRA (`path_initial_model_for_weight_conversion` of save_pretrained)"
            )
        rank, alpha = config.get("r"), config.get("lora_alpha")
        if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
            raise ModelRefused(f"{path}: r is no rank, a whole number of at least 1")
        if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not math.isfinite(alpha):
            raise ModelRefused(f"{path}: lora_alpha is no number")
        base = config.get("base_model_name_or_path")
        return cls(
            rank=rank,
            scale=alpha / (math.sqrt(rank) if config.get("use_rslora") else rank),
            targets=tuple(_targets(config.get("target_modules"), path)),
            base_model=base if isinstance(base, str) and base else None,
        )


@dataclass(frozen=True, slots=True)
class Change:
    """What an adapter adds to one module of one linear layer: tensors `a` [rank, inputs] and `b` [columns, rank]."""

    number: int
    """Of the layer, among the graph's."""
    projection: Projection
    module: str
    a: Tensor
    b: Tensor

    @property
    def columns(self) -> tuple[int, int]:
        """Of the layer's output: the first, and the one behind the last."""
        return self.projection.parts[self.module]


def scan_adapter(path: Path) -> ModelFolder:
    """Look through a PEFT folder; raises ModelRefused naming what is wrong."""
    if not path.is_dir():
        raise ModelRefused(f"{path} is no folder; give a folder with {ADAPTER_CONFIG} and {ADAPTER_WEIGHTS}")
    entries = sorted(entry.name for entry in path.iterdir())
    names = [name for name in entries if (path / name).is_file()]
    refuse_pickles(names, str(path))
    for needed in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
        if needed not in names:
            raise ModelRefused(f"{path} is no folder of a PEFT adapter: {needed} is missing")
    taken = tuple(name for name in names if name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS) or is_card(name))
    return ModelFolder(path, "lora", taken, tuple(name for name in entries if name not in taken))


def graph_of(folder: Path) -> Path:
    """The graph of a builder's folder; raises ModelRefused."""
    return folder / graph_name(read_object(folder / CONFIG_FILE))


def changes(folder: Path, config: LoraConfig, graph: Path) -> tuple[Change, ...]:
    """What an adapter's folder adds to the layers of a graph; raises ModelRefused where the two do not fit."""
    path = folder / ADAPTER_WEIGHTS
    layers = {module: (number, each) for number, each in enumerate(projections(graph)) for module in each.parts}
    pairs: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors(path).items():
        named = _TENSOR.fullmatch(name)
        if named is None:
            raise ModelRefused(f"{path}: {_shown(name)} is no tensor of a LoRA matrix; only those of linear layers are")
        pairs.setdefault(named[1], {})[named[2]] = tensor
    if not pairs:
        raise ModelRefused(f"{path}: it holds no tensor")
    found = tuple(_change(path, module, pair, config, layers) for module, pair in pairs.items())
    leaves = {change.module.rpartition(".")[2] for change in found}
    for target in config.targets:
        if target.rpartition(".")[2] not in leaves:
            raise ModelRefused(f"{path}: {ADAPTER_CONFIG} names the target {_shown(target)}, which has no tensors")
    return found


def _change(
    path: Path,
    module: str,
    pair: Mapping[str, Tensor],
    config: LoraConfig,
    layers: Mapping[str, tuple[int, Projection]],
) -> Change:
    number, layer = layers.get(module, (0, None))
    if layer is None:
        some = ", ".join(sorted({name.rpartition(".")[2] for name in layers}))
        raise ModelRefused(f"{path}: the base has no linear layer {_shown(module)} to adapt; it has {some}")
    if pair.keys() != {"A", "B"}:
        raise ModelRefused(f"{path}: {module} lacks lora_{'B' if 'A' in pair else 'A'}")
    start, stop = layer.parts[module]
    for name, expected in (("A", (config.rank, layer.inputs)), ("B", (stop - start, config.rank))):
        tensor = pair[name]
        if tensor.dtype not in TYPES:
            raise ModelRefused(f"{path}: {module} is of type {_shown(tensor.dtype)}; taken are {', '.join(TYPES)}")
        if tensor.shape != expected:
            raise ModelRefused(
                f"{path}: lora_{name} of {module} has the shape {list(tensor.shape)}, the base and r ask for "
                f"{list(expected)}; is it for another model?"
            )
        width = 4 if tensor.dtype == "F32" else 2
        if tensor.stop - tensor.start != width * math.prod(expected):
            raise ModelRefused(f"{path}: lora_{name} of {module} has not got the bytes of its shape; fetch it again")
    return Change(number, layer, module, pair["A"], pair["B"])


def _targets(value: Any, path: Path) -> Iterator[str]:
    if isinstance(value, str) and value:
        return
    if not isinstance(value, list) or not value or not all(isinstance(each, str) and each for each in value):
        raise ModelRefused(f"{path}: target_modules is neither a list of names nor a pattern")
    yield from value


def _shown(name: str) -> str:
    return repr(name[:80])
