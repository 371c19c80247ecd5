"""Writes the greedy reference answers that the inference tests compare with, token for token."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from penstock_tuning.lm.runtime import END_ID, genai_greedy, load_tokenizer, prompt_ids, text_of
from penstock_tuning.lm.tokenizer import Turn

MAX_NEW_TOKENS = 64
PROMPTS: tuple[tuple[Turn, ...], ...] = (
    (("user", "Hello!"),),
    (("user", "My mail is <EMAIL_ADDRESS_1>, please confirm."),),
    (("user", "I am <PERSON_1>. Please call me on <PHONE_NUMBER_1>."),),
    (("user", "Repeat exactly: river <URL_2> table <PERSON_3> 42"),),
    (
        (
            "user",
            "Answer as JSON with keys name, email. My name is <PERSON_1> and my e-mail address is <EMAIL_ADDRESS_1>.",
        ),
    ),
    (("user", "What is the capital of France?"),),
    (("user", "Meine Telefonnummer ist <PHONE_NUMBER_2>. Bitte bestätigen Sie."),),
    (("user", "Je m'appelle <PERSON_1>. J'habite à <LOCATION_1>."),),
    (("system", "Answer briefly."), ("user", "What is Kafka?")),
    (
        ("user", "My city is <LOCATION_1> and my name is <PERSON_2>."),
        ("assistant", "Noted: <LOCATION_1> and <PERSON_2>."),
        ("user", "What is my name?"),
    ),
    (("user", "Tell me about the river and the old house."),),
    (("user", "Write a short e-mail to <PERSON_1> about the invoice."),),
)


def write_fixture(folder: Path, target: Path) -> None:
    """Answer the fixed prompts with onnxruntime-genai on `folder` and write them to `target`."""
    tokenizer = load_tokenizer(folder)
    greedy = genai_greedy(folder)
    answers = []
    for turns in PROMPTS:
        ids = prompt_ids(tokenizer, folder, turns)
        tokens = greedy(ids, MAX_NEW_TOKENS)
        answers.append(
            {
                "messages": [{"role": role, "content": text} for role, text in turns],
                "prompt_ids": ids,
                "token_ids": tokens,
                "finish_reason": "stop" if tokens[-1] == END_ID else "length",
                "text": text_of(tokenizer, tokens),
            }
        )
    value = {
        "model": folder.name,
        "model_data_sha256": hashlib.sha256((folder / "model.onnx.data").read_bytes()).hexdigest(),
        "reference": "onnxruntime-genai, greedy, one sequence at a time",
        "max_new_tokens": MAX_NEW_TOKENS,
        "prompts": answers,
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
