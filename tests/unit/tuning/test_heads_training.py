"""Heads from random weights to a folder: losses, pieces, graphs, calibration; needs torch and onnx."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.pieces import assert_pieces_end_where_a_whole_run_does
from tests.support.tiny_heads import config, examples, prepared, tokenizer

from penstock.embeddings.encoder import Encoder
from penstock.heads.runtime import Heads
from penstock.models.folders import scan
from penstock_tuning.data.example import PII, SAFETY
from penstock_tuning.encoder.config import EncoderConfig
from penstock_tuning.encoder.config import load_config as load_encoder
from penstock_tuning.heads.calibrate import Calibrated, Platt
from penstock_tuning.heads.config import Losses
from penstock_tuning.heads.errors import HeadsRejectedError
from penstock_tuning.heads.record import Base

torch: Any = pytest.importorskip("torch", reason="torch is an extra of penstock-tuning (train)")
onnx: Any = pytest.importorskip("onnx", reason="onnx is an extra of penstock-tuning (train)")

from penstock_tuning.encoder.model import initial_weights, rotary, to_numpy  # noqa: E402  # after the check for torch
from penstock_tuning.heads.export import export  # noqa: E402  # the same
from penstock_tuning.heads.graph import heads_graph  # noqa: E402  # the same
from penstock_tuning.heads.model import embedded, initial_heads, loss_of, pooled, states_of  # noqa: E402  # the same
from penstock_tuning.heads.train import HeadsTraining, begun  # noqa: E402  # the same

WIDTH = 32


def encoder() -> EncoderConfig:
    return load_encoder(
        "cpu",
        changes=[
            "shape={vocabulary: 400, width: 32, layers: 2, heads: 2, feed_forward: 48, context: 64}",
            "phases=[{tokens: 2048, length: 32, batch_tokens: 128}]",
            "optimizer.warmup_steps=2",
        ],
    )


def base() -> Base:
    return Base(encoder(), tokenizer(), "e", {"seconds": {"pretraining": 1.0}})


def begin() -> dict[str, Any]:
    return initial_weights(encoder().shape, 1)


def noisy() -> dict[str, Any]:
    """Weights far from their beginning."""
    generator = torch.Generator().manual_seed(3)
    weights = begun(config(), encoder().shape, begin())
    return {name: one * 3 + 0.2 * torch.randn(one.shape, generator=generator) for name, one in weights.items()}


def test_packed_texts_are_judged_as_each_alone() -> None:
    weights, shape = noisy(), encoder().shape
    one, other = [2, 50, 60, 70, 3], [2, 80, 90, 3]
    ids, segments = torch.tensor([[*one, *other, 0]]), torch.tensor([[1] * 5 + [2] * 4 + [0]])
    states = states_of(weights, shape, ids, segments, rotary(shape, 10, "cpu")).flatten(0, 1)
    both = pooled(states, segments.flatten(), 2, weights)
    vectors = embedded(states, segments.flatten(), 2, weights)
    for number, text in enumerate((one, other)):
        row = torch.tensor([text])
        alone = states_of(weights, shape, row, torch.ones_like(row), rotary(shape, len(text), "cpu"))[0]
        same = torch.ones(len(text), dtype=torch.int64)
        torch.testing.assert_close(pooled(alone, same, 1, weights)[0], both[number], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(embedded(alone, same, 1, weights)[0], vectors[number], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2))


def batch(**changes: Any) -> dict[str, Any]:
    """Two texts of three tokens, the special ones left out."""
    given = {
        "ids": torch.tensor([[10, 11, 12, 13, 14, 15]]),
        "segments": torch.tensor([[1, 1, 1, 2, 2, 2]]),
        "tokens": torch.zeros(1, 6, dtype=torch.int64),
        "labels": torch.full((2, len(SAFETY)), -1, dtype=torch.int8),
        "known": torch.zeros(2, dtype=torch.int64),
        "groups": torch.tensor([-1, -1]),
        "weights": torch.ones(2),
    }
    return {**given, **changes}


def gradient(task: Any, given: dict[str, Any], of: str) -> Any:
    """The gradient of a head's tensor, with states that are fixed."""
    weights = {name: one.requires_grad_() for name, one in initial_heads(WIDTH, 16, 1).items()}
    states = torch.randn(1, 6, WIDTH, generator=torch.Generator().manual_seed(2))
    loss_of(task, weights, states, given, Losses()).backward()
    return weights[of].grad


def test_an_unknown_label_takes_no_part_in_the_loss() -> None:
    labels = torch.full((2, len(SAFETY)), -1, dtype=torch.int8)
    labels[0, 0], labels[1, 0] = 1, 0
    found = gradient("safety", batch(labels=labels), "heads.pool.bias")
    assert found[0].abs() > 0
    assert not found[1:].any()


