"""What is in the key of a kept answer, and what is not."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from penstock.contracts.events import GenerationParameters, OutputFormat, PromptPart
from penstock_inference.backend import GenerationRequest, Prompts
from penstock_inference.caching.keys import is_determined, key_of

PARAMETERS = GenerationParameters(model="penstock-lm", max_tokens=8)
PROMPT = (
    PromptPart(kind="template", text="<|user|>"),
    PromptPart(kind="text", text="one two", role="user", message=0),
    PromptPart(kind="template", text="<|assistant|>"),
)
REQUEST = GenerationRequest(1, PROMPT, PARAMETERS, 7, "r-1", "acme", 10, Prompts("sha256:t", "sha256:c"))
OTHER_VALUES: dict[str, Any] = {
    "model": "other",
    "temperature": 0.5,
    "top_p": 0.5,
    "top_k": 3,
    "min_p": 0.1,
    "presence_penalty": 0.1,
    "frequency_penalty": 0.1,
    "repetition_penalty": 1.1,
    "logprobs": 0,
    "n": 2,
    "max_tokens": 9,
    "stop": ("x",),
    "seed": 1,
    "output": OutputFormat(type="json_object"),
}
DELIVERY = {"stream": True, "cache": True}


def test_every_parameter_is_in_the_key_or_only_about_delivery() -> None:
    assert OTHER_VALUES.keys() | DELIVERY.keys() == set(GenerationParameters.model_fields)


def test_every_field_of_a_request_is_in_the_key_or_only_about_who_asks() -> None:
    in_the_key = {"prompt", "parameters", "tenant", "prompts", "adapter"}
    # `seed` is made of the request id where the parameters name none
    of_who_asks = {"key", "seed", "request_id", "input_tokens"}
    assert in_the_key | of_who_asks == {field.name for field in fields(GenerationRequest)}


@pytest.mark.parametrize("name", OTHER_VALUES)
def test_another_parameter_is_another_key(name: str) -> None:
    other = replace(REQUEST, parameters=PARAMETERS.having(**{name: OTHER_VALUES[name]}))
    assert key_of(other, "m") != key_of(REQUEST, "m")


@pytest.mark.parametrize("name", DELIVERY)
def test_how_an_answer_is_delivered_is_not_in_the_key(name: str) -> None:
    other = replace(REQUEST, parameters=PARAMETERS.having(**{name: DELIVERY[name]}))
    assert key_of(other, "m") == key_of(REQUEST, "m")


def test_who_asks_under_which_id_is_not_in_the_key_but_the_tenant_is() -> None:
    other = replace(REQUEST, key=2, seed=99, request_id="r-2", input_tokens=11)
    assert key_of(other, "m") == key_of(REQUEST, "m")
    assert key_of(replace(REQUEST, tenant="globex"), "m") != key_of(REQUEST, "m")


@pytest.mark.parametrize(
    "made_with", [None, Prompts("sha256:x", "sha256:c"), Prompts("sha256:t", "sha256:x"), Prompts(None, "sha256:t")]
)
def test_what_a_prompt_is_made_with_is_in_the_key(made_with: Prompts | None) -> None:
    assert key_of(replace(REQUEST, prompts=made_with), "m") != key_of(REQUEST, "m")


def test_another_revision_of_an_adapter_is_another_key_under_the_same_name() -> None:
    keys = {key_of(replace(REQUEST, adapter=adapter), "m") for adapter in (None, "tone@0123", "tone@4567")}
    assert len(keys) == 3


def test_another_model_is_another_key() -> None:
    assert key_of(REQUEST, "n") != key_of(REQUEST, "m")


@pytest.mark.parametrize(
    "prompt",
    [
        PROMPT[:2],
        (PROMPT[0], PROMPT[1].having(text="one  two"), PROMPT[2]),
        (PROMPT[0], PROMPT[1].having(role="system"), PROMPT[2]),
        (PROMPT[0], PROMPT[1].having(kind="template"), PROMPT[2]),
        (PROMPT[0], PROMPT[1].having(field="name"), PROMPT[2]),
        (PROMPT[0], PROMPT[1].having(message=1), PROMPT[2]),
        (PROMPT[0].having(text="<|user|>one "), PROMPT[1].having(text="two"), PROMPT[2]),
        (PROMPT[0], PROMPT[1].having(text="one "), PROMPT[1].having(text="two"), PROMPT[2]),
    ],
)
def test_another_prompt_is_another_key(prompt: tuple[PromptPart, ...]) -> None:
    assert key_of(replace(REQUEST, prompt=prompt), "m") != key_of(REQUEST, "m")


@pytest.mark.parametrize(
    ("given", "determined"),
    [({}, True), ({"temperature": 0.7}, False), ({"temperature": 0.7, "seed": 0}, True), ({"seed": 5}, True)],
)
def test_a_request_fixes_its_answer_where_it_is_greedy_or_names_a_seed(given: dict[str, Any], determined: bool) -> None:
    assert is_determined(PARAMETERS.having(**given)) is determined
