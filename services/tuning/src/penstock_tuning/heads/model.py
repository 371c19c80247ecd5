"""The heads as functions over a dictionary of tensors, behind the encoder's hidden states, and their losses.

Safety and entailment: each label has two vectors. One gives every token a logit, the other says how much the token
counts; the text's logit is the weighted mean (label-wise attention: Mullenbach et al., 2018,
https://arxiv.org/abs/1802.05695). So the same logits answer for texts and for tokens. Personal data: a softmax over
the token's classes. Embeddings: the mean of projected states at unit length. Needs the extra `train`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

from penstock_tuning.data.example import HARM, PII, SAFETY
from penstock_tuning.encoder.config import Shape
from penstock_tuning.encoder.model import Weights, hidden_states
from penstock_tuning.encoder.tokenizer import SPECIAL
from penstock_tuning.heads.config import Losses, Task

POOLED = (*SAFETY, "entailed")
"""Labels whose logits are pooled, in the order of the rows of `ATTENTION` and `VALUES`."""
CLASSES = ("O", *PII)
ATTENTION, VALUES, VALUES_BIAS = "heads.pool.attention", "heads.pool.values", "heads.pool.bias"
PII_WEIGHT, PII_BIAS = "heads.pii.weight", "heads.pii.bias"
PROJECTION = "heads.similarity.weight"
HEADS = (ATTENTION, VALUES, VALUES_BIAS, PII_WEIGHT, PII_BIAS, PROJECTION)
_ENTAILED = len(SAFETY)
_DETAIL = 0.3
"""What a category of harm counts in the safety loss beside a label of its own."""
_RARE = -2.0
"""The logit that a label begins with: most texts have none."""


def initial_heads(width: int, dimensions: int, seed: int) -> Weights:
    """Random heads: attention begins as a plain mean, the projection as a cut of the states."""
    generator = torch.Generator().manual_seed(seed)

    def small(rows: int) -> torch.Tensor:
        return torch.randn(rows, width, generator=generator) * 0.02

    bias = torch.full((len(POOLED),), _RARE)
    bias[_ENTAILED] = 0.0
    return {
        ATTENTION: torch.zeros(len(POOLED), width),
        VALUES: small(len(POOLED)),
        VALUES_BIAS: bias,
        PII_WEIGHT: small(len(CLASSES)),
        PII_BIAS: torch.zeros(len(CLASSES)),
        PROJECTION: torch.eye(dimensions, width) + small(dimensions),
    }


def states_of(
    weights: Weights, shape: Shape, ids: torch.Tensor, segments: torch.Tensor, turns: tuple[torch.Tensor, torch.Tensor]
) -> torch.Tensor:
    """Hidden states `[rows, length, width]` of packed texts, each of which sees itself alone.

    Args:
        weights: of encoder and heads.
        shape: of the encoder.
        ids: `[rows, length]`.
        segments: `[rows, length]`: the number of a place's text, 0 for padding.
        turns: `encoder.model.rotary` for this length.
    """
    mask = (segments[:, :, None] == segments[:, None, :])[:, None]
    return hidden_states(weights, shape, ids, mask, turns)


def pooled(states: torch.Tensor, segments: torch.Tensor, texts: int, weights: Weights) -> torch.Tensor:
    """Logits of texts, `[texts, pooled labels]`, from flat states `[places, width]` and text numbers `[places]`."""
    values = functional.linear(states, weights[VALUES])
    scores = functional.linear(states, weights[ATTENTION])
    where = segments[:, None].expand_as(scores)
    tops = scores.new_full((texts + 1, scores.shape[1]), -torch.inf)
    tops = tops.scatter_reduce(0, where, scores.detach(), "amax")
    shares = torch.exp(scores - tops.gather(0, where))
    empty = scores.new_zeros(texts + 1, scores.shape[1])
    above, below = empty.index_add(0, segments, shares * values), empty.index_add(0, segments, shares)
    return above[1:] / below[1:] + weights[VALUES_BIAS]


def embedded(states: torch.Tensor, segments: torch.Tensor, texts: int, weights: Weights) -> torch.Tensor:
    """Embeddings `[texts, dimensions]` of unit length, from the same."""
    summed = states.new_zeros(texts + 1, states.shape[1]).index_add(0, segments, states)[1:]
    return functional.normalize(functional.linear(summed, weights[PROJECTION]), dim=1)


def loss_of(
    task: Task,
    weights: Weights,
    states: torch.Tensor,
    batch: dict[str, torch.Tensor],
    losses: Losses,
) -> torch.Tensor:
    """The loss of one batch.

    Args:
        task: of the batch.
        weights: of encoder and heads.
        states: `[rows, length, width]`.
        batch: the fields of `batches.Batch` but the task, as tensors.
        losses: what counts how much.
    """
    flat, segments = states.flatten(0, 1).float(), batch["segments"].flatten()
    texts = len(batch["weights"])
    if task == "similarity":
        vectors = embedded(flat, segments, texts, weights)
        return _contrast(vectors, batch, losses.temperature)
    word = (segments > 0) & (batch["ids"].flatten() >= len(SPECIAL))
    own = torch.cat((batch["weights"].new_zeros(1), batch["weights"]))[segments[word]]
    known = torch.cat((batch["known"].new_zeros(1), batch["known"]))[segments[word]]
    codes = batch["tokens"].flatten()[word]
    if task == "pii":
        return _tagged(functional.linear(flat[word], weights[PII_WEIGHT], weights[PII_BIAS]), codes, known, own)
    logits = pooled(flat, segments, texts, weights)
    if task == "entailment":
        return _judged(logits[:, _ENTAILED:], batch["labels"], batch["weights"], losses.smoothing)
    of_texts = _judged(logits[:, :_ENTAILED], batch["labels"], batch["weights"], losses.smoothing)
    of_tokens = functional.linear(flat[word], weights[VALUES][:_ENTAILED], weights[VALUES_BIAS][:_ENTAILED])
    return of_texts + losses.safety_tokens * _marked(of_tokens, codes, known, own)


def _judged(logits: torch.Tensor, labels: torch.Tensor, own: torch.Tensor, smoothing: float) -> torch.Tensor:
    """Cross-entropy of the known labels, summed over a text's; unknown ones are -1."""
    wanted = labels.float().clamp(min=0) * (1 - 2 * smoothing) + smoothing
    each = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    counted = (labels >= 0).float() * _importance(logits.shape[1], logits)
    return (each * counted).sum(1).mul(own).sum() / own.sum()


