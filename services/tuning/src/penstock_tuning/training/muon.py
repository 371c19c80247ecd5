"""Muon (https://kellerjordan.github.io/posts/muon/) for matrices, on processors with and without bf16.

torch's own multiplies in bf16 whatever the machine. Where a processor has no instructions for that, a product takes
twenty-five times as long as in fp32, and the optimizer four fifths of a step.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch


def muon(matrices: Iterable[torch.Tensor], rate: float, weight_decay: float, *, bf16: bool) -> torch.optim.Optimizer:
    """The optimizer, with updates of the size of AdamW's, so that both take one learning rate.

    Args:
        matrices: the parameters, each of two dimensions.
        rate: the learning rate.
        weight_decay: decoupled, times the rate.
        bf16: orthogonalize in bf16; else in fp32. The state is the same, so a checkpoint of one goes on with the other.
    """
    made = torch.optim.Muon if bf16 else _Fp32Muon
    return made(list(matrices), lr=rate, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")


class _Fp32Muon(torch.optim.Muon):  # type: ignore[misc,unused-ignore]  # torch is not installed where types are checked
    """Steps as the parent's, with Nesterov momentum and `match_rms_adamw`, in fp32."""

    @torch.no_grad()  # type: ignore[untyped-decorator,unused-ignore]  # the same
    def step(self, closure: Any = None) -> None:
        """One step; `closure` is not taken."""
        if closure is not None:
            raise ValueError("step() of this optimizer evaluates no loss")
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                state = self.state[matrix]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(matrix)
                average = state["momentum_buffer"].lerp_(matrix.grad, 1 - group["momentum"])
                wanted = matrix.grad.lerp(average, group["momentum"])
                update = _orthogonal(wanted, group["ns_coefficients"], group["ns_steps"], group["eps"])
                matrix.mul_(1 - group["lr"] * group["weight_decay"])
                matrix.add_(update, alpha=-group["lr"] * 0.2 * max(matrix.shape) ** 0.5)


def _orthogonal(
    matrix: torch.Tensor, coefficients: tuple[float, float, float], steps: int, epsilon: float
) -> torch.Tensor:
    """The matrix with singular values near 1, by Newton and Schulz's iteration, in its own precision."""
    a, b, c = coefficients
    tall = matrix.shape[0] > matrix.shape[1]
    found = matrix.T if tall else matrix
    found = found / found.norm().clamp(min=epsilon)
    for _ in range(steps):
        gram = found @ found.T
        found = torch.addmm(found, torch.addmm(gram, gram, gram, beta=b, alpha=c), found, beta=a)
    return found.T if tall else found
