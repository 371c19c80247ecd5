"""The network, as functions over a dictionary of tensors: what ModernBERT is with full attention in every layer.

Pre-norm without biases, rotary positions, a gated unit with SiLU; names and layout of the tensors are those of
ModernBertForMaskedLM (Warner et al., 2024, https://arxiv.org/abs/2412.13663), which therefore reads them. Batches are
packed: texts follow each other in a row and see only themselves. Needs the extra `train`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from penstock_tuning.encoder.config import Shape
from penstock_tuning.encoder.rotary import rotary_tables
from penstock_tuning.encoder.tokenizer import SPECIAL, START

Weights = dict[str, torch.Tensor]
EPSILON = 1e-5
EMBEDDINGS = "model.embeddings.tok_embeddings.weight"
_START = SPECIAL.index(START)


def initial_weights(shape: Shape, seed: int) -> Weights:
    """Random weights on the CPU; the ways back into the residual stream are smaller the more layers there are."""
    generator = torch.Generator().manual_seed(seed)

    def matrix(rows: int, columns: int, deviation: float = 0.02) -> torch.Tensor:
        return torch.randn(rows, columns, generator=generator) * deviation

    width, wide, back = shape.width, shape.feed_forward, 0.02 / math.sqrt(2 * shape.layers)
    weights = {EMBEDDINGS: matrix(shape.vocabulary, width), "model.embeddings.norm.weight": torch.ones(width)}
    for layer in range(shape.layers):
        own = f"model.layers.{layer}"
        if layer:  # the first reads normed embeddings
            weights[f"{own}.attn_norm.weight"] = torch.ones(width)
        weights[f"{own}.attn.Wqkv.weight"] = matrix(3 * width, width)
        weights[f"{own}.attn.Wo.weight"] = matrix(width, width, back)
        weights[f"{own}.mlp_norm.weight"] = torch.ones(width)
        weights[f"{own}.mlp.Wi.weight"] = matrix(2 * wide, width)
        weights[f"{own}.mlp.Wo.weight"] = matrix(width, wide, back)
    weights["model.final_norm.weight"] = torch.ones(width)
    weights["head.dense.weight"] = matrix(width, width)
    weights["head.norm.weight"] = torch.ones(width)
    weights["decoder.bias"] = torch.zeros(shape.vocabulary)
    return weights


def rotary(shape: Shape, length: int, device: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines, each `[length, head_size / 2]`."""
    cosine, sine = rotary_tables(length, shape.head_size, shape.rope_theta)
    return torch.from_numpy(cosine).to(device), torch.from_numpy(sine).to(device)


def packed_mask(ids: torch.Tensor) -> torch.Tensor:
    """`[rows, 1, length, length]`: whether two places of a row are of one text; a text begins at its start token."""
    text = (ids == _START).cumsum(1)
    return (text[:, :, None] == text[:, None, :])[:, None]


def hidden_states(
    weights: Weights, shape: Shape, ids: torch.Tensor, mask: torch.Tensor, turns: tuple[torch.Tensor, torch.Tensor]
) -> torch.Tensor:
    """The last hidden states, normed: `[rows, length, width]`.

    Args:
        weights: of the encoder.
        shape: of the network.
        ids: `[rows, length]`.
        mask: True where a place sees another, broadcast to `[rows, heads, length, length]`.
        turns: of `rotary`, for this length.
    """
    rows, length = ids.shape

    def norm(states: torch.Tensor, name: str) -> torch.Tensor:
        return functional.layer_norm(states, (shape.width,), weights[f"{name}.weight"], eps=EPSILON)

    def linear(states: torch.Tensor, name: str) -> torch.Tensor:
        return functional.linear(states, weights[f"{name}.weight"])

    states = norm(functional.embedding(ids, weights[EMBEDDINGS]), "model.embeddings.norm")
    for layer in range(shape.layers):
        own = f"model.layers.{layer}"
        read = norm(states, f"{own}.attn_norm") if layer else states
        parts = linear(read, f"{own}.attn.Wqkv").view(rows, length, 3, shape.heads, shape.head_size)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        query, key = _turned(query, turns), _turned(key, turns)
        seen = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        states = states + linear(seen.transpose(1, 2).reshape(rows, length, shape.width), f"{own}.attn.Wo")
        gated, through = linear(norm(states, f"{own}.mlp_norm"), f"{own}.mlp.Wi").chunk(2, dim=-1)
        states = states + linear(functional.silu(gated) * through, f"{own}.mlp.Wo")
    return norm(states, "model.final_norm")


def _turned(states: torch.Tensor, turns: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    cosine, sine = (table.to(states.dtype) for table in turns)
    first, second = states.chunk(2, dim=-1)
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1)


def masked_loss(
    weights: Weights,
    shape: Shape,
    *,
    ids: torch.Tensor,
    places: torch.Tensor,
    labels: torch.Tensor,
    turns: tuple[torch.Tensor, torch.Tensor],
) -> torch.Tensor:
    """Mean cross-entropy in nats over the places to guess, each `[rows, masked]`; only these get logits."""
    states = hidden_states(weights, shape, ids, packed_mask(ids), turns)
    chosen = states.gather(1, places[..., None].expand(-1, -1, shape.width)).flatten(0, 1)
    read = functional.silu(functional.linear(chosen, weights["head.dense.weight"]))
    read = functional.layer_norm(read, (shape.width,), weights["head.norm.weight"], eps=EPSILON)
    logits = functional.linear(read, weights[EMBEDDINGS], weights["decoder.bias"])
    return functional.cross_entropy(logits.float(), labels.flatten())


def to_numpy(weights: Weights) -> dict[str, NDArray[np.float32]]:
    """The weights as arrays on the CPU."""
    return {name: tensor.detach().float().cpu().numpy() for name, tensor in weights.items()}
