"""llama.cpp with its own continuous batching, by its C interface.

What its server does: each pass takes one token of every row that generates, and besides as much of the waiting
prompts as a batch has room for.
"""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tests.benchmarks.inference.serving import Desk, Run
from tests.benchmarks.inference.workload import Request

BATCH = 512
"""Most tokens in a pass, llama.cpp's default for what is computed at once."""


@dataclass(slots=True)
class _Row:
    request: Request
    read: int = 0
    """Tokens of the prompt in the cache."""
    made: int = 0
    last: int = 0
    at: int = -1
    """Where its logits are in the batch; -1 for none."""


class LlamaCpp:
    """A GGUF file and one cache of `rows` sequences of at most `context` tokens."""

    def __init__(self, file: Path, rows: int, threads: int, context: int = 1024) -> None:
        import llama_cpp

        self._c = llama_cpp
        self._rows = rows
        llama_cpp.llama_backend_init()
        self._quiet = llama_cpp.llama_log_callback(lambda level, text, data: None)
        llama_cpp.llama_log_set(self._quiet, ctypes.c_void_p(0))
        self._model = llama_cpp.llama_model_load_from_file(str(file).encode(), llama_cpp.llama_model_default_params())
        if not self._model:
            raise RuntimeError(f"llama.cpp cannot open {file}")
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = rows * context
        parameters.n_seq_max = rows
        parameters.n_batch = parameters.n_ubatch = BATCH
        parameters.n_threads = parameters.n_threads_batch = threads
        parameters.no_perf = True
        self._context = llama_cpp.llama_init_from_model(self._model, parameters)
        if not self._context:
            raise RuntimeError(f"llama.cpp cannot make a context of {rows} rows of {context} tokens")
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._batch = llama_cpp.llama_batch_init(BATCH, 0, 1)
        self._vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))

    def serve(self, requests: Sequence[Request]) -> Run:
        """Answer all of them."""
        desk = Desk(requests)
        self._c.llama_memory_clear(self._memory, True)
        rows: list[_Row | None] = [None] * self._rows
        waiting: deque[Request] = deque()
        while True:
            waiting.extend(desk.due())
            for number in range(len(rows)):
                if rows[number] is None and waiting:
                    rows[number] = _Row(waiting.popleft())
            if not any(rows):
                if not desk.wait():
                    return desk.run()
                continue
            self._fill(rows)
            if code := self._c.llama_decode(self._context, self._batch):
                raise RuntimeError(f"llama_decode returned {code}")
            desk.note(self._chosen(rows))
            for number, row in enumerate(rows):
                if row is not None and row.made == row.request.tokens:
                    self._c.llama_memory_seq_rm(self._memory, number, -1, -1)
                    rows[number] = None

    def _fill(self, rows: Sequence[_Row | None]) -> None:
        self._batch.n_tokens = 0
        for number, row in enumerate(rows):
            if row is not None:
                row.at = -1
                if row.made:
                    self._append(number, row, row.last, len(row.request.prompt) + row.made - 1, wanted=True)
        for number, row in enumerate(rows):
            if row is None or row.made:
                continue
            prompt = row.request.prompt
            while row.read < len(prompt) and self._batch.n_tokens < BATCH:
                self._append(number, row, prompt[row.read], row.read, wanted=row.read == len(prompt) - 1)
                row.read += 1

    def _append(self, number: int, row: _Row, token: int, position: int, *, wanted: bool) -> None:
        at = self._batch.n_tokens
        self._batch.token[at] = token
        self._batch.pos[at] = position
        self._batch.n_seq_id[at] = 1
        self._batch.seq_id[at][0] = number
        self._batch.logits[at] = wanted
        self._batch.n_tokens = at + 1
        if wanted:
            row.at = at

    def _chosen(self, rows: Sequence[_Row | None]) -> dict[int, int]:
        """Key of each row that has logits -> its next token."""
        chosen = {}
        for row in rows:
            if row is None or row.at < 0:
                continue
            logits = np.ctypeslib.as_array(self._c.llama_get_logits_ith(self._context, row.at), (self._vocabulary,))
            row.last = int(logits.argmax())
            row.made += 1
            chosen[row.request.key] = row.last
        return chosen
