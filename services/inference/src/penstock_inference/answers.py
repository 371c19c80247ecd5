"""One answer under way: a generation's tokens, how they are chosen, the text and likelihoods that come of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

from penstock.contracts.events import Likelihood, TokenLikelihood
from penstock.text.prompt_tokens import PromptTokenizer
from penstock_inference.sampler import Sampler
from penstock_inference.scheduler import Generation
from penstock_inference.text import REPLACEMENT, TextStream


class Answer:
    """`finish_reason` is set by the `advance` that ends it."""

    def __init__(self, generation: Generation, sampler: Sampler, tokens: PromptTokenizer, stop: Sequence[str]) -> None:
        self.generation = generation
        self.sampler = sampler
        self.finish_reason: Literal["stop", "length"] | None = None
        self.text = ""
        """Released so far."""
        self._tokens = tokens
        # no method of this object: a cycle would stay in memory until the collector looks
        self._stream = TextStream(partial(_decoded, tokens), stop)
        self._starts: list[int] = []
        """Before each token, how many characters there were."""
        self._found: list[TokenLikelihood] = []
        """Of the tokens whose text is released."""

    def advance(self) -> str:
        """The text to release after the generation's newest token."""
        self._starts.append(self._stream.length)
        finished = self.generation.finished
        text = "" if finished == "eos" else self._stream.push(self.generation.tokens[-1])
        if self._stream.stopped or finished == "eos" or self.sampler.complete:
            self.finish_reason = "stop"
        elif finished == "length":
            self.finish_reason = "length"
        if self.finish_reason is not None:
            text += self._stream.finish()
        self.text += text
        return text

    def fresh_likelihoods(self) -> tuple[TokenLikelihood, ...]:
        """Of the tokens whose text was released in full since the last call; in the end of all that are in the text."""
        chosen = self.sampler.chosen
        if chosen is None:
            return ()
        before = len(self._found)
        for number in range(before, len(self._starts)):
            end = self._starts[number + 1] if number + 1 < len(self._starts) else self._stream.length
            if self._starts[number] >= len(self.text) or (end > len(self.text) and self.finish_reason is None):
                break
            each = chosen[number]
            text, spelled = self._spelled(each.token)
            likeliest = tuple(self._likely(*other) for other in each.likeliest)
            self._found.append(TokenLikelihood(token=text, logprob=each.logprob, bytes=spelled, top_logprobs=likeliest))
        return tuple(self._found[before:])

    def likelihoods(self) -> tuple[TokenLikelihood, ...] | None:
        """Of the tokens that are in the text, where they are asked for."""
        if self.sampler.chosen is None:
            return None
        self.fresh_likelihoods()
        return tuple(self._found)

    def _likely(self, token: int, logprob: float) -> Likelihood:
        text, spelled = self._spelled(token)
        return Likelihood(token=text, logprob=logprob, bytes=spelled)

    def _spelled(self, token: int) -> tuple[str, tuple[int, ...] | None]:
        """A token's text, control tokens by their names, and its bytes where that is all there is to it."""
        text = self._tokens.tokenizer.decode([token], skip_special_tokens=False)
        return text, None if REPLACEMENT in text else tuple(text.encode())


def _decoded(tokens: PromptTokenizer, ids: Sequence[int]) -> str:
    return tokens.tokenizer.decode(list(ids), skip_special_tokens=True)
