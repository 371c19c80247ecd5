"""transformers' `generate` with static batches: what most begin with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.inference.serving import Desk, Run, in_static_batches
from tests.benchmarks.inference.workload import Request

PAD = 0


class Transformers:
    """The weights as they were made, in float32 on a CPU and float16 on a GPU."""

    def __init__(self, folder: Path, rows: int, threads: int, device: str = "cpu") -> None:
        import torch
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(threads)
        self._torch = torch
        self._rows = rows
        self._device = device
        dtype = torch.float32 if device == "cpu" else torch.float16
        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).to(device).eval()

    def serve(self, requests: Sequence[Request]) -> Run:
        """Answer all, in static batches."""
        return in_static_batches(requests, self._rows, self._batch)

    def _batch(self, batch: Sequence[Request], desk: Desk) -> None:
        longest = max(len(request.prompt) for request in batch)
        steps = max(request.tokens for request in batch)
        padded = [[PAD] * (longest - len(request.prompt)) + list(request.prompt) for request in batch]
        mask = [[0] * (longest - len(request.prompt)) + [1] * len(request.prompt) for request in batch]

        def after_token(ids: Any, scores: Any, **_: Any) -> Any:
            """Called after each token: notes it and never stops."""
            desk.note({request.key: token for request, token in zip(batch, ids[:, -1].tolist(), strict=True)})
            return self._torch.zeros(len(batch), dtype=self._torch.bool, device=self._device)

        with self._torch.inference_mode():
            self._model.generate(
                self._torch.tensor(padded, device=self._device),
                attention_mask=self._torch.tensor(mask, device=self._device),
                do_sample=False,
                min_new_tokens=steps,
                max_new_tokens=steps,
                stopping_criteria=[after_token],
            )
