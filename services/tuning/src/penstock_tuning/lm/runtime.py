"""Greedy decoding and scoring of an exported folder, by plain onnxruntime and by onnxruntime-genai.

Used to check exports and to measure them, one sequence at a time. Serving is left to the inference service.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from penstock_tuning.lm.tokenizer import Turn

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

END_ID = 2
Greedy = Callable[[Sequence[int], int], list[int]]


def render(folder: Path, turns: Sequence[Turn], *, prompt: bool) -> str:
    """Render turns with the folder's chat template; `prompt` opens the assistant's turn."""
    template = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    messages = [{"role": role, "content": text} for role, text in turns]
    rendered: str = (
        ImmutableSandboxedEnvironment().from_string(template).render(messages=messages, add_generation_prompt=prompt)
    )
    return rendered


def load_tokenizer(folder: Path) -> Tokenizer:
    """The folder's tokenizer."""
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def prompt_ids(tokenizer: Tokenizer, folder: Path, turns: Sequence[Turn]) -> list[int]:
    """Token ids of a rendered prompt."""
    ids: list[int] = tokenizer.encode(render(folder, turns, prompt=True), add_special_tokens=False).ids
    return ids


class OnnxModel:
    """The builder's decoder graph under plain onnxruntime."""

    def __init__(self, folder: Path, threads: int = 1) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(
            str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
        self._past = [one for one in self._session.get_inputs() if one.name.startswith("past_key_values")]
        decoder = json.loads((folder / "genai_config.json").read_text(encoding="utf-8"))["model"]["decoder"]
        self._shape = (1, decoder["num_key_value_heads"], 0, decoder["head_size"])
        self._outputs = ["logits", *(one.name.replace("past_key_values", "present") for one in self._past)]

    def _step(self, ids: Sequence[int], total: int, past: list[Any]) -> tuple[np.ndarray, list[Any]]:
        feeds = {
            "input_ids": np.asarray([ids], dtype=np.int64),
            "attention_mask": np.ones((1, total), dtype=np.int64),
            **{one.name: value for one, value in zip(self._past, past, strict=True)},
        }
        logits, *present = self._session.run(self._outputs, feeds)
        return logits[0], present

    def _empty(self) -> list[Any]:
        return [np.zeros(self._shape, dtype=np.float32) for _ in self._past]

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """Logits after every token, `[len(ids), vocabulary]`."""
        return self._step(ids, len(ids), self._empty())[0]

    def greedy(self, ids: Sequence[int], limit: int) -> list[int]:
        """Greedy continuation with the key-value cache, up to and with the end token."""
        logits, past = self._step(ids, len(ids), self._empty())
        found: list[int] = []
        while True:
            found.append(int(logits[-1].argmax()))
            if found[-1] == END_ID or len(found) == limit:
                return found
            logits, past = self._step(found[-1:], len(ids) + len(found), past)


def genai_greedy(folder: Path) -> Greedy:
    """Greedy continuation by onnxruntime-genai: the reference implementation."""
    import onnxruntime_genai

    model = onnxruntime_genai.Model(str(folder))

    def greedy(ids: Sequence[int], limit: int) -> list[int]:
        params = onnxruntime_genai.GeneratorParams(model)
        params.set_search_options(max_length=len(ids) + limit, do_sample=False)
        generator = onnxruntime_genai.Generator(model, params)
        generator.append_tokens(np.asarray(ids, dtype=np.int32))
        while not generator.is_done():
            generator.generate_next_token()
        found = [int(token) for token in generator.get_sequence(0)[len(ids) :]]
        # It leaves the end token out of the sequence.
        return found if len(found) == limit or found[-1:] == [END_ID] else [*found, END_ID]

    return greedy


def torch_greedy(model: Any) -> Greedy:
    """Greedy continuation by the trained PyTorch model."""
    import torch

    torch.set_num_threads(1)

    def greedy(ids: Sequence[int], limit: int) -> list[int]:
        found: list[int] = []
        with torch.no_grad():
            out = model(input_ids=torch.tensor([list(ids)]), use_cache=True)
            while True:
                found.append(int(out.logits[0, -1].argmax()))
                if found[-1] == END_ID or len(found) == limit:
                    return found
                out = model(input_ids=torch.tensor([found[-1:]]), past_key_values=out.past_key_values, use_cache=True)

    return greedy


def text_of(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """Decode an answer without the special tokens."""
    text: str = tokenizer.decode(list(ids), skip_special_tokens=True)
    return text
