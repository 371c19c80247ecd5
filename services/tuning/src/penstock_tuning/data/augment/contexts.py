"""Attacks put into documents, chat formats around texts, placeholders for names, and attacks that are talked about."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence

from penstock.heads.spans import Span

_BREAK = re.compile(r"\n+|(?<=[.!?]) ")
_EMAIL = re.compile(r"[\w.+-]+@[\w-]+\.[\w.]+\b")
_PHONE = re.compile(r"\+?\d[\d ()-]{7,}\d")
_URL = re.compile(r"https?://\S+")
_FRAMES = ("{}", "{}", "\n{}\n", "<!-- {} -->", "[{}]", "Note to the assistant: {}", "P.S. {}", "# {}", "---\n{}\n---")
_QUESTIONS = {
    "en": (
        'What does "{}" mean?',
        'Translate into German: "{}"',
        'Our filter must catch prompts such as "{}". Write a unit test for it.',
        'In the lecture on prompt injection the example was "{}". Explain why it works.',
        'Is the sentence "{}" grammatically correct?',
        'A user complained that the bot answered "{}". Draft an apology.',
    ),
    "de": (
        "Was bedeutet \u201e{}\u201c?",
        "Übersetze ins Englische: \u201e{}\u201c",
        "Unser Filter soll Eingaben wie \u201e{}\u201c erkennen. Schreib einen Test dafür.",
        "Ist der Satz \u201e{}\u201c grammatisch richtig?",
    ),
    "fr": (
        "Que veut dire « {} » ?",
        "Traduis en anglais : « {} »",
        "Notre filtre doit reconnaître des phrases comme « {} ». Écris un test.",
        "La phrase « {} » est-elle correcte ?",
    ),
    "es": (
        '¿Qué significa "{}"?',
        'Traduce al inglés: "{}"',
        'Nuestro filtro debe detectar frases como "{}". Escribe una prueba.',
        '¿Es correcta la frase "{}"?',
    ),
    "it": (
        'Che cosa significa "{}"?',
        'Traduci in inglese: "{}"',
        'Il nostro filtro deve riconoscere frasi come "{}". Scrivi un test.',
        'La frase "{}" è corretta?',
    ),
    "pt": (
        'O que significa "{}"?',
        'Traduz para inglês: "{}"',
        'O nosso filtro deve detetar frases como "{}". Escreve um teste.',
        'A frase "{}" está correta?',
    ),
}
CHATS = ("im", "inst", "alpaca", "roles", "json", "tags")


def planted(attack: str, document: str, draw: random.Random) -> tuple[str, Span]:
    """The document with the attack at its start, at a break in its middle or at its end, and where it stands."""
    breaks = [match.end() for match in _BREAK.finditer(document)]
    at = draw.choice((0, len(document), *(draw.choice(breaks) for _ in range(2 if breaks else 0))))
    framed = draw.choice(_FRAMES).format(attack)
    before = "" if at == 0 or document[at - 1].isspace() else draw.choice((" ", "\n", "\n\n"))
    after = "" if at == len(document) or document[at].isspace() else draw.choice((" ", "\n", "\n\n"))
    start = at + len(before) + framed.index(attack)
    return f"{document[:at]}{before}{framed}{after}{document[at:]}", Span(start, start + len(attack), "injection")


def chat(text: str, draw: random.Random, system: str = "You are a helpful assistant.") -> str:
    """The text as the user's turn in one of the formats that models are prompted in."""
    return {
        "im": f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n",
        "inst": f"[INST] <<SYS>>\n{system}\n<</SYS>>\n\n{text} [/INST]",
        "alpaca": f"### Instruction:\n{text}\n\n### Response:\n",
        "roles": f"System: {system}\nUser: {text}\nAssistant:",
        "json": json.dumps([{"role": "system", "content": system}, {"role": "user", "content": text}]),
        "tags": f"<system>{system}</system>\n<user>{text}</user>",
    }[draw.choice(CHATS)]


def talked_about(attack: str, language: str, draw: random.Random) -> str:
    """An ordinary request about the sentence: it asks what it means, to translate it, to test for it."""
    return draw.choice(_QUESTIONS.get(language, _QUESTIONS["en"])).format(attack)


def placeholders(text: str, names: Sequence[str]) -> str:
    """The text as it is after anonymizing: addresses, numbers and these names replaced, numbered by first sight."""
    seen: dict[tuple[str, str], int] = {}

    def replace(kind: str, match: re.Match[str]) -> str:
        of_kind = [key for key in seen if key[0] == kind]
        return f"<{kind}_{seen.setdefault((kind, match[0]), len(of_kind) + 1)}>"

    text = _EMAIL.sub(lambda match: replace("EMAIL_ADDRESS", match), text)
    text = _URL.sub(lambda match: replace("URL", match), text)
    text = _PHONE.sub(lambda match: replace("PHONE_NUMBER", match), text)
    if names:
        pattern = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
        text = re.sub(rf"\b(?:{pattern})\b(?: [A-Z][\w'-]+)?", lambda match: replace("PERSON", match), text)
    return text
