"""The embedded backend: a model in a local folder.

Joins the tokenizer, an engine, a sampler and a text stream for each request. Greedy answers are the
same whatever else runs, and so are sampled ones, by their seeds. The engine is `engine.Engine`, ONNX Runtime with
continuous batching, or `genai.engine.GenaiEngine`; all parameters mean the same with either.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from penstock.contracts.errors import ConfigurationError, LimitExceeded, StageError
from penstock.contracts.events import Alternative
from penstock.models.registry import Registry
from penstock.text.prompt_tokens import PromptTokenizer
from penstock_inference.adapters import Adapters
from penstock_inference.answers import Answer
from penstock_inference.backend import Beside, GenerationRequest, Piece, RequestFault
from penstock_inference.constraints import Grammars
from penstock_inference.engine import Choose, Engine, Logits
from penstock_inference.layout import ModelLayout
from penstock_inference.prefixes import Counted, PrefixCache, count_nothing
from penstock_inference.runner import Limits, OnnxRunner
from penstock_inference.sampler import Sampler, seed_of
from penstock_inference.scheduler import GRID, Generation


class Decoder(Protocol):
    """What an engine runs: most sequences together, most tokens in one, and how many token ids there are."""

    @property
    def rows(self) -> int: ...
    @property
    def context_length(self) -> int: ...
    @property
    def vocabulary_size(self) -> int: ...


class Generates(Protocol):
    """An engine: generations one step further, with tokens that `Choose` picks."""

    def add(self, generation: Generation) -> None:
        """Queue a generation. Raises ValueError where it can never fit."""
        ...

    def cancel(self, generation: Generation) -> None:
        """End a generation; its place is free at the next step."""
        ...

    def clear(self) -> None:
        """Forget all generations."""
        ...

    def step(self) -> Sequence[Generation]:
        """Run one pass; the generations it was for, empty when idle. Raises RequestFault by the generation's key."""
        ...


@dataclass(slots=True)
class _Request:
    """One request's answers, the first one streamed, and how many are not yet complete."""

    key: int
    answers: list[Answer]
    open: int

    @property
    def tokens(self) -> int:
        return sum(len(each.generation.tokens) for each in self.answers)


