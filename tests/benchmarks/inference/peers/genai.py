"""onnxruntime-genai with static batches: those that wait run together until the last of them has ended."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tests.benchmarks.inference.serving import Desk, Run, in_static_batches
from tests.benchmarks.inference.workload import Request

PAD = 0


class Genai:
    """One generator for each batch of at most `rows`, on the folder that our engine runs too."""

    def __init__(self, folder: Path, rows: int, threads: int) -> None:
        import onnxruntime_genai as og

        self._og = og
        self._rows = rows
        config = og.Config(str(folder))
        config.overlay(json.dumps({"model": {"decoder": {"session_options": {"intra_op_num_threads": threads}}}}))
        self._model = og.Model(config)

    def serve(self, requests: Sequence[Request]) -> Run:
        """Answer all, in static batches."""
        return in_static_batches(requests, self._rows, self._batch)

    def _batch(self, batch: Sequence[Request], desk: Desk) -> None:
        longest = max(len(request.prompt) for request in batch)
        steps = max(request.tokens for request in batch)
        prompts = np.full((len(batch), longest), PAD, np.int32)
        for row, request in enumerate(batch):
            prompts[row, : len(request.prompt)] = request.prompt
        parameters = self._og.GeneratorParams(self._model)
        # as long at least as at most: end tokens are not heeded
        parameters.set_search_options(
            batch_size=len(batch), max_length=longest + steps, min_length=longest + steps, do_sample=False
        )
        generator = self._og.Generator(self._model, parameters)
        generator.append_tokens(prompts)
        for _ in range(steps):
            generator.generate_next_token()
            tokens = generator.get_next_tokens()
            desk.note({request.key: int(token) for request, token in zip(batch, tokens, strict=True)})
