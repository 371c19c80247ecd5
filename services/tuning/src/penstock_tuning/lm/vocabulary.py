"""What the tokenizer and the generator both name: special tokens, placeholders."""

from __future__ import annotations

PLACEHOLDER_TYPES: tuple[str, ...] = (
    "EMAIL_ADDRESS",
    "PHONE_NUMBER",
    "CREDIT_CARD",
    "IBAN_CODE",
    "IP_ADDRESS",
    "URL",
    "US_SSN",
    "PERSON",
    "LOCATION",
    "ORGANIZATION",
    "DATE_TIME",
    "CRYPTO",
)
PLACEHOLDER_MAX_INDEX = 9
SPECIAL_TOKENS: tuple[str, ...] = ("<|pad|>", "<|bos|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
