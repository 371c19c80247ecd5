"""LoRA adapters in the registry: what is kept of one, which are refused, and which names requests may give."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.adapters import MODULES, Pairs, adapter, matrices, peft
from tests.support.models import SHIPPED, TINY, hugging_face, safetensors, tiny

from penstock.models.entries import Entry, problems
from penstock.models.errors import ModelRefused, NoSuchModel
from penstock.models.facts import Given
from penstock.models.manifest import Source
from penstock.models.projections import projections
from penstock.models.protobuf import field
from penstock.models.registry import Registry

HERE = Source(kind="folder", location="/somewhere")


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = Registry(tmp_path / "registry", SHIPPED)
    registry.add(tiny(tmp_path / "tiny"), source=HERE)
    return registry


def add(registry: Registry, folder: Path, base: str = "tiny", name: str | None = None, **given: Any) -> Entry:
    return registry.add(folder, source=HERE, adapter_of=base, name=name, given=Given(**given)).entry


def test_what_is_kept_of_an_adapter(registry: Registry, tmp_path: Path) -> None:
    folder = adapter(tmp_path / "tone", targets=("q_proj", "down_proj"), rank=4, lora_alpha=6)
    (folder / "README.md").write_text("---\nlicense: mit\nbase_model: org/other\n---\n")
    (folder / "tokenizer.json").write_text("{}")
    entry, base = add(registry, folder, data=("letters",)), registry.find("tiny")
    manifest = entry.manifest
    assert manifest.adapter is not None
    assert manifest.adapter.model_dump() == {
        "base": base.reference,
        "base_answers": base.manifest.answers,
        "rank": 4,
        "scale": 1.5,
        "targets": ("down_proj", "q_proj"),
    }
    assert (manifest.format, manifest.architecture, manifest.quantization) == ("lora", "lora", "fp32")
    assert (manifest.licence.id, manifest.base_models, manifest.data) == (
        "mit",
        ("org/other", "org/base"),
        ("letters",),
    )
    assert {file.path for file in manifest.files} == {"adapter_config.json", "adapter_model.safetensors", "README.md"}
    assert problems(entry) == []
    assert registry.add(folder, source=HERE, adapter_of="tiny", given=Given(data=("letters",))).new is False
    assert registry.find("tone") == entry


def test_the_digest_is_that_of_its_two_files(registry: Registry, tmp_path: Path) -> None:
    folder = adapter(tmp_path / "tone")
    first = add(registry, folder)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    second = add(registry, folder)
    assert first.manifest.answers == second.manifest.answers
    assert first.reference != second.reference
    other = add(registry, adapter(tmp_path / "other" / "tone", seed=2))
    assert other.manifest.answers != first.manifest.answers


def test_rank_stabilized_scale(registry: Registry, tmp_path: Path) -> None:
    entry = add(registry, adapter(tmp_path / "tone", rank=4, lora_alpha=6, use_rslora=True))
    assert entry.manifest.adapter is not None
    assert entry.manifest.adapter.scale == 3.0


def test_an_adapters_name_serves_what_was_promoted_last(registry: Registry, tmp_path: Path) -> None:
    answers = registry.find("tiny").manifest.answers
    first = add(registry, adapter(tmp_path / "Tone.v1"))
    assert registry.adapters(answers) == {}
    assert registry.promote("Tone.v1") == first
    assert registry.find("champion").builtin
    second = add(registry, adapter(tmp_path / "two" / "Tone.v1", seed=2))
    assert registry.adapters(answers) == {"Tone.v1": first}
    assert registry.find("Tone.v1") == first
    registry.promote("Tone.v1")
    registry.promote(first.reference, "tone-before")
    assert registry.adapters(answers) == {"Tone.v1": second, "tone-before": first}
    assert registry.adapters(registry.find("builtin").manifest.answers) == {}
    assert registry.rollback("Tone.v1") == first
    assert registry.adapters(answers)["Tone.v1"] == first


def test_models_and_adapters_do_not_share_names_or_aliases(registry: Registry, tmp_path: Path) -> None:
    add(registry, adapter(tmp_path / "tone"))
    for refused, says in (
        (lambda: add(registry, adapter(tmp_path / "a"), name="tiny"), "'tiny' is a model"),
        (lambda: registry.add(TINY, source=HERE, name="tone"), "'tone' is an adapter"),
        (lambda: registry.promote("tone", "champion"), "take another alias for an adapter"),
        (lambda: registry.promote("tone", "tiny"), "is a model's name"),
        (lambda: add(registry, adapter(tmp_path / "b"), "tone"), "is an adapter itself"),
    ):
        with pytest.raises(ModelRefused, match=says):
            refused()
    registry.promote("tone", "voice")
    with pytest.raises(ModelRefused, match="take another alias for a model"):
        registry.promote("tiny", "voice")
    with pytest.raises(ModelRefused, match="'voice' is an alias"):
        add(registry, adapter(tmp_path / "c"), name="voice")


def test_a_base_is_removed_after_its_adapters(registry: Registry, tmp_path: Path) -> None:
    entry = add(registry, adapter(tmp_path / "tone"))
    base = registry.find("tiny").reference
    with pytest.raises(ModelRefused, match=f"{entry.reference} is an adapter of {base}"):
        registry.remove(base)
    registry.remove(entry.reference)
    registry.remove(base)
    with pytest.raises(NoSuchModel):
        registry.find("tone")


def test_an_adapter_is_taken_out_of_service_by_removing_it(registry: Registry, tmp_path: Path) -> None:
    answers = registry.find("tiny").manifest.answers
    first, second = (add(registry, adapter(tmp_path / str(seed) / "tone", seed=seed)) for seed in (1, 2))
    registry.promote(first.reference)
    registry.promote(second.reference)
    with pytest.raises(ModelRefused, match="promote another first, or roll back"):
        registry.remove(second.reference)
    registry.rollback("tone")
    registry.remove(second.reference)
    assert registry.adapters(answers) == {"tone": first}
    registry.remove(first.reference)
    assert registry.adapters(answers) == {}
    assert registry.aliases().current("tone") is None


def test_a_base_that_is_none_or_not_converted_is_refused(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(NoSuchModel):
        add(registry, adapter(tmp_path / "a"), "nothing")
    registry.add(hugging_face(tmp_path / "hf"), source=HERE)
    with pytest.raises(ModelRefused, match="is not converted"):
        add(registry, tmp_path / "a", "hf")


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"peft_type": "IA3"}, "peft_type"),
        ({"task_type": "SEQ_CLS"}, "task_type"),
        ({"use_dora": True}, "use_dora is set"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save is set"),
        ({"rank_pattern": {"q_proj": 8}}, "rank_pattern is set"),
        ({"bias": "all"}, "bias is not none"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights"),
        ({"r": 0}, "r is no rank"),
        ({"r": True}, "r is no rank"),
        ({"r": 8}, r"has the shape \[4, 32\], the base and r ask for \[8, 32\]"),
        ({"lora_alpha": None}, "lora_alpha is no number"),
        ({"lora_alpha": float("inf")}, "lora_alpha is no number"),
        ({"target_modules": 3}, "target_modules is neither"),
        ({"target_modules": ["q_proj", "lm_head"]}, "names the target 'lm_head', which has no tensors"),
    ],
)
def test_a_configuration_that_is_wrong_or_not_computed_is_refused(
    registry: Registry, tmp_path: Path, config: dict[str, Any], says: str
) -> None:
    with pytest.raises(ModelRefused, match=says):
        add(registry, adapter(tmp_path / "a", **config))
    assert [entry.manifest.name for entry in registry.entries()] == ["penstock-lm", "tiny"]


def _without_b(pairs: Pairs, folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    name = f"base_model.model.{next(iter(pairs))}.lora_A.weight"
    path.write_bytes(safetensors({name: ("F32", [4, 32], bytes(4 * 4 * 32))}))


def _of_another_type(pairs: Pairs, folder: Path) -> None:
    peft(folder.with_name("b"), pairs, 4, "I8")
    (folder / "adapter_model.safetensors").write_bytes(
        (folder.with_name("b") / "adapter_model.safetensors").read_bytes()
    )


def _of_fewer_bytes(pairs: Pairs, folder: Path) -> None:
    module = next(iter(pairs))
    tensors = {f"base_model.model.{module}.lora_A.weight": ("F32", [4, 32], bytes(8))}
    tensors[f"base_model.model.{module}.lora_B.weight"] = ("F32", [64, 4], bytes(4 * 64 * 4))
    (folder / "adapter_model.safetensors").write_bytes(safetensors(tensors))


def _with_an_embedding(pairs: Pairs, folder: Path) -> None:
    tensors = {"base_model.model.model.embed_tokens.weight": ("F32", [1], bytes(4))}
    (folder / "adapter_model.safetensors").write_bytes(safetensors(tensors))


def _empty(pairs: Pairs, folder: Path) -> None:
    (folder / "adapter_model.safetensors").write_bytes(safetensors({}))


def _cut(pairs: Pairs, folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def _missing(pairs: Pairs, folder: Path) -> None:
    (folder / "adapter_model.safetensors").unlink()


def _pickled(pairs: Pairs, folder: Path) -> None:
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_without_b, "lacks lora_B"),
        (_of_another_type, "is of type 'I8'"),
        (_of_fewer_bytes, "has not got the bytes of its shape"),
        (_with_an_embedding, r"embed_tokens.weight' is no tensor of a LoRA matrix"),
        (_empty, "holds no tensor"),
        (_cut, "no safetensors file"),
        (_missing, "adapter_model.safetensors is missing"),
        (_pickled, "may hold a pickle"),
    ],
)
def test_weights_that_are_not_those_of_an_adapter_are_refused(
    registry: Registry, tmp_path: Path, spoil: Callable[[Pairs, Path], None], says: str
) -> None:
    pairs = matrices(TINY, 4, 1, ("q_proj",))
    folder = peft(tmp_path / "a", pairs, 4)
    spoil(pairs, folder)
    with pytest.raises(ModelRefused, match=says):
        add(registry, folder)


def test_an_adapter_of_another_model_is_refused_by_its_shapes_or_modules(registry: Registry, tmp_path: Path) -> None:
    folder = adapter(tmp_path / "a")
    with pytest.raises(ModelRefused, match="is it for another model"):
        add(registry, folder, "builtin")
    pairs = matrices(TINY, 4, 1, ("q_proj",))
    deep = {name.replace("layers.1.", "layers.9."): pair for name, pair in pairs.items()}
    with pytest.raises(ModelRefused, match=r"no linear layer 'model.layers.9.self_attn.q_proj'.*it has .*down_proj"):
        add(registry, peft(tmp_path / "b", deep, 4))


def test_a_joined_layer_has_the_columns_of_its_modules_with_a_bias_or_without() -> None:
    for folder in (TINY, SHIPPED):
        heads = json.loads((folder / "genai_config.json").read_text())["model"]["decoder"]
        size, keys = heads["head_size"], heads["num_key_value_heads"]
        first = projections(folder / "model.onnx")[0]
        query = heads["num_attention_heads"] * size
        prefix = "model.layers.0.self_attn."
        assert dict(first.parts) == {
            f"{prefix}qkv_proj": (0, query + 2 * keys * size),
            f"{prefix}q_proj": (0, query),
            f"{prefix}k_proj": (query, query + keys * size),
            f"{prefix}v_proj": (query + keys * size, query + 2 * keys * size),
        }
        assert {module.rpartition(".")[2] for each in projections(folder / "model.onnx") for module in each.parts} == {
            *MODULES,
            "qkv_proj",
        }


def _graph(path: Path, *parts: bytes) -> Path:
    path.write_bytes(field(7, b"".join(parts)))
    return path


def _node(operator: str, name: str, inputs: list[str], output: str, **numbers: int) -> bytes:
    said = b"".join(field(1, each) for each in inputs) + field(2, output) + field(3, name) + field(4, operator)
    return field(1, said + b"".join(field(5, field(1, key) + field(3, value)) for key, value in numbers.items()))


def _weight(name: str, *shape: int) -> bytes:
    return field(5, b"".join(field(1, each) for each in shape) + field(2, 1) + field(8, name))


def test_a_layer_with_a_bias_ends_behind_it(tmp_path: Path) -> None:
    name = "/model/layers.3/attn/qkv_proj/MatMul"
    graph = _graph(
        tmp_path / "model.onnx",
        _weight("w", 6, 16),
        _weight("bias", 16),
        _node("MatMul", name, ["x", "w"], "y"),
        _node("Add", "/model/layers.3/attn/qkv_proj/Add", ["y", "bias"], "z"),
        _node("GroupQueryAttention", "any", ["z"], "o", num_heads=2, kv_num_heads=1),
    )
    (layer,) = projections(graph)
    assert (layer.layer, layer.kind, layer.input, layer.output) == (3, "qkv_proj", "x", "z")
    assert (layer.inputs, layer.outputs) == (6, 16)
    assert layer.parts["model.layers.3.self_attn.v_proj"] == (12, 16)


def test_a_sum_with_anything_but_a_bias_is_not_its_end(tmp_path: Path) -> None:
    name = "/model/layers.0/mlp/down_proj/MatMul_Q4"
    graph = _graph(
        tmp_path / "model.onnx",
        _weight("table", 4, 8),
        _node("MatMulNBits", name, ["x", "w"], "y", K=16, N=8),
        _node("Add", "residual", ["y", "other"], "z"),
    )
    (layer,) = projections(graph)
    assert (layer.output, layer.inputs, layer.outputs) == ("y", 16, 8)


@pytest.mark.parametrize("content", [b"", b"no graph", field(7, _weight("w", 2, 2))])
def test_a_graph_without_layers_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelRefused, match="no linear layers"):
        projections(path)