def _marked(logits: torch.Tensor, bits: torch.Tensor, known: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """The same of tokens: bit n of `bits` says that a token has label n, of `known` that this is known of its text."""
    places = torch.arange(logits.shape[1], device=logits.device)
    wanted = (bits[:, None] >> places & 1).float()
    each = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    counted = (known[:, None] >> places & 1).float() * _importance(logits.shape[1], logits)
    return (each * counted).sum(1).mul(own).sum() / own.sum().clamp(min=1e-6)


def _importance(labels: int, like: torch.Tensor) -> torch.Tensor:
    if labels != len(SAFETY):
        return like.new_ones(labels)
    return like.new_tensor([_DETAIL if label in HARM else 1.0 for label in SAFETY])


def _tagged(logits: torch.Tensor, classes: torch.Tensor, known: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of a token's class; one that is not marked may be of any class that its text does not cover."""
    logs = functional.log_softmax(logits, dim=1)
    places = torch.arange(logits.shape[1], device=logits.device)
    possible = (known[:, None] >> places & 1) == 0  # bit 0, of no class, is never set
    unmarked = torch.logsumexp(logs.masked_fill(~possible, -torch.inf), dim=1)
    marked = logs.gather(1, classes[:, None])[:, 0]
    return -(torch.where(classes > 0, marked, unmarked) * own).sum() / own.sum().clamp(min=1e-6)


def _contrast(vectors: torch.Tensor, batch: dict[str, torch.Tensor], temperature: float) -> torch.Tensor:
    """Each sentence must find its pair among all pairs of the batch, both ways (InfoNCE).

    Pairs labelled 0 are candidates alone. Pairs of one group are no candidates for each other, unless labelled so.
    """
    one, other = vectors[0::2], vectors[1::2]
    same = batch["labels"][0::2, 0] == 1
    groups, own = batch["groups"][0::2], batch["weights"][0::2][same]
    if not bool(same.any()):
        return vectors.sum() * 0.0
    cosines = one @ other.T / temperature
    numbers = torch.arange(len(one), device=one.device)
    kin = (groups[:, None] == groups[None, :]) & (groups >= 0)[:, None] & same[None, :]
    cosines = cosines.masked_fill(kin & (numbers[:, None] != numbers[None, :]), -torch.inf)
    forward = functional.cross_entropy(cosines[same], numbers[same], reduction="none")
    back = cosines[same][:, same].T
    backward = functional.cross_entropy(back, torch.arange(len(back), device=back.device), reduction="none")
    return ((forward + backward) / 2 * own).sum() / own.sum()


def rates(names: Sequence[str]) -> dict[str, list[str]]:
    """The names of the tensors by what their learning rate is of: `heads`, `embeddings`, `encoder`."""
    kinds: dict[str, list[str]] = {"heads": [], "embeddings": [], "encoder": []}
    for name in names:
        head, table = name.startswith("heads."), "tok_embeddings" in name
        kinds["heads" if head else "embeddings" if table else "encoder"].append(name)
    return kinds
