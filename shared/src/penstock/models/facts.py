"""A folder's facts together: what its configuration, weights and card say, and what whoever adds it says besides."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from penstock.models.adapters import ADAPTER_CONFIG, ADAPTER_WEIGHTS, LoraConfig, changes, graph_of
from penstock.models.cards import Card, read_card
from penstock.models.digests import CONFIG_FILE, TOKENIZER_FILE, answers_digest, encoder_digest, short
from penstock.models.errors import ModelRefused
from penstock.models.folders import HF_CONFIG, TOKENIZER_CONFIG, ModelFolder, chat_template, read_object
from penstock.models.licences import restrictions_of
from penstock.models.manifest import UNKNOWN, Adapter, Evaluation, Licence, Manifest, ModelFile, Source
from penstock.models.onnx import weight_type
from penstock.models.safetensors import tensor_types

_TENSOR_NAMES = {"F64": "fp64", "F32": "fp32", "F16": "fp16", "BF16": "bf16", "I8": "int8", "U8": "uint8"}


@dataclass(frozen=True, slots=True)
class Given:
    """What whoever adds a model says of it; it goes before what the card says, lists are joined."""

    licence: str | None = None
    restrictions: tuple[str, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()
    prompts: tuple[str, ...] = ()
    data: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Declared:
    architecture: str
    context_length: int
    quantization: str
    tokenizer: str | None = None
    template: str | None = None
    answers: str | None = None
    adapter: Adapter | None = None
    card: Card = field(default_factory=Card)


@dataclass(frozen=True, slots=True)
class Base:
    """The revision that an adapter is added for."""

    folder: Path
    manifest: Manifest


def describe(
    folder: ModelFolder,
    name: str,
    digests: Mapping[str, str],
    *,
    source: Source,
    given: Given,
    added_ms: int,
    base: Base | None = None,
) -> Manifest:
    """The manifest of a folder whose files have these SHA-256 digests; raises ModelRefused naming what is missing.

    `base` is the model that an adapter belongs to, which it must fit.
    """
    declared = _declared(folder, digests) if base is None else _adapter(folder, digests, base)
    card = declared.card
    try:
        return Manifest(
            name=name,
            format=folder.format,
            architecture=declared.architecture,
            context_length=declared.context_length,
            quantization=declared.quantization,
            tokenizer=declared.tokenizer,
            chat_template=declared.template,
            answers=declared.answers,
            vectors=encoder_digest(digests) if folder.format == "onnx-encoder" else None,
            adapter=declared.adapter,
            licence=_licence(card, given),
            base_models=card.base_models,
            evaluations=(*card.evaluations, *given.evaluations),
            prompts=_once(given.prompts),
            data=_once((*card.data, *given.data)),
            files=tuple(
                ModelFile(path=file, bytes=(folder.path / file).stat().st_size, sha256=digests[file])
                for file in folder.files
            ),
            source=source,
            added_ms=added_ms,
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ModelRefused(f"{folder.path}: {place}: {first['msg'][:1].lower()}{first['msg'][1:]}") from None


def _declared(folder: ModelFolder, digests: Mapping[str, str]) -> _Declared:
    path = folder.path
    tokenizer_config = read_object(path / TOKENIZER_CONFIG) if TOKENIZER_CONFIG in folder.files else {}
    try:
        template = chat_template(path, tokenizer_config)
    except (OSError, UnicodeDecodeError) as error:
        raise ModelRefused(f"{path}: its chat template cannot be read ({type(error).__name__})") from None
    if folder.format == "onnx-genai":
        config = read_object(path / CONFIG_FILE)
        model = config.get("model")
        model = model if isinstance(model, dict) else {}
        architecture = model.get("type")
        context = _count(model.get("context_length"), path / CONFIG_FILE, "model.context_length")
        decoder = model.get("decoder")
        graph = decoder.get("filename") if isinstance(decoder, dict) else None
        quantization = weight_type(path / (graph if isinstance(graph, str) else "model.onnx"))
    else:
        config = read_object(path / HF_CONFIG)
        architecture = config.get("model_type")
        context = _count(config.get("max_position_embeddings"), path / HF_CONFIG, "max_position_embeddings")
        encoder = folder.format == "onnx-encoder"
        quantization = weight_type(path / "model.onnx") if encoder else _tensors(folder, config)
    return _Declared(
        architecture=architecture if isinstance(architecture, str) and architecture else UNKNOWN,
        context_length=context,
        quantization=quantization,
        tokenizer=short(digests[TOKENIZER_FILE]),
        template=short(hashlib.sha256(template[0].encode()).hexdigest()) if template is not None else None,
        answers=answers_digest(digests) if folder.format == "onnx-genai" else None,
        card=read_card(path),
    )


def _adapter(folder: ModelFolder, digests: Mapping[str, str], base: Base) -> _Declared:
    """An adapter's facts; those of its base where it has none of its own."""
    path, of = folder.path, base.manifest
    if of.format != "onnx-genai" or of.answers is None:
        raise ModelRefused(
            f"{of.reference} is {'an adapter itself' if of.adapter else 'not converted'}: name a model that is served"
        )
    if of.quantization in ("fp16", "bf16"):
        raise ModelRefused(f"{of.reference} computes in {of.quantization}; adapters need int4, int8 or fp32 weights")
    config = LoraConfig.read(path / ADAPTER_CONFIG)
    made = changes(path, config, graph_of(base.folder))
    types = Counter(tensor.dtype for change in made for tensor in (change.a, change.b))
    card = read_card(path)
    said = (*card.base_models, *([config.base_model[:500]] if config.base_model else []))
    return _Declared(
        architecture="lora",
        context_length=of.context_length,
        quantization=_TENSOR_NAMES[types.most_common(1)[0][0]],
        answers=answers_digest(digests, (ADAPTER_CONFIG, ADAPTER_WEIGHTS).__contains__),
        adapter=Adapter(
            base=of.reference,
            base_answers=of.answers,
            rank=config.rank,
            scale=config.scale,
            targets=tuple(sorted({change.module.rpartition(".")[2] for change in made})),
        ),
        card=replace(card, base_models=tuple(dict.fromkeys(said))),
    )


def _count(value: Any, place: Path, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 2:
        raise ModelRefused(f"{place}: {name} is no number of tokens; how long its context may be must be known")
    return value


def _tensors(folder: ModelFolder, config: dict[str, Any]) -> str:
    """As the configuration names the method, else the type of most of the bytes."""
    quantized = config.get("quantization_config")
    method = quantized.get("quant_method") if isinstance(quantized, dict) else None
    if isinstance(method, str) and method:
        return method
    types: Counter[str] = Counter()
    for name in folder.files:
        if name.endswith(".safetensors"):
            types += tensor_types(folder.path / name)
    if not types:
        raise ModelRefused(f"{folder.path}: its safetensors files hold no tensor")
    ((most, _),) = types.most_common(1)
    return _TENSOR_NAMES.get(most, most.lower())


def _licence(card: Card, given: Given) -> Licence:
    declared = card.licence
    if given.licence is not None and given.licence != declared.id:
        declared = Licence(id=given.licence)
    return declared.having(restrictions=_once((*restrictions_of(declared.id), *given.restrictions)))


def _once(values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))
