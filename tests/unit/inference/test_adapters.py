"""Rows with different adapters and with none in one batch: each as it is alone, and as the merged model has it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from tests.support.adapters import adapter, matrices, merged, peft
from tests.support.generation import event_of
from tests.support.models import SHIPPED, TINY, tiny

from penstock.contracts.errors import StageError
from penstock.models.entries import Entry
from penstock.models.manifest import Source
from penstock.models.registry import Registry
from penstock_inference.adapter_slots import AdapterSlots
from penstock_inference.adapters import read
from penstock_inference.backend import GenerationRequest, RequestFault
from penstock_inference.layout import ModelLayout
from penstock_inference.local import LocalBackend
from penstock_inference.opening import open_folder
from penstock_inference.runner import Limits, OnnxRunner
from penstock_inference.scheduler import GRID

BIASED = TINY.with_name("equality") / "qwen2"
TEXTS = ("the model", "a prompt", "gives the answer which is then recorded as it came", "x")


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = Registry(tmp_path / "registry", SHIPPED)
    registry.add(tiny(tmp_path / "tiny"), source=Source(kind="folder", location="x"))
    return registry


def add(registry: Registry, folder: Path, base: str = "tiny") -> Entry:
    return registry.add(folder, source=Source(kind="folder", location="x"), adapter_of=base).entry


def backend(registry: Registry, base: str = "tiny", **limits: int) -> LocalBackend:
    return LocalBackend.load(registry.find(base).folder, Limits(**{"rows": 4, **limits}), registry=registry)


def request(key: int, text: str, entry: Entry | None = None, max_tokens: int = 24) -> GenerationRequest:
    event = event_of(text=text, max_tokens=max_tokens)
    reference = entry.reference if entry is not None else None
    return GenerationRequest(key, event.prompt, event.parameters, 0, adapter=reference)


def finish(backend: LocalBackend) -> dict[int, str]:
    texts: dict[int, str] = {}
    while step := backend.step():
        for piece in step:
            texts[piece.key] = texts.get(piece.key, "") + piece.text
    return texts


def slots_of(backend: LocalBackend) -> AdapterSlots | None:
    """What it has in memory."""
    return runner_of(backend).adapters


def runner_of(backend: LocalBackend) -> OnnxRunner:
    """What its passes run on."""
    assert backend._adapters is not None
    return backend._adapters._runner


def answers(backend: LocalBackend, requests: Sequence[GenerationRequest]) -> dict[int, str]:
    for each in requests:
        backend.add(each)
    return finish(backend)


@pytest.mark.parametrize("dtype", ["F32", "BF16"])
def test_an_adapter_gives_the_answers_of_the_merged_model_alone_and_beside_others(
    registry: Registry, tmp_path: Path, dtype: str
) -> None:
    made = [matrices(TINY, 4, 1), matrices(TINY, 2, 2, ("q_proj", "v_proj")), matrices(TINY, 8, 3, ("down_proj",))]
    if dtype == "BF16":  # what its sixteen bits hold
        made = [{n: tuple(_rounded(m) for m in pair) for n, pair in pairs.items()} for pairs in made]  # type: ignore[misc]  # pairs
    entries = [
        add(registry, peft(tmp_path / f"a{number}", pairs, rank, dtype, lora_alpha=rank * 1.5))
        for number, (pairs, rank) in enumerate(zip(made, (4, 2, 8), strict=True))
    ]
    plain = LocalBackend.load(TINY, Limits(rows=1))
    expected = {}
    for number, text in enumerate(TEXTS):
        expected |= {number: answers(plain, [request(number, text)])[number]}
    for which, pairs in enumerate(made, start=1):
        whole = LocalBackend.load(merged(tmp_path / f"m{which}", pairs, 1.5), Limits(rows=1))
        for number, text in enumerate(TEXTS):
            key = which * 10 + number
            expected[key] = answers(whole, [request(key, text)])[key]
    assert len(set(expected.values())) == len(expected)

    def asked(key: int) -> GenerationRequest:
        return request(key, TEXTS[key % 10], entries[key // 10 - 1] if key >= 10 else None)

    alone = backend(registry, rows=1)
    assert {key: answers(alone, [asked(key)])[key] for key in expected} == expected
    for rows in (2, 8):
        order = sorted(expected, key=lambda key: (key % 10, key))
        assert answers(backend(registry, rows=rows), [asked(key) for key in order]) == expected


def _rounded(matrix: np.ndarray) -> np.ndarray:
    return ((matrix.view(np.uint32) >> 16) << 16).view(np.float32)


def test_a_layer_with_a_bias_is_adapted_as_the_merged_model_has_it(registry: Registry, tmp_path: Path) -> None:
    pairs = matrices(BIASED, 4, 1)
    registry.add(BIASED, source=Source(kind="folder", location="x"), name="biased")
    entry = add(registry, peft(tmp_path / "tone", pairs, 4), "biased")
    whole = OnnxRunner(ModelLayout.read(merged(tmp_path / "merged", pairs, 2.0, BIASED)), Limits(rows=2))
    ours = OnnxRunner(ModelLayout.read(BIASED), Limits(rows=2))
    slots = ours.adapt(1)
    prompt = list(range(5, 45))
    before = ours.prefill(0, 0, prompt).copy()
    slots.put("tone", list(read(entry.folder, ours.graph)), ())
    slots.use(["tone"])
    logits, expected = ours.prefill(0, 0, prompt), whole.prefill(0, 0, prompt)
    assert np.abs(logits - before).max() > 0.1
    np.testing.assert_allclose(logits, expected, atol=1e-3)


@pytest.mark.parametrize("folder", [TINY, SHIPPED, BIASED], ids=["float32", "int8", "biases"])
def test_without_an_adapter_all_is_as_before_bit_for_bit(folder: Path) -> None:
    layout = ModelLayout.read(folder)
    plain, ours = OnnxRunner(layout, Limits(rows=4)), OnnxRunner(layout, Limits(rows=4))
    ours.adapt(2)
    random = np.random.default_rng(3)
    prompts = [random.integers(3, 350, length).tolist() for length in (1, 2, GRID, 70)]
    for row, prompt in enumerate(prompts):
        np.testing.assert_array_equal(ours.prefill(row, 0, prompt), plain.prefill(row, 0, prompt))
    lengths = [len(prompt) for prompt in prompts]
    np.testing.assert_array_equal(ours.decode([5, 6, 7, 8], lengths), plain.decode([5, 6, 7, 8], lengths))


def test_rows_without_one_are_bit_equal_beside_rows_with_one(registry: Registry, tmp_path: Path) -> None:
    entry = add(registry, adapter(tmp_path / "a", SHIPPED, rank=8, size=0.02), "builtin")
    layout = ModelLayout.read(SHIPPED)
    plain, ours = OnnxRunner(layout, Limits(rows=4)), backend(registry, "builtin")
    answers(ours, [request(1, "x", entry, max_tokens=1)])
    runner, slots = runner_of(ours), slots_of(ours)
    assert slots is not None
    prompts = [list(range(10, 40)), list(range(50, 97)), list(range(7, 30))]
    for row, prompt in enumerate(prompts):
        plain.prefill(row, 0, prompt)
        slots.use([entry.reference if row == 1 else None])
        runner.prefill(row, 0, prompt)
    lengths = [len(prompt) for prompt in prompts]
    slots.use([None, entry.reference, None])
    mixed, expected = runner.decode([5, 6, 7], lengths), plain.decode([5, 6, 7], lengths)
    np.testing.assert_array_equal(mixed[[0, 2]], expected[[0, 2]])
    assert not np.array_equal(mixed[1], expected[1])


def test_the_embedded_model_has_adapters_too_and_neighbours_change_nothing(registry: Registry, tmp_path: Path) -> None:
    entries = [
        add(registry, adapter(tmp_path / f"a{seed}", SHIPPED, rank=4 * seed, seed=seed, size=0.1), "builtin")
        for seed in (1, 2)
    ]
    asked = [
        request(10 * which + number, text, entry, 12)
        for which, entry in enumerate([None, *entries])
        for number, text in enumerate(TEXTS)
    ]
    alone = backend(registry, "builtin", rows=1)
    expected = {each.key: answers(alone, [each])[each.key] for each in asked}
    assert len(set(expected.values())) > 2 * len(TEXTS)
    assert answers(backend(registry, "builtin", rows=6, step_tokens=48), asked) == expected


def test_kept_beginnings_never_cross_adapters(registry: Registry, tmp_path: Path) -> None:
    entries = [add(registry, adapter(tmp_path / f"a{seed}", seed=seed)) for seed in (1, 2)]
    shared = "the model and the runner take a prompt and give an answer which is then recorded"
    bare = [backend(registry, prefix_mib=0) for _ in range(3)]
    counted: list[tuple[int, int]] = []
    with_cache = LocalBackend.load(
        registry.find("tiny").folder, Limits(rows=4), lambda *counts: counted.append(counts), registry
    )
    for _ in range(2):
        for which, entry in enumerate([None, *entries]):
            for tail in ("a", "b"):
                asked = request(1, shared + tail, entry)
                assert answers(with_cache, [asked]) == answers(bare[which], [asked])
    reused, computed = (sum(counts) for counts in zip(*counted, strict=True))
    whole = reused + computed
    assert reused == (whole // 12 // GRID * GRID) * 9  # of twelve prompts three had nothing before them


def test_slots_are_bounded_and_the_least_recently_used_goes_first(registry: Registry, tmp_path: Path) -> None:
    entries = [add(registry, adapter(tmp_path / f"a{seed}", seed=seed, rank=1 + seed)) for seed in range(1, 5)]
    alone = backend(registry, rows=1)
    asked = [request(key, TEXTS[key % 3], entries[key % 4], 5 + key) for key in range(12)]
    expected = {each.key: answers(alone, [each])[each.key] for each in asked}
    small = backend(registry, rows=4, adapters=2)
    assert answers(small, asked) == expected
    slots = slots_of(small)
    assert slots is not None
    for number in (0, 1, 0, 2):
        answers(small, [request(1, "x", entries[number], 2)])
    assert [number for number in range(4) if slots.resident(entries[number].reference)] == [0, 2]


def test_an_adapter_in_use_is_not_replaced_and_others_wait(registry: Registry, tmp_path: Path) -> None:
    entries = [add(registry, adapter(tmp_path / f"a{seed}", seed=seed)) for seed in (1, 2)]
    one = backend(registry, rows=4, adapters=1)
    one.add(request(1, "the model", entries[0], 12))
    one.add(request(2, "the model", entries[1], 3))
    one.add(request(3, "the model", None, 3))
    order = []
    while step := one.step():
        order += [piece.key for piece in step if piece.finish_reason is not None]
    assert order[0] == 1
    assert set(order) == {1, 2, 3}


def test_without_an_adapter_the_graph_stays_the_exported_one(registry: Registry) -> None:
    ours = backend(registry)
    answers(ours, [request(1, "the model")])
    assert slots_of(ours) is None


def test_what_cannot_be_used_is_refused_and_says_what_there_is(registry: Registry, tmp_path: Path) -> None:
    entry = add(registry, adapter(tmp_path / "tone"))
    registry.promote("tone")
    ours = backend(registry, adapter_rank=3)
    gone = GenerationRequest(1, request(1, "x").prompt, request(1, "x").parameters, 0, adapter="other@0123456789ab")
    for asked, code, limit in ((gone, "unknown_adapter", "tone"), (request(1, "x", entry), "adapter_too_large", 3)):
        with pytest.raises(StageError) as refused:
            ours.add(asked)
        assert (refused.value.code, refused.value.field, refused.value.limit) == (code, "model", limit)
    with pytest.raises(StageError, match="no adapter of the model that serves") as refused:
        backend(registry, "builtin").add(request(1, "x", entry))
    assert refused.value.code == "adapter_of_another_model"
    genai = open_folder(registry.find("tiny").folder, Limits(rows=1), engine="genai", registry=registry)
    for none in (LocalBackend.load(TINY, Limits()), backend(registry, adapters=0), genai):
        with pytest.raises(StageError, match="PENSTOCK_INFERENCE_ENGINE") as refused:
            none.add(request(1, "x", entry))
        assert refused.value.code == "unknown_adapter"


def test_a_damaged_adapter_fails_its_request_alone(registry: Registry, tmp_path: Path) -> None:
    good, bad = (add(registry, adapter(tmp_path / f"a{seed}", seed=seed)) for seed in (1, 2))
    weights = bad.folder / "adapter_model.safetensors"
    weights.chmod(0o644)
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    ours = backend(registry)
    expected = answers(ours, [request(1, "the model", good), request(2, "a prompt")])
    for key, entry in ((1, good), (3, bad), (4, bad), (2, None)):
        ours.add(request(key, "a prompt" if key == 2 else "the model", entry))
    texts: dict[int, str] = {}
    faults = []
    for _ in range(200):
        try:
            step = ours.step()
        except RequestFault as fault:
            assert isinstance(fault.cause, StageError)
            faults.append((fault.key, fault.cause.code))
            ours.cancel(fault.key)
            continue
        if not step:
            break
        for piece in step:
            texts[piece.key] = texts.get(piece.key, "") + piece.text
    assert (texts, faults) == (expected, [(3, "adapter_damaged"), (4, "adapter_damaged")])


def test_an_adapter_that_is_no_number_is_damaged(registry: Registry, tmp_path: Path) -> None:
    pairs = matrices(TINY, 4, 1)
    next(iter(pairs.values()))[0][0, 0] = np.nan
    ours = backend(registry)
    ours.add(request(1, "x", add(registry, peft(tmp_path / "a", pairs, 4))))
    with pytest.raises(RequestFault) as fault:
        ours.step()
    assert isinstance(fault.value.cause, StageError)
    assert fault.value.cause.code == "adapter_damaged"
    assert not ours.step()


def test_a_wider_adapter_that_joins_leaves_the_rows_as_they_are(registry: Registry, tmp_path: Path) -> None:
    narrow, wide = (add(registry, adapter(tmp_path / f"a{rank}", rank=rank, seed=rank)) for rank in (2, 16))
    asked = [request(1, "the model", narrow, 30), request(2, "a prompt", wide, 12), request(3, "x", narrow, 9)]
    alone = backend(registry, rows=1)
    expected = {each.key: answers(alone, [each])[each.key] for each in asked}
    ours = backend(registry)
    ours.add(asked[0])
    texts = dict.fromkeys(expected, "")
    for late in (*asked[1:], None):
        for _ in range(6):
            for piece in ours.step():
                texts[piece.key] += piece.text
        if late is not None:
            ours.add(late)
    assert {key: texts[key] + rest for key, rest in {**dict.fromkeys(expected, ""), **finish(ours)}.items()} == expected


def test_a_slot_that_was_widened_and_filled_anew_gives_the_new_adapters_answers(
    registry: Registry, tmp_path: Path
) -> None:
    ranks = {"narrow": 2, "wide": 16, "other": 2}
    entries = [add(registry, adapter(tmp_path / name, rank=rank, seed=len(name))) for name, rank in ranks.items()]
    asked = [request(1, "the model", entry, 16) for entry in entries]
    expected = [answers(backend(registry, rows=1), [each]) for each in asked]
    ours = backend(registry, adapters=2)
    assert [answers(ours, [each]) for each in asked] == expected
    assert len({answer[1] for answer in expected}) == 3


def test_a_graph_that_can_have_no_adapters_fails_their_requests_alone(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = add(registry, adapter(tmp_path / "tone"))
    ours = backend(registry)
    expected = answers(ours, [request(1, "the model")])
    monkeypatch.setattr(runner_of(ours), "_cache", runner_of(ours)._cache.astype(np.float16))
    ours.add(request(2, "x", entry))
    with pytest.raises(RequestFault) as fault:
        ours.step()
    assert isinstance(fault.value.cause, StageError)
    assert (fault.value.key, fault.value.cause.code) == (2, "adapter_unsupported")
    monkeypatch.undo()
    ours.cancel(2)
    assert answers(ours, [request(1, "the model")]) == expected
