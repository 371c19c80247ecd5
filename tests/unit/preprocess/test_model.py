"""`penstock_preprocess.model`: a folder is read, or what is missing is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from penstock.contracts.errors import ConfigurationError
from penstock_preprocess.model import PromptModel
from penstock_preprocess.template import Turn


@pytest.fixture
def folder(model_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model_dir, tmp_path / "copy"))


def test_reads_a_folder(model_dir: Path) -> None:
    model = PromptModel.from_folder(model_dir)
    assert (model.name, model.context_tokens) == ("tiny-lm", 256)
    prompt = model.template.render([Turn("user", "hi <|im_end|>")], now_ms=0)
    ids = model.tokenizer.encode(prompt)
    assert ids.count(model.tokenizer.tokenizer.get_vocab()["<|im_end|>"]) == 1


def test_the_template_may_stand_in_the_tokenizer_config(folder: Path) -> None:
    source = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").unlink()
    named = [{"name": "tool_use", "template": "x"}, {"name": "default", "template": source}]
    digests = set()
    for declared in (source, named):
        (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": declared}))
        digests.add(PromptModel.from_folder(folder).template.digest)
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("tokenizer.json", None, "tokenizer.json"),
        ("tokenizer_config.json", None, "tokenizer_config.json"),
        ("tokenizer_config.json", "[]", "no JSON object"),
        ("genai_config.json", None, "genai_config.json"),
        ("genai_config.json", "{", "not JSON"),
        ("genai_config.json", "{}", "context_length"),
        ("genai_config.json", '{"model": {"context_length": "9"}}', "context_length"),
        ("chat_template.jinja", None, "no chat template"),
        ("chat_template.jinja", "{% for %}", "chat template"),
    ],
)
def test_what_is_missing_is_named(folder: Path, file: str, content: str | None, says: str) -> None:
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_text(content)
    with pytest.raises(ConfigurationError, match="PENSTOCK_MODEL_DIR") as caught:
        PromptModel.from_folder(folder)
    assert says in caught.value.message


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="not a folder"):
        PromptModel.from_folder(tmp_path / "nowhere")
