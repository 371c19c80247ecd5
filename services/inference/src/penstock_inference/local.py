"""The embedded backend: a model in a local folder, run by ONNX Runtime with continuous batching.

Joins the tokenizer, the engine, a sampler and a text stream for each request. Greedy answers are the
same whatever shares the batch, and so are sampled ones, by their seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from penstock.contracts.errors import ConfigurationError, LimitExceeded, StageError
from penstock.contracts.events import Likelihood, TokenLikelihood
from penstock.text.prompt_tokens import PromptTokenizer
from penstock_inference.backend import GenerationRequest, Piece
from penstock_inference.constraints import Grammars
from penstock_inference.engine import Engine, Logits, Runner
from penstock_inference.layout import ModelLayout
from penstock_inference.prefixes import PrefixCache
from penstock_inference.runner import Limits, OnnxRunner
from penstock_inference.sampler import Sampler
from penstock_inference.scheduler import GRID, Generation
from penstock_inference.text import REPLACEMENT, TextStream


@dataclass(slots=True)
class _Running:
    generation: Generation
    sampler: Sampler
    text: TextStream
    starts: list[int] = field(default_factory=list)
    """Before each token, how many characters there were."""
    length: int = 0
    """Characters released so far."""


class LocalBackend:
    """Implements `backend.Backend`."""

    def __init__(
        self,
        runner: Runner,
        tokens: PromptTokenizer,
        eos_ids: frozenset[int],
        digest: str,
        limits: Limits = Limits(),  # noqa: B008  # frozen
    ) -> None:
        self._runner = runner
        self.rows = runner.rows
        self._tokens = tokens
        self._eos_ids = eos_ids
        self._grammars = Grammars(tokens.tokenizer.to_str(), runner.vocabulary_size, eos_ids)
        self.prefixes = PrefixCache(limits.prefix_mib << 20)
        self._engine = Engine(
            runner,
            self._choose,
            step_tokens=limits.step_tokens,
            stall_s=limits.stall_s,
            prefixes=self.prefixes if limits.prefix_mib else None,
        )
        self._running: dict[int, _Running] = {}
        self.versions: Mapping[str, str] = {"model": digest}

    @classmethod
    def load(cls, folder: Path, limits: Limits) -> LocalBackend:
        """Open a model folder; raises ConfigurationError naming the setting at fault."""
        layout = ModelLayout.read(folder)
        tokens = PromptTokenizer.from_folder(folder)
        runner = OnnxRunner(layout, limits)
        if limits.step_tokens <= limits.rows + GRID:
            raise ConfigurationError(
                f"PENSTOCK_INFERENCE_STEP_TOKENS: {limits.step_tokens} is too few for {limits.rows} rows "
                f"(PENSTOCK_INFERENCE_ROWS) and {GRID + 1} tokens of a prompt"
            )
        if tokens.vocabulary_size > runner.vocabulary_size:
            raise ConfigurationError(
                f"PENSTOCK_MODEL_DIR: {folder} does not fit together: its tokenizer has {tokens.vocabulary_size} "
                f"tokens, its model {runner.vocabulary_size}"
            )
        return cls(runner, tokens, layout.eos_ids, layout.digest(), limits)

    def add(self, request: GenerationRequest) -> int:
        """Queue a request; the number of its prompt's tokens.

        Raises LimitExceeded where it cannot fit, InvalidRequest for a schema that the answer cannot be held to.
        """
        if request.key in self._running:
            raise ValueError(f"key {request.key} is running already")
        prompt = self._tokens.encode(request.prompt)
        if not prompt:
            raise StageError("the prompt has no tokens", code="empty_prompt", field="messages")
        context = self._runner.context_length
        room = context - len(prompt)
        if room < 1:
            raise LimitExceeded(
                f"messages: {len(prompt)} tokens leave no room for an answer in a context of {context}; "
                "shorten the prompt",
                code="context_length_exceeded",
                field="messages",
                limit=context - 1,
            )
        parameters = request.parameters
        constraint = self._grammars.of(parameters.output)
        sampler = Sampler(parameters, request.seed, prompt, constraint)
        generation = Generation(request.key, prompt, min(parameters.max_tokens, room), self._eos_ids)
        self._engine.add(generation)
        self._running[request.key] = _Running(generation, sampler, TextStream(self._decode, parameters.stop))
        return len(prompt)

    def step(self) -> Sequence[Piece]:
        """Run one forward pass; a piece for each request that it was for."""
        return [self._piece(generation) for generation in self._engine.step()]

    def cancel(self, key: int) -> None:
        """Give a request up; its row is free at the next step."""
        running = self._running.pop(key, None)
        if running is not None:
            self._engine.cancel(running.generation)

    def clear(self) -> None:
        """Give all requests up."""
        self._engine.clear()
        self._running.clear()

    def wake(self) -> None:
        """Nothing: a step computes, and does not wait."""

    def close(self) -> None:
        """Nothing: memory is all there is."""

    def _choose(self, generation: Generation, logits: Logits) -> int:
        return self._running[generation.key].sampler.choose(logits)

    def _piece(self, generation: Generation) -> Piece:
        if not generation.tokens:
            return Piece(generation.key, "", 0)
        running = self._running[generation.key]
        running.starts.append(running.text.length)
        text = "" if generation.finished == "eos" else running.text.push(generation.tokens[-1])
        reason: Literal["stop", "length"] | None = None
        if running.text.stopped or generation.finished == "eos" or running.sampler.complete:
            reason = "stop"
        elif generation.finished == "length":
            reason = "length"
        if reason is None:
            running.length += len(text)
            return Piece(generation.key, text, len(generation.tokens))
        text += running.text.finish()
        self.cancel(generation.key)
        running.length += len(text)
        return Piece(generation.key, text, len(generation.tokens), reason, logprobs=self._likelihoods(running))

    def _likelihoods(self, running: _Running) -> tuple[TokenLikelihood, ...] | None:
        """Of the tokens that are in the text, where they are asked for."""
        if running.sampler.chosen is None:
            return None
        found = []
        for each, start in zip(running.sampler.chosen, running.starts, strict=True):
            if start < running.length:
                text, spelled = self._spelled(each.token)
                likeliest = tuple(self._likely(*other) for other in each.likeliest)
                found.append(TokenLikelihood(token=text, logprob=each.logprob, bytes=spelled, top_logprobs=likeliest))
        return tuple(found)

    def _likely(self, token: int, logprob: float) -> Likelihood:
        text, spelled = self._spelled(token)
        return Likelihood(token=text, logprob=logprob, bytes=spelled)

    def _spelled(self, token: int) -> tuple[str, tuple[int, ...] | None]:
        """A token's text, control tokens by their names, and its bytes where that is all there is to it."""
        text = self._tokens.tokenizer.decode([token], skip_special_tokens=False)
        return text, None if REPLACEMENT in text else tuple(text.encode())

    def _decode(self, ids: Sequence[int]) -> str:
        return self._tokens.tokenizer.decode(list(ids), skip_special_tokens=True)
