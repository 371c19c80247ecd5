"""Greedy answers equal to transformers', token for token: `make eval-equality`.

    python -m tests.equality FOLDER

FOLDER has what `tests/equality/reference.py` made: for each architecture a model and 200 answers of transformers. Each
prompt is run alone and in batches that change, in pieces and with kept prefixes; then sampled, by seeds. Ends with a
table and one line of JSON; exit status 1 where an answer differs at a place that rounding does not decide, or a seed
gives another answer beside others than alone.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from tests.support.equality import ALONE, WAYS, Case, How, Ran, read, run, sampled

MIXED = How(8, 48, 8, changing=5)
_HEAD = f"{'model':<7}{'how':<64}{'equal':>9}{'ties':>6}{'tokens':>8}{'pieces':>8}{'reused':>8}{'left':>6}"


def greedy_of(folder: Path, cases: list[Case]) -> dict[str, dict[str, Any]]:
    """A row for each way of running them."""
    rows = {}
    for name, how in WAYS.items():
        ran = run(folder, cases, how)
        pairs = list(zip(cases, ran.tokens, strict=True))
        rows[name] = {
            "prompts": len(cases),
            "equal": sum(case.agrees(tokens) for case, tokens in pairs),
            "ties": sum(not case.agrees(tokens) and case.ties(tokens) for case, tokens in pairs),
            **_facts(ran),
        }
        print(_line(folder.name, name, rows[name]), flush=True)
    return rows


def seeds_of(folder: Path, cases: list[Case]) -> dict[str, Any]:
    """Sampled answers: alone, again alone and in a changing batch by the same seeds, and by others."""
    alone, again, mixed, other = (
        run(folder, cases, how, sampled(cases, seed)) for how, seed in ((ALONE, 1), (ALONE, 1), (MIXED, 1), (ALONE, 2))
    )
    same = [one == two == three for one, two, three in zip(alone.tokens, again.tokens, mixed.tokens, strict=True)]
    differ = sum(one != two for one, two in zip(alone.tokens, other.tokens, strict=True))
    row = {"prompts": len(cases), "equal": sum(same), "ties": 0, "other_seed_differs": differ, **_facts(mixed)}
    print(_line(folder.name, "sampled, same seed: alone, again, joining and leaving", row), flush=True)
    return row


def _facts(ran: Ran) -> dict[str, int]:
    return {
        "tokens": sum(map(len, ran.tokens)),
        "pieces": ran.pieces,
        "reused": ran.reused,
        "left": ran.left,
        "batch_changes": ran.batches,
        "most_rows": ran.most_rows,
    }


def _line(model: str, name: str, row: dict[str, Any]) -> str:
    equal = f"{row['equal']}/{row['prompts']}"
    rest = f"{row['ties']:>6}{row['tokens']:>8}{row['pieces']:>8}{row['reused']:>8}{row['left']:>6}"
    return f"{model:<7}{name:<64}{equal:>9}{rest}"


def main() -> int:
    """Compare, print, say whether all is equal."""
    parser = argparse.ArgumentParser(description="The engine's answers beside transformers'")
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    folders = sorted(path.parent for path in options.folder.glob("*/equality.json"))
    if not folders:
        parser.error(f"{options.folder} has no answers; make them with tests/equality/reference.py")
    print(_HEAD)
    greedy, seeds, prompts = {}, {}, 0
    for folder in folders:
        cases = read(folder)
        prompts += len(cases)
        greedy[folder.name] = greedy_of(folder, cases)
        seeds[folder.name] = seeds_of(folder, cases)
    rows = [row for each in greedy.values() for row in each.values()]
    unequal = sum(row["prompts"] - row["equal"] - row["ties"] for row in rows)
    changed = sum(row["prompts"] - row["equal"] for row in seeds.values())
    report = {
        "architectures": [folder.name for folder in folders],
        "prompts": prompts,
        "compared": sum(row["prompts"] for row in rows),
        "equal": sum(row["equal"] for row in rows),
        "ties": sum(row["ties"] for row in rows),
        "unequal": unequal,
        "seeds_changed": changed,
        "greedy": greedy,
        "seeds": seeds,
    }
    print(json.dumps(report))
    return 1 if unequal or changed else 0


if __name__ == "__main__":
    sys.exit(main())