class LocalBackend:
    """Implements `backend.Backend`."""

    def __init__(
        self,
        decoder: Decoder,
        engine: Callable[[Choose], Generates],
        tokens: PromptTokenizer,
        eos_ids: frozenset[int],
        versions: Mapping[str, str],
        *,
        adapters: Adapters | None = None,
    ) -> None:
        """Raises ConfigurationError where tokenizer and model do not fit together."""
        if tokens.vocabulary_size > decoder.vocabulary_size:
            raise ConfigurationError(
                f"PENSTOCK_MODEL_DIR: the folder does not fit together: its tokenizer has {tokens.vocabulary_size} "
                f"tokens, its model {decoder.vocabulary_size}"
            )
        self.rows = decoder.rows
        self.versions = versions
        self._context_length = decoder.context_length
        self._tokens = tokens
        self._eos_ids = eos_ids
        self._adapters = adapters
        self._grammars = Grammars(tokens.tokenizer.to_str(), decoder.vocabulary_size, eos_ids)
        self._engine = engine(self._choose)
        self._requests: dict[int, _Request] = {}
        self._answers: dict[int, tuple[_Request, Answer]] = {}
        """By the key of the generation, which is the backend's own."""
        self._next_key = 0

    @classmethod
    def load(
        cls,
        folder: Path,
        limits: Limits,
        counted: Counted = count_nothing,
        registry: Registry | None = None,
    ) -> LocalBackend:
        """Open a folder with the runner of this package; raises ConfigurationError naming the setting at fault.

        `registry` has its adapters; without one it has none.
        """
        layout = ModelLayout.read(folder)
        tokens = PromptTokenizer.from_folder(folder)
        runner = OnnxRunner(layout, limits)
        if limits.step_tokens <= limits.rows + GRID:
            raise ConfigurationError(
                f"PENSTOCK_INFERENCE_STEP_TOKENS: {limits.step_tokens} is too few for {limits.rows} rows "
                f"(PENSTOCK_INFERENCE_ROWS) and {GRID + 1} tokens of a prompt"
            )
        digest = layout.digest()
        adapters = None
        if registry is not None and limits.adapters:
            adapters = Adapters(registry, digest, runner, slots=limits.adapters, rank=limits.adapter_rank)
        prefixes = PrefixCache(limits.prefix_mib << 20, runner.read(0, 0, GRID), counted) if limits.prefix_mib else None

        def engine(choose: Choose) -> Generates:
            return Engine(
                runner,
                choose,
                step_tokens=limits.step_tokens,
                stall_s=limits.stall_s,
                prefixes=prefixes,
                adapters=adapters,
            )

        return cls(runner, engine, tokens, layout.eos_ids, {"model": digest}, adapters=adapters)

    def add(self, request: GenerationRequest) -> int:
        """Queue a request; the number of its prompt's tokens.

        Raises LimitExceeded where it cannot fit, InvalidRequest for a schema that the answer cannot be held to,
        StageError where its adapter cannot be used.
        """
        if request.key in self._requests:
            raise ValueError(f"key {request.key} is running already")
        self._find_adapter(request.adapter)
        prompt = self._tokens.encode(request.prompt)
        if not prompt:
            raise StageError("the prompt has no tokens", code="empty_prompt", field="messages")
        context = self._context_length
        room = context - len(prompt)
        if room < 1:
            raise LimitExceeded(
                f"messages: {len(prompt)} tokens leave no room for an answer in a context of {context}; "
                "shorten the prompt",
                code="context_length_exceeded",
                field="messages",
                limit=context - 1,
            )
        constraints = [self._grammars.of(request.parameters.output) for _ in range(request.parameters.n or 1)]
        made = _Request(request.key, [], len(constraints))
        for number, constraint in enumerate(constraints):
            sampler = Sampler(request.parameters, seed_of(request.seed, number), prompt, constraint)
            self._next_key += 1
            generation = Generation(self._next_key, prompt, min(request.parameters.max_tokens, room), self._eos_ids)
            generation.adapter = request.adapter
            self._engine.add(generation)
            made.answers.append(Answer(generation, sampler, self._tokens, request.parameters.stop))
            self._answers[generation.key] = made, made.answers[-1]
        self._requests[request.key] = made
        return len(prompt)

    def step(self) -> Sequence[Piece]:
        """Run one forward pass; a piece for each answer that it was for."""
        try:
            advanced = self._engine.step()
        except RequestFault as fault:
            raise RequestFault(self._answers[fault.key][0].key, fault.cause) from fault
        return [self._piece(*self._answers[generation.key]) for generation in advanced]

    def cancel(self, key: int) -> None:
        """Give a request up; its rows are free at the next step."""
        request = self._requests.pop(key, None)
        for answer in request.answers if request is not None else ():
            self._close(answer)

    def clear(self) -> None:
        """Give all requests up."""
        self._engine.clear()
        self._requests.clear()
        self._answers.clear()

    def wake(self) -> None:
        """Nothing: a step computes, and does not wait."""

    def close(self) -> None:
        """Nothing: memory is all there is."""

    def _find_adapter(self, adapter: str | None) -> None:
        if adapter is None:
            return
        if self._adapters is None:
            raise StageError(
                f"the request asks for the adapter {adapter}, and none are served here: they need the registry "
                "(no PENSTOCK_MODEL_DIR), PENSTOCK_INFERENCE_ADAPTERS above 0, and the engine `penstock` "
                "(PENSTOCK_INFERENCE_ENGINE)",
                code="unknown_adapter",
                field="model",
                limit="none",
            )
        self._adapters.find(adapter)

    def _choose(self, generation: Generation, logits: Logits) -> int:
        return self._answers[generation.key][1].sampler.choose(logits)

    def _close(self, answer: Answer) -> None:
        if self._answers.pop(answer.generation.key, None) is not None:
            self._engine.cancel(answer.generation)

    def _piece(self, request: _Request, answer: Answer) -> Piece:
        if not answer.generation.tokens:
            return Piece(request.key, "", request.tokens)
        text = answer.advance()
        fresh = answer.fresh_likelihoods()
        first, *others = request.answers
        shown = text if answer is first else ""
        if answer.finish_reason is not None:
            self._close(answer)
            request.open -= 1
        if request.open or first.finish_reason is None:
            beside = None
            if answer is not first and (text or answer.finish_reason is not None):
                beside = Beside(request.answers.index(answer), text, answer.finish_reason, fresh)
            likelihoods = fresh if answer is first else ()
            return Piece(request.key, shown, request.tokens, beside=beside, likelihoods=likelihoods)
        del self._requests[request.key]
        return Piece(
            request.key,
            shown,
            request.tokens,
            first.finish_reason,
            logprobs=first.likelihoods(),
            others=tuple(map(_alternative, others)),
        )


def _alternative(answer: Answer) -> Alternative:
    if answer.finish_reason is None:
        raise RuntimeError("an answer is told of before its end")
    return Alternative(text=answer.text, finish_reason=answer.finish_reason, logprobs=answer.likelihoods())
