"""The presets, the schedule and what a configuration refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock_tuning.encoder.config import learning_rate, load_config
from penstock_tuning.encoder.errors import EncoderConfigError
from penstock_tuning.training.recipe import PRESETS


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_within_the_limits_of_its_size(preset: str) -> None:
    config = load_config(preset)
    assert 5e6 < config.shape.parameters < 15e6
    assert config.shape.parameters / 1e6 < config.max_onnx_megabytes <= 16
    assert config.shape.context == 512
    assert config.phases[-1].length == config.shape.context
    assert config.steps > config.optimizer.warmup_steps


def test_the_gpu_preset_reads_hundreds_of_millions_of_tokens() -> None:
    config = load_config("gpu")
    assert config.tokens > 300_000_000
    assert (config.machine.device, config.machine.precision, config.machine.compiled) == ("cuda", "bf16", True)


def test_parameters_are_counted_as_the_network_has_them() -> None:
    config = load_config("cpu", changes=["shape.vocabulary=1000", "shape.width=64", "shape.layers=2"])
    shape = config.shape
    layer = 64 * 3 * 64 + 64 * 64 + 64 * 2 * shape.feed_forward + shape.feed_forward * 64 + 2 * 64
    assert shape.parameters == 1000 * 64 + 64 + 2 * layer - 64 + 64


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("shape.width=250", "heads of an even size"),
        ("shape.context=256", "longer than the context"),
        ("optimizer.warmup_steps=100000000", "leave none"),
        ("masking.share=0", "masking.share"),
        ("masking={share: 0.3, kept: 0.5, random: 0.5}", "mask token"),
        ("phases=[{tokens: 100, length: 128, batch_tokens: 8192}]", "less than one batch"),
        ("phases=[{tokens: 9000, length: 100, batch_tokens: 8192}]", "rows of 100"),
        ("phases=[{tokens: 9000, length: 128, batch_tokens: 8192, micro_rows: 7}]", "not divisible"),
        ("shape.depth=3", "shape.depth"),
        ("shape.deep.depth=3", "no setting"),
        ("seed", "not KEY=VALUE"),
    ],
)
def test_a_contradiction_is_refused_and_named(change: str, said: str) -> None:
    with pytest.raises(EncoderConfigError, match=said):
        load_config("cpu", changes=[change])


def test_presets_and_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(EncoderConfigError, match="cpu, gpu"):
        load_config("tpu")
    with pytest.raises(EncoderConfigError, match="cannot be read"):
        load_config("cpu", tmp_path / "mine.yaml")
    (tmp_path / "mine.yaml").write_text("name: x\n")
    with pytest.raises(EncoderConfigError, match="seed"):
        load_config("cpu", tmp_path / "mine.yaml")


def test_the_rate_warms_up_stays_and_falls_to_zero() -> None:
    phases = "phases=[{tokens: 60, length: 2, batch_tokens: 2}, {tokens: 40, length: 1, batch_tokens: 1}]"
    config = load_config("cpu", changes=[phases, "optimizer={learning_rate: 1, warmup_steps: 10, decay_share: 0.5}"])
    assert config.steps == 70
    assert config.tokens == 100
    rates = [learning_rate(step, config) for step in range(config.steps)]
    assert rates[:10] == pytest.approx([0.1 * n for n in range(1, 11)])
    assert set(rates[10:36]) == {1.0}
    assert rates[36] == pytest.approx(34 / 35)
    assert rates[-1] == pytest.approx(1 / 35)
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_a_step_belongs_to_one_phase() -> None:
    phases = "phases=[{tokens: 60, length: 2, batch_tokens: 2}, {tokens: 40, length: 1, batch_tokens: 1}]"
    config = load_config("cpu", changes=[phases, "optimizer.warmup_steps=0"])
    assert [config.phase_at(step) for step in (0, 29, 30, 69)] == [(0, 0), (0, 29), (1, 0), (1, 39)]
    with pytest.raises(IndexError):
        config.phase_at(70)


def test_the_digest_follows_the_weights_not_the_hardware() -> None:
    plain = load_config("cpu")
    assert load_config("cpu", changes=["machine.threads=1", "log_every=3"]).digest() == plain.digest()
    assert load_config("cpu", changes=["seed=8"]).digest() != plain.digest()
    assert load_config("cpu", changes=["masking.share=0.2"]).digest() != plain.digest()
