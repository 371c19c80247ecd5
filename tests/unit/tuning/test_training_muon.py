"""The optimizer of matrices takes the same steps in fp32 as torch's does in bf16."""

from __future__ import annotations

from typing import Any

import pytest

torch: Any = pytest.importorskip("torch", reason="torch is an extra of penstock-tuning (train)")

from penstock_tuning.training.muon import muon  # noqa: E402  # after the check for torch


def stepped(*, bf16: bool, steps: int, begun: Any = None) -> tuple[list[Any], Any]:
    torch.manual_seed(3)
    matrices = [torch.randn(shape).requires_grad_() for shape in ((8, 24), (24, 8), (16, 16))]
    optimizer = muon(matrices, 0.1, 0.02, bf16=bf16)
    if begun is not None:
        optimizer.load_state_dict(begun)
    for _ in range(steps):
        for matrix in matrices:
            matrix.grad = torch.randn(matrix.shape)
        optimizer.step()
    return [matrix.detach() for matrix in matrices], optimizer


def test_both_precisions_take_the_same_steps() -> None:
    begin, ours, theirs = (stepped(bf16=bf16, steps=steps)[0] for bf16, steps in ((True, 0), (False, 3), (True, 3)))
    for start, one, other in zip(begin, ours, theirs, strict=True):
        assert float((one - other).norm()) < 0.03 * float((one - start).norm())


def test_a_state_goes_on_with_the_other_precision() -> None:
    state = stepped(bf16=True, steps=2)[1].state_dict()
    momenta = [
        [kept["momentum_buffer"] for kept in stepped(bf16=bf16, steps=2, begun=state)[1].state.values()]
        for bf16 in (False, True)
    ]
    for one, other in zip(*momenta, strict=True):
        torch.testing.assert_close(one, other)


def test_singular_values_come_near_one_whatever_the_gradient() -> None:
    matrix = torch.zeros(12, 40).requires_grad_()
    optimizer = muon([matrix], 1.0, 0.0, bf16=False)
    matrix.grad = torch.randn(12, 40) * 1e-4
    optimizer.step()
    values = torch.linalg.svdvals(matrix.detach()) / (0.2 * 40**0.5)
    assert 0.6 < float(values.min()) <= float(values.max()) < 1.3