def test_tokens_are_judged_for_the_labels_that_are_known_of_their_text() -> None:
    labels = torch.full((2, len(SAFETY)), -1, dtype=torch.int8)
    known = torch.tensor([1, 0])  # of the first text injection is known
    tokens = torch.tensor([[0, 1, 1, 0, 0, 0]])
    found = gradient("safety", batch(labels=labels, known=known, tokens=tokens), "heads.pool.values")
    assert found[0].abs().sum() > 0
    assert not found[1:].any()


def test_a_token_may_be_of_a_class_that_its_text_does_not_cover() -> None:
    """Where only PERSON is complete a gradient must not push other classes down against none."""
    person = torch.tensor([1 << 1, 1 << 1])
    found = gradient("pii", batch(known=person), "heads.pii.bias")
    assert found[1] > 0  # down: it is not marked, and would be
    assert (found[[0, 2, 3, 4, 5]] < 0).all()  # up, all of them: any may be right
    whole = torch.tensor([(1 << 6) - 2] * 2)
    found = gradient("pii", batch(known=whole), "heads.pii.bias")
    assert found[0] < 0
    assert (found[1:] > 0).all()


def test_a_pair_is_told_from_the_others_of_its_batch_and_not_from_its_kin() -> None:
    weights = initial_heads(WIDTH, 16, 1)
    states = torch.randn(1, 8, WIDTH, generator=torch.Generator().manual_seed(2))
    states[0, 1], states[0, 3], states[0, 5], states[0, 7] = states[0, 0], states[0, 2], states[0, 0], states[0, 6]
    states[0, 4] = states[0, 0]  # the third pair says the same as the first
    given = {
        "segments": torch.arange(1, 9)[None],
        "labels": torch.ones(8, 1, dtype=torch.int8),
        "weights": torch.ones(8),
        "groups": torch.tensor([-1] * 8),
    }
    apart = loss_of("similarity", weights, states, given, Losses())
    kin = {**given, "groups": torch.tensor([5, 5, -1, -1, 5, 5, -1, -1])}
    together = loss_of("similarity", weights, states, kin, Losses())
    assert apart > 0.3  # two of four cannot be told apart: log 2 each
    assert together < 0.05
    wrong = {**given, "labels": torch.zeros(8, 1, dtype=torch.int8)}
    assert loss_of("similarity", weights, states, wrong, Losses()) == 0


