"""What is taken of a folder, what is refused, and the facts read from it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.support.models import SHIPPED, TINY, hugging_face, safetensors, tiny

from penstock.models.cards import parse
from penstock.models.digests import sha256_of
from penstock.models.errors import ModelRefused
from penstock.models.facts import Given, describe
from penstock.models.folders import scan
from penstock.models.manifest import Evaluation, Manifest, Source
from penstock.models.onnx import weight_type
from penstock.models.safetensors import tensor_types

CARD = """---
license: other
license_name: house-licence
license_link: https://example.org/licence
base_model: org/base
datasets: [one, two]
model-index:
- name: mine
  results:
  - dataset: {name: held out, type: x}
    metrics:
    - {type: exact, value: 12.5}
    - {type: text, value: high}
---
# Mine
"""


def facts(folder: Path, given: Given | None = None) -> Manifest:
    scanned = scan(folder)
    digests = {name: sha256_of(folder / name) for name in scanned.files}
    source = Source(kind="folder", location=str(folder))
    return describe(scanned, "m", digests, source=source, given=given or Given(), added_ms=1)


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "training_args.bin", "model.PT", "x.pth", "data.pkl", "x.pickle", "last.ckpt"]
)
def test_pickles_are_refused_by_name(tmp_path: Path, name: str) -> None:
    for folder in (hugging_face(tmp_path / "hf"), tiny(tmp_path / "genai")):
        (folder / name).write_bytes(b"\x80\x04.")
        with pytest.raises(ModelRefused, match=f"{name} may hold a pickle.*only safetensors and ONNX"):
            scan(folder)


def test_code_subfolders_and_other_formats_are_left_out(tmp_path: Path) -> None:
    folder = hugging_face(tmp_path / "hf", CARD)
    for name in ("modeling_x.py", "model.gguf", "flax_model.msgpack", "run.sh"):
        (folder / name).write_bytes(b"x")
    (folder / "original").mkdir()
    (folder / "original" / "consolidated.pth").write_bytes(b"x")
    found = scan(folder)
    assert found.format == "safetensors"
    assert found.files == ("README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    assert found.left_out == ("flax_model.msgpack", "model.gguf", "modeling_x.py", "original", "run.sh")


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "tokenizer.json"])
def test_what_a_hugging_face_folder_lacks_is_named(tmp_path: Path, missing: str) -> None:
    folder = hugging_face(tmp_path / "hf")
    (folder / missing).unlink()
    with pytest.raises(ModelRefused, match=missing.replace("model.safetensors", r"\*.safetensors")):
        scan(folder)


@pytest.mark.parametrize("missing", ["model.onnx", "tokenizer.json", "genai_config.json"])
def test_what_a_builder_folder_lacks_is_named(tmp_path: Path, missing: str) -> None:
    folder = tiny(tmp_path / "genai")
    (folder / missing).unlink()
    with pytest.raises(ModelRefused, match=missing):
        scan(folder)


def test_a_missing_part_of_the_weights_is_named(tmp_path: Path) -> None:
    folder = hugging_face(tmp_path / "hf")
    parts = {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": parts}))
    with pytest.raises(ModelRefused, match=r"model-00002-of-00002\.safetensors is missing"):
        scan(folder)


def test_a_model_with_code_of_its_own_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match="never run"):
        scan(hugging_face(tmp_path / "hf", auto_map={"AutoModel": "modeling_x.X"}))


def test_a_graph_outside_its_folder_is_refused(tmp_path: Path) -> None:
    folder = tiny(tmp_path / "genai")
    path = folder / "genai_config.json"
    path.write_text(path.read_text().replace('"model.onnx"', '"../model.onnx"'))
    with pytest.raises(ModelRefused, match="file name of its own folder"):
        scan(folder)


def test_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match="hub:ORG/NAME"):
        scan(tmp_path / "none")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x04}q\x00.",
        (9).to_bytes(8, "little") + b"no json!!",
        (1 << 62).to_bytes(8, "little"),
        (2).to_bytes(8, "little") + b"[]",
        safetensors({"a": ("F32", [4], bytes(16))})[:-1],
    ],
)
def test_what_only_has_the_name_of_safetensors_is_refused(tmp_path: Path, content: bytes) -> None:
    folder = hugging_face(tmp_path / "hf")
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelRefused, match="no safetensors file"):
        scan(folder)


def test_tensors_are_counted_by_type(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors({"a": ("F16", [2], bytes(4)), "b": ("F16", [1], bytes(2)), "c": ("I8", [1], b"x")}))
    assert tensor_types(path) == {"F16": 6, "I8": 1}


def test_facts_of_a_hugging_face_folder(tmp_path: Path) -> None:
    found = facts(hugging_face(tmp_path / "hf", CARD))
    assert (found.format, found.architecture, found.context_length) == ("safetensors", "llama", 128)
    assert (found.quantization, found.answers) == ("bf16", None)
    assert found.tokenizer is not None
    assert found.chat_template is not None
    assert (found.licence.id, found.licence.name) == ("other", "house-licence")
    assert found.licence.restrictions == ("its own terms: read them before use",)
    assert (found.base_models, found.data) == (("org/base",), ("one", "two"))
    assert found.evaluations == (Evaluation(dataset="held out", metric="exact", value=12.5),)


def test_what_is_given_goes_before_the_card_and_lists_are_joined(tmp_path: Path) -> None:
    given = Given(licence="llama3.1", restrictions=("EU only",), data=("two", "three"))
    found = facts(hugging_face(tmp_path / "hf", CARD), given)
    assert found.licence.id == "llama3.1"
    assert found.licence.name is None
    assert found.licence.restrictions[0] == "the acceptable use policy applies"
    assert found.licence.restrictions[-1] == "EU only"
    assert found.data == ("one", "two", "three")


def test_a_declared_quantization_goes_before_the_types(tmp_path: Path) -> None:
    assert facts(hugging_face(tmp_path / "hf", quantization_config={"quant_method": "gptq"})).quantization == "gptq"


def test_a_folder_that_does_not_say_its_context_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match="max_position_embeddings"):
        facts(hugging_face(tmp_path / "hf", max_position_embeddings=None))
    with pytest.raises(ModelRefused, match=r"model\.context_length"):
        facts(tiny(tmp_path / "genai", context_length=True))


def test_weights_of_graphs() -> None:
    assert weight_type(SHIPPED / "model.onnx") == "int8"
    assert weight_type(TINY / "model.onnx") == "fp32"


@pytest.mark.parametrize(
    "content", [b"", b"x", b"\x3a\xff\xff\xff\xff\x0f", bytes(99), b"\x3a\x02\x2a\x00", b"\xff" * 30]
)
def test_what_is_no_graph_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelRefused, match="no ONNX graph"):
        weight_type(path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# no front matter",
        "---\nnever: ends",
        "---\n- a list\n---\n",
        "---\nlicense: [1, 2]\nmodel-index: x\ndatasets: {}\n---\n",
        "---\nmodel-index: [{results: [{dataset: x, metrics: [{type: a, value: 1}]}]}]\n---\n",
        "---\nmodel-index: [{results: [{dataset: {name: x}, metrics: [{type: a, value: .nan}]}]}]\n---\n",
    ],
)
def test_a_card_without_facts_has_none(text: str) -> None:
    card = parse(text, "README.md")
    assert (card.licence.id, card.data, card.evaluations) == ("unknown", (), ())


@pytest.mark.parametrize("front", ["a: [", "a: !!python/object/apply:os.system ['true']"])
def test_a_card_that_is_no_yaml_is_refused(front: str) -> None:
    with pytest.raises(ModelRefused, match="no YAML"):
        parse(f"---\n{front}\n---\n", "README.md")
