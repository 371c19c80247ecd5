"""The network, its pieces and its graphs; needs torch and onnx, which `make setup` does not install."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.pieces import assert_pieces_end_where_a_whole_run_does

from penstock.embeddings.encoder import Encoder
from penstock.models.folders import scan
from penstock_tuning.data import manifest as manifests
from penstock_tuning.encoder.config import EncoderConfig, load_config
from penstock_tuning.encoder.errors import EncoderRejectedError
from penstock_tuning.encoder.prepare import Prepared
from penstock_tuning.encoder.tokenizer import starts_word, train_tokenizer

torch: Any = pytest.importorskip("torch", reason="torch is an extra of penstock-tuning (train)")
onnx: Any = pytest.importorskip("onnx", reason="onnx is an extra of penstock-tuning (train)")

from penstock_tuning.encoder.export import export, hf_config, hidden_of  # noqa: E402  # after the check for torch
from penstock_tuning.encoder.graph import encoder_graph  # noqa: E402  # the same
from penstock_tuning.encoder.model import (  # noqa: E402  # the same
    hidden_states,
    initial_weights,
    masked_loss,
    packed_mask,
    rotary,
    to_numpy,
)
from penstock_tuning.encoder.quantize import OnnxEncoder  # noqa: E402  # the same
from penstock_tuning.encoder.train import Pretraining  # noqa: E402  # the same
from penstock_tuning.training.checkpoints import CHECKPOINT  # noqa: E402  # the same

WORDS = ["the", "house", "of", "the", "red", "fox", "and", "a", "blue", "bird", "in", "my", "small", "garden"]
TEXTS = [" ".join(WORDS[(n * step) % len(WORDS)] for n in range(90)) for step in range(1, 60)]
SMALL = (
    "phases=[{tokens: 2048, length: 16, batch_tokens: 128, micro_rows: 4}, "
    "{tokens: 512, length: 32, batch_tokens: 128}]",
    "shape={vocabulary: 300, width: 32, layers: 2, heads: 2, feed_forward: 48, context: 64}",
    "optimizer={learning_rate: 0.01, warmup_steps: 2, decay_share: 0.4}",
    "machine={precision: fp32, threads: 1}",
    "validation_rows=8",
    "checkpoint_every=6",
)


def config(*changes: str) -> EncoderConfig:
    return load_config("cpu", changes=[*SMALL, *changes])


def prepared() -> Prepared:
    tokenizer = train_tokenizer(TEXTS, 300)
    assert tokenizer.get_vocab_size() == 300
    stream = np.concatenate([np.array(tokenizer.encode(text).ids, np.uint16) for text in TEXTS])
    part = {"texts": len(TEXTS), "tokens": len(stream), "characters": 1, "by": {}}
    card = {"key": {"data": "d"}, "sources": {}, "train": part, "validation": part, "seconds": 1.0}
    return Prepared(tokenizer, stream, stream[:2000], starts_word(tokenizer), card)


def noisy(recipe: EncoderConfig) -> dict[str, Any]:
    """Weights far from their beginning: norms that scale, matrices that matter."""
    generator = torch.Generator().manual_seed(3)
    weights = initial_weights(recipe.shape, 1)
    return {name: one * 3 + 0.1 * torch.randn(one.shape, generator=generator) for name, one in weights.items()}


def test_texts_of_a_row_do_not_see_each_other() -> None:
    recipe = config()
    weights = noisy(recipe)
    one, other = [2, 50, 60, 70, 3], [2, 80, 90, 3]
    packed = torch.tensor([one + other])
    together = hidden_states(weights, recipe.shape, packed, packed_mask(packed), rotary(recipe.shape, 9, "cpu"))
    alone = hidden_of(weights, recipe.shape, torch.tensor([other]))
    torch.testing.assert_close(together[:, 5:], alone, atol=1e-5, rtol=1e-5)


def test_the_network_is_a_modernbert() -> None:
    """Against the implementation of transformers, with the weights by their names."""
    transformers = pytest.importorskip("transformers", reason="transformers is an extra of penstock-tuning (train)")
    recipe = config()
    weights = noisy(recipe)
    reference = transformers.ModernBertForMaskedLM(
        transformers.ModernBertConfig(**hf_config(recipe.shape), attn_implementation="eager")
    ).eval()
    missing = reference.load_state_dict(weights, strict=False)
    assert not missing.unexpected_keys
    assert set(missing.missing_keys) <= {"decoder.weight"}  # tied to the embeddings
    reference.tie_weights()
    ids = torch.tensor([[2, *range(40, 70), 3]])
    with torch.no_grad():
        wanted = reference.model(input_ids=ids).last_hidden_state
        loss = torch.nn.functional.cross_entropy(reference(input_ids=ids).logits[0, 3:5], ids[0, 3:5])
        found = masked_loss(
            weights, recipe.shape, ids=ids, places=torch.tensor([[3, 4]]), labels=ids[:, 3:5],
            turns=rotary(recipe.shape, 32, "cpu"),
        )  # fmt: skip
    torch.testing.assert_close(hidden_of(weights, recipe.shape, ids), wanted, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found, loss, atol=1e-4, rtol=1e-4)


def test_the_parameters_are_those_counted() -> None:
    recipe = config()
    weights = initial_weights(recipe.shape, 1)
    head = {"head.dense.weight", "head.norm.weight", "decoder.bias"}
    assert sum(one.numel() for name, one in weights.items() if name not in head) == recipe.shape.parameters


def test_the_training_step_compiles_as_one_graph() -> None:
    recipe = config()
    weights = {name: one.requires_grad_() for name, one in initial_weights(recipe.shape, 1).items()}
    given = {
        "ids": torch.randint(5, 300, (2, 16)),
        "places": torch.tensor([[1, 2], [3, 4]]),
        "labels": torch.tensor([[9, 8], [7, 6]]),
        "turns": rotary(recipe.shape, 16, "cpu"),
    }
    compiled = torch.compile(masked_loss, fullgraph=True, dynamic=False, backend="eager")
    torch.testing.assert_close(compiled(weights, recipe.shape, **given), masked_loss(weights, recipe.shape, **given))


def test_a_run_in_pieces_ends_where_an_uncut_one_does(tmp_path: Path) -> None:
    recipe = config()
    state = assert_pieces_end_where_a_whole_run_does(partial(Pretraining, recipe, prepared()), tmp_path, recipe.steps)
    losses = [row["validation_loss"] for row in state["history"] if "validation_loss" in row]
    assert losses[-1] < losses[0]
    assert state["seconds"] > 0


def test_export_writes_a_folder_that_was_checked(tmp_path: Path) -> None:
    recipe, data = config(), prepared()
    Pretraining(recipe, data, tmp_path).run()
    record = export(recipe, data, tmp_path, tmp_path / "model")
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert names == {
        "README.md", "NOTICE.md", "config.json", "model.onnx", "run.json", "special_tokens_map.json",
        "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    assert json.loads((tmp_path / "model/run.json").read_text()) == json.loads(json.dumps(record))
    metrics = record["metrics"]
    assert metrics["mean_cosine"] > 0.98
    assert abs(metrics["int8_loss"] - metrics["fp32_loss"]) < 0.2
    assert metrics["int8_megabytes"] * 1e6 < 2 * recipe.shape.parameters + 200_000
    assert (tmp_path / CHECKPOINT).exists()
    assert scan(tmp_path / "model").format == "onnx-encoder"
    vectors = Encoder(tmp_path / "model").embed(["the red fox", "a small garden", "the red fox"])
    assert vectors.shape == (3, recipe.shape.width)
    np.testing.assert_allclose(vectors[0], vectors[2], atol=1e-5)
    assert all(origin in (tmp_path / "model/NOTICE.md").read_text() for origin in
               {source.origin for source in manifests.load().of("text", "train")})  # fmt: skip


def test_the_graphs_heed_padding_and_any_length(tmp_path: Path) -> None:
    recipe = config()
    weights = noisy(recipe)
    ids = np.random.default_rng(0).integers(5, 300, (2, 20))
    for int8 in (False, True):
        path = tmp_path / f"{int8}.onnx"
        onnx.save(encoder_graph(to_numpy(weights), recipe.shape, int8_embeddings=int8), path)
        graph = OnnxEncoder(path)
        wanted = hidden_of(weights, recipe.shape, torch.from_numpy(ids)).numpy()
        alone = graph(ids)
        assert alone.shape == (2, 20, recipe.shape.width)
        np.testing.assert_allclose(alone, wanted, atol=0.3 if int8 else 1e-3)
        padded = np.pad(ids, ((0, 0), (0, 9)))
        mask = np.pad(np.ones_like(ids), ((0, 0), (0, 9)))
        np.testing.assert_allclose(graph(padded, mask)[:, :20], alone, atol=1e-4)
        assert np.abs(graph(padded)[:, :20] - alone).max() > 1e-2


@pytest.mark.parametrize(("change", "said"), [("max_onnx_megabytes=0.001", "allowed"), ("min_cosine=1", "cosine")])
def test_an_export_that_fails_a_check_is_not_put_in_place(tmp_path: Path, change: str, said: str) -> None:
    short = ("phases=[{tokens: 256, length: 16, batch_tokens: 128}]", "optimizer.warmup_steps=1")
    data = prepared()
    Pretraining(config(*short), data, tmp_path).run()
    with pytest.raises(EncoderRejectedError, match=said):
        export(config(*short, change), data, tmp_path, tmp_path / "model")
    assert not (tmp_path / "model").exists()
