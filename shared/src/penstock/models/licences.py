"""What is known of licences that restrict use: a note for those who choose a model, no legal advice.

By the identifiers of the hub's model cards. Whoever adds a model may add restrictions of its own.
"""

from __future__ import annotations

from typing import Final

_LLAMA = (
    "the acceptable use policy applies",
    "more than 700 million monthly users need a licence of their own",
    "attribution: built with Llama",
)
_RAIL = ("use-based restrictions of its attachment apply, and must be passed on",)
_NON_COMMERCIAL = ("no commercial use",)

RESTRICTIONS: Final[dict[str, tuple[str, ...]]] = {
    "llama2": (*_LLAMA[:2], "its output may not improve other language models"),
    "llama3": _LLAMA,
    "llama3.1": _LLAMA,
    "llama3.2": _LLAMA,
    "llama3.3": _LLAMA,
    "llama4": _LLAMA,
    "gemma": ("the prohibited use policy applies, and must be passed on",),
    "openrail": _RAIL,
    "openrail++": _RAIL,
    "creativeml-openrail-m": _RAIL,
    "bigscience-openrail-m": _RAIL,
    "bigcode-openrail-m": _RAIL,
    "bigscience-bloom-rail-1.0": _RAIL,
    "cc-by-nc-2.0": _NON_COMMERCIAL,
    "cc-by-nc-3.0": _NON_COMMERCIAL,
    "cc-by-nc-4.0": _NON_COMMERCIAL,
    "cc-by-nc-sa-4.0": (*_NON_COMMERCIAL, "changed versions only under the same licence"),
    "cc-by-nc-nd-4.0": (*_NON_COMMERCIAL, "no changed versions"),
    "cc-by-sa-4.0": ("changed versions only under the same licence",),
    "apple-amlr": ("research only",),
    "fair-noncommercial-research-license": ("non-commercial research only",),
    "deepseek": ("use-based restrictions of its attachment apply, and must be passed on",),
}
OTHER: Final = "its own terms: read them before use"
"""Of `other`, as cards say of a licence without an identifier."""


def restrictions_of(licence: str) -> tuple[str, ...]:
    """What a licence is known to forbid or demand; empty where nothing is known of it."""
    identifier = licence.lower()
    return (OTHER,) if identifier == "other" else RESTRICTIONS.get(identifier, ())
