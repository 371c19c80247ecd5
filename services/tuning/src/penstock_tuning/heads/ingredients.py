"""What the training data is made of besides its plain sources, each part of which a run can do without.

An ablation trains the same network on the same tokens without one of them; what it loses is what the part gained.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Literal

from penstock_tuning.data.example import Example

Ingredient = Literal["augmentation", "hard_negatives", "breadth"]
"""`augmentation`: copies that were changed, whatever the task.

`hard_negatives`: safety's texts that look like what is to be found and are not: attacks that are talked about,
requests with an attacker's wording and no attack, questions that sound alarming, identity terms in plain sentences.

`breadth`: safety's ordinary text of every kind but chat, short requests and social media.
"""

HARD = frozenset({"talked_about", "alarming", "identity", "direct", "indirect"})
BROAD = frozenset({"coding", "document", "mathematics", "question", "reasoning", "roleplay", "system", "tools"})


def belongs(example: Example, task: str, without: Container[Ingredient]) -> bool:
    """Whether training on all but some ingredients reads an example of a task."""
    if example.augmented and "augmentation" in without:
        return False
    if task != "safety" or any(example.labels.values()):
        return True
    return not (
        (example.kind in HARD and "hard_negatives" in without) or (example.kind in BROAD and "breadth" in without)
    )