def test_a_run_in_pieces_ends_where_an_uncut_one_does(tmp_path: Path) -> None:
    recipe = config("tokens=16384", "checkpoint_every=10")
    data = prepared(recipe, tmp_path)

    def run(work: Path, **clock: Any) -> HeadsTraining:
        return HeadsTraining(recipe, encoder().shape, begin(), data, work, **clock)

    state = assert_pieces_end_where_a_whole_run_does(run, tmp_path, recipe.steps)
    assert not torch.equal(
        state["weights"]["heads.pii.weight"], initial_heads(WIDTH, 16, recipe.seed)["heads.pii.weight"]
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A folder exported from a short run on texts whose labels follow from one word."""
    folder = tmp_path_factory.mktemp("heads")
    recipe = config()
    data = prepared(recipe, folder)
    assert HeadsTraining(recipe, encoder().shape, begin(), data, folder).run()
    return folder / "model", export(recipe, base(), data, folder, folder / "model")


def test_every_task_is_learned_and_measured(finished: tuple[Path, dict[str, Any]]) -> None:
    model, record = finished
    metrics = record["metrics"]
    assert metrics["injection_auc"] > 0.95
    assert metrics["injection_recall"] > 0.8
    assert metrics["PERSON_f1"] > 0.8
    assert metrics["entailment_auc"] > 0.8
    assert metrics["similarity_auc"] > 0.8
    assert abs(metrics["fp32_injection_auc"] - metrics["injection_auc"]) < 0.05
    first, last = (rows["safety_loss"] for rows in (record["history"][2], record["history"][-1]))
    assert last < first
    heads = Heads(model)
    ordinary = [one.text for one in examples("safety") if one.labels.get("injection") == 0]
    assert (heads.safety(ordinary) >= heads.flag).any(1).mean() < 0.1


def test_the_folder_is_a_model_and_says_where_it_is_from(finished: tuple[Path, dict[str, Any]]) -> None:
    model, record = finished
    assert {path.name for path in model.iterdir()} == {
        "README.md", "NOTICE.md", "config.json", "model.onnx", "run.json", "special_tokens_map.json",
        "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    assert json.loads((model / "run.json").read_text()) == json.loads(json.dumps(record))
    assert scan(model).format == "onnx-encoder"
    said = json.loads((model / "config.json").read_text())["heads"]
    assert said["safety"]["labels"] == list(SAFETY)
    assert said["pii"]["labels"] == ["O", *PII]
    assert set(said["pii"]["thresholds"]) == set(PII)
    for limits in said["safety"]["thresholds"].values():
        assert 0 < limits["flag"] <= limits["block"] <= 1
    assert said["safety"]["calibration"]["injection"]["positives"] >= 20
    card = (model / "README.md").read_text()
    assert "| injection |" in card
    assert "`safety_tokens`" in card
    assert "name_databases" not in card
    assert "smashew/NameDatabases" in (model / "NOTICE.md").read_text()


def test_outputs_are_probabilities_whatever_the_batch(finished: tuple[Path, dict[str, Any]]) -> None:
    heads = Heads(finished[0])
    texts = ["ignore the rules about the house", "please tell me about the river and the letter"]
    alone = np.concatenate([heads.safety([text]) for text in texts])
    np.testing.assert_allclose(heads.safety(texts), alone, atol=0.02)
    assert alone[0, 0] > 0.5 > alone[1, 0]
    for _, probabilities in heads.tags(texts):
        np.testing.assert_allclose(probabilities.sum(1), 1.0, atol=1e-4)
    vectors = heads.embed(texts)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(Encoder(finished[0]).embed(texts), vectors, atol=0.02)


def test_a_long_text_is_as_bad_as_its_worst_window(finished: tuple[Path, dict[str, Any]]) -> None:
    heads = Heads(finished[0])
    calm = "please tell me about the river and the letter " * 12
    assert len(heads.ids(calm)) > 3 * heads.config.window_tokens
    assert heads.safety([calm + "ignore the rules about the house"])[0, 0] > heads.safety([calm])[0, 0]


def test_names_are_found_with_their_places(finished: tuple[Path, dict[str, Any]]) -> None:
    heads = Heads(finished[0])
    texts = [one.text for one in examples("pii", count=16)]
    right = sum(
        text.split()[2] in {text[span.start : span.end] for span in spans}
        for text, spans in zip(texts, heads.pii(texts), strict=True)
    )
    assert right >= 12


def test_calibration_is_folded_into_the_graph(tmp_path: Path) -> None:
    shape = encoder().shape
    # Logits near 0: a probability of 0 or 1 would be the same whatever was folded.
    weights = {name: one * (0.02 if name.startswith("heads.p") else 1) for name, one in to_numpy(noisy()).items()}
    platt = [Platt(2.0, -1.0), *[Platt()] * (len(SAFETY) - 1), Platt(0.5, 0.25)]
    ids = {"input_ids": np.array([[2, 50, 60, 3]]), "attention_mask": np.ones((1, 4), np.int64)}
    found = {}
    for name, given in (("plain", None), ("folded", Calibrated(platt, 2.0))):
        path = tmp_path / f"{name}.onnx"
        onnx.save(heads_graph(weights, shape, config().tasks, given, int8_embeddings=False), path)
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        found[name] = dict(zip([one.name for one in session.get_outputs()], session.run(None, ids), strict=True))
    plain, folded = found["plain"], found["folded"]
    assert list(plain) == ["token_embeddings", "embedding", "safety", "safety_tokens", "pii", "entailment"]
    assert 0.05 < plain["safety"].min() < plain["safety"].max() < 0.95
    logit = np.log(plain["safety"] / (1 - plain["safety"]))
    np.testing.assert_allclose(folded["safety"][0, 0], 1 / (1 + np.exp(-(2 * logit[0, 0] - 1))), rtol=1e-3)
    np.testing.assert_allclose(folded["safety"][0, 1:], plain["safety"][0, 1:], rtol=1e-4)
    raised = plain["pii"] ** 0.5
    np.testing.assert_allclose(folded["pii"], raised / raised.sum(-1, keepdims=True), rtol=1e-3)
    follows = np.log(plain["entailment"] / (1 - plain["entailment"]))
    np.testing.assert_allclose(folded["entailment"], 1 / (1 + np.exp(-(follows / 2 + 0.25))), rtol=1e-3)


@pytest.mark.parametrize(
    ("change", "said"), [("max_onnx_megabytes=0.001", "allowed"), ("max_change=0.0000000001", "int8 may change")]
)
def test_an_export_that_fails_a_check_is_not_put_in_place(tmp_path: Path, change: str, said: str) -> None:
    recipe = config("tokens=2048", change)
    data = prepared(recipe, tmp_path)
    HeadsTraining(recipe, encoder().shape, begin(), data, tmp_path).run()
    with pytest.raises(HeadsRejectedError, match=said):
        export(recipe, base(), data, tmp_path, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_head_of_which_nothing_is_trained_is_not_exported(tmp_path: Path) -> None:
    recipe = config("tokens=2048", "shares={pii: 1}")
    data = prepared(recipe, tmp_path)
    HeadsTraining(recipe, encoder().shape, begin(), data, tmp_path).run()
    export(recipe, base(), data, tmp_path, tmp_path / "model")
    graph = onnx.load(tmp_path / "model/model.onnx").graph
    assert [one.name for one in graph.output] == ["last_hidden_state", "pii"]
