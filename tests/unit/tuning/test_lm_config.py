"""The presets, the schedule and what a configuration refuses."""

from __future__ import annotations

import pytest

from penstock_tuning.data import manifest as manifests
from penstock_tuning.encoder.errors import RunMismatchError
from penstock_tuning.lm.config import Text, load_config
from penstock_tuning.lm.errors import LmConfigError
from penstock_tuning.lm.prepare import text_sources
from penstock_tuning.training.recipe import PRESETS


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_fits_into_twenty_megabytes(preset: str) -> None:
    config = load_config(preset)
    shape = config.shape
    quantized = config.export.bits / 8 + 4 / config.export.block_size
    # Quantized are all matrices, the output's among them; the input's embeddings are fp32, the tokenizer 0.5 MB.
    megabytes = (shape.parameters * quantized + 4 * shape.vocabulary * shape.width + 500_000) / 1e6
    assert megabytes < config.export.max_megabytes == 20
    assert config.length <= shape.context
    assert config.phases[0].learned == "all"
    assert config.phases[-1].learned == "answers"


def test_the_presets_are_for_their_machines() -> None:
    cpu, gpu = load_config("cpu"), load_config("gpu")
    assert sum(phase.tokens for phase in cpu.phases) <= 14_000_000  # of two cores in an hour and a half without bf16
    assert (cpu.machine.device, cpu.machine.precision) == ("cpu", "auto")
    assert (gpu.machine.device, gpu.machine.precision, gpu.machine.compiled) == ("cuda", "bf16", True)
    assert gpu.phases[0].tokens > 20 * cpu.phases[0].tokens


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_leave_abuse_and_what_conversations_have_out_of_the_text(preset: str) -> None:
    manifest = manifests.load()
    read = text_sources(manifest, load_config(preset).text)
    assert {one.split for one in read} == {"train"}
    assert not {one.kind for one in read} & {"social", "jailbreak", "harmful"}
    assert "persona_chat" not in {one.name for one in read}
    assert len(read) > 20
    with pytest.raises(RunMismatchError, match="no_such"):
        text_sources(manifest, Text(without=("no_such",)))


def test_the_rate_falls_once_at_the_end() -> None:
    changes = ["phases=[{tokens: 40960, learned: all, shares: {text: 1}}]", "optimizer.learning_rate=1.0"]
    config = load_config("cpu", changes=[*changes, "optimizer.warmup_steps=2", "optimizer.decay_share=0.5"])
    assert [round(config.rate(step), 3) for step in range(10)] == [0.5, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2]


def test_phases_follow_each_other() -> None:
    config = load_config("cpu")
    first = config.phases[0].tokens // config.batch_tokens
    assert [config.phase_at(step) for step in (0, first - 1, first, config.steps - 1)] == [0, 0, 1, 1]
    with pytest.raises(IndexError):
        config.phase_at(config.steps)


def test_the_digest_is_of_what_decides_the_weights() -> None:
    config = load_config("cpu")
    same = load_config("cpu", changes=["machine.threads=1", "log_every=3", "export.bits=4"])
    assert config.digest() == same.digest()
    assert config.digest() != load_config("cpu", changes=["seed=8"]).digest()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("shape.width=250", "heads of an even size"),
        ("shape.key_value_heads=3", "evenly"),
        ("length=2048", "longer than the context"),
        ("length=500", "rows of 500"),
        ("shape.context=512", "shape.context"),
        ("phases=[{tokens: 100, learned: all, shares: {text: 1}}]", "less than one batch"),
        ("phases=[{tokens: 9000, learned: all, shares: {books: 1}}]", "phases"),
        ("phases=[{tokens: 9000, learned: some, shares: {text: 1}}]", "phases"),
        ("optimizer.warmup_steps=100000000", "leave none"),
        ("export.bits=3", "export.bits"),
        ("shape.depth=3", "shape.depth"),
    ],
)
def test_a_contradiction_is_refused_and_named(change: str, said: str) -> None:
    with pytest.raises(LmConfigError, match=said):
        load_config("cpu", changes=[change])
