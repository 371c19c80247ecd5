"""The vocabulary head over chosen positions alone: an exported graph, changed as it is opened.

As exported, a graph multiplies every position of a prompt with the vocabulary's weights, though only the last one's
logits are wanted, and none where the prompt goes on in another pass. Here a Gather is put before that product, and
its indices are one more input. The file stays as it is: the changed graph, which names the same weights, is handed to
the session from memory.

A graph whose end is not understood is left alone. Field numbers are those of onnx.proto3
(https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from penstock.models.protobuf import Field, field, fields, varints

POSITIONS: Final = "penstock.positions"
"""The input: int64, [any number], indices of positions in the pass."""
_GATHERED: Final = "penstock.hidden"

_GRAPH = 7
_NODE, _INITIALIZER, _INPUT, _OUTPUT, _VALUE_INFO = 1, 5, 11, 12, 13
_NODE_INPUT, _NODE_OUTPUT, _NODE_NAME, _OP_TYPE, _ATTRIBUTE = 1, 2, 3, 4, 5
_NAME, _TYPE = 1, 2  # of a value
_TENSOR_TYPE, _ELEMENT, _SHAPE, _DIM, _DIM_VALUE, _DIM_PARAM = 1, 1, 2, 1, 1, 2
_TENSOR_DIMS, _TENSOR_NAME = 1, 8
_ATTRIBUTE_NAME, _ATTRIBUTE_INT, _TENSOR, _ATTRIBUTE_TYPE, _INT_TYPE, _INT64 = 1, 3, 5, 20, 2, 7

_HEADS = frozenset({"MatMul", "MatMulNBits"})
_ELEMENTWISE = frozenset({"Add", "Cast", "Div", "Identity", "Mul", "Tanh"})
"""What may follow a head: a bias, a scale, a soft cap, another type."""


@dataclass(frozen=True, slots=True)
class _Node:
    place: int
    """Among the graph's fields."""
    inputs: tuple[str, ...]
    operator: str


def choosing(model: bytes, logits: str) -> bytes | None:
    """The model with the input POSITIONS; the output `logits` then has [batch, positions, vocabulary].

    None where its end is not understood, or where it gives the last position's logits alone already.
    """
    try:
        return _choosing(memoryview(model), logits)
    except (ValueError, LookupError, TypeError):
        return None  # no graph: the session will say so


def _choosing(model: memoryview, logits: str) -> bytes | None:
    parts = list(fields(model))
    graphs = [part for part in parts if part.number == _GRAPH]
    if len(graphs) != 1:
        return None
    changed = _changed(list(fields(graphs[0].content)), logits)
    if changed is None:
        return None
    return b"".join(field(_GRAPH, changed) if part is graphs[0] else part.raw for part in parts)


def _changed(parts: list[Field], logits: str) -> bytes | None:
    """A graph's bytes, changed."""
    path = _path(parts, logits)
    place = next((at for at, part in enumerate(parts) if part.number == _OUTPUT and _named(part, logits)), None)
    if path is None or place is None or any(_named(part, POSITIONS) for part in parts if part.number == _INPUT):
        return None
    output = _with_free_positions(parts[place].content)
    if output is None:
        return None
    head, after = path
    out = []
    for at, part in enumerate(parts):
        if at == head.place:
            out += [_gather(head.inputs[0]), field(_NODE, _reading(part.content, _GATHERED))]
        elif at == place:
            out.append(field(_OUTPUT, output))
        # what a value between head and logits was said to be is no longer so
        elif not (part.number == _VALUE_INFO and any(_named(part, name) for name in after)):
            out.append(bytes(part.raw))
    return b"".join([*out, field(_INPUT, _indices())])


def _path(parts: list[Field], logits: str) -> tuple[_Node, set[str]] | None:
    """The node that multiplies with the vocabulary's weights, and the values from it to the logits."""
    constants = _constants(parts)
    producers: dict[str, _Node] = {}
    readers: dict[str, int] = {}
    for place, part in enumerate(parts):
        if part.number != _NODE:
            continue
        node = _Node(place, _texts(part, _NODE_INPUT), "".join(_texts(part, _OP_TYPE)))
        producers |= dict.fromkeys(_texts(part, _NODE_OUTPUT), node)
        for name in node.inputs:
            readers[name] = readers.get(name, 0) + 1
    name, after = logits, {logits}
    while readers.get(name, 0) == (name != logits) and name in producers:
        node = producers[name]
        if node.operator in _HEADS:
            return (node, after) if _is_constant(node.inputs[1], constants, producers) else None
        computed = [each for each in node.inputs if each not in constants]
        per_position = any(dim != 1 for each in node.inputs for dim in constants.get(each, ())[:-1])
        if node.operator not in _ELEMENTWISE or len(computed) != 1 or per_position:
            return None
        name = computed[0]
        after.add(name)
    return None


def _constants(parts: list[Field]) -> dict[str, tuple[int, ...]]:
    """Name -> shape."""
    found = {"".join(_texts(part, _TENSOR_NAME)): _dims(part) for part in parts if part.number == _INITIALIZER}
    for part in parts:
        if part.number == _NODE and _texts(part, _OP_TYPE) == ("Constant",):
            attributes = [each for each in fields(part.content) if each.number == _ATTRIBUTE]
            tensors = [each for given in attributes for each in fields(given.content) if each.number == _TENSOR]
            found |= {name: _dims(each) for name in _texts(part, _NODE_OUTPUT) for each in tensors}
    return found


def _is_constant(name: str, constants: dict[str, tuple[int, ...]], producers: dict[str, _Node]) -> bool:
    """Whether it is a weight, or made of weights by one node."""
    return name in constants or (name in producers and all(each in constants for each in producers[name].inputs))


def _gather(hidden: str) -> bytes:
    axis = field(_ATTRIBUTE_NAME, "axis") + field(_ATTRIBUTE_INT, 1) + field(_ATTRIBUTE_TYPE, _INT_TYPE)
    return field(
        _NODE,
        field(_NODE_INPUT, hidden)
        + field(_NODE_INPUT, POSITIONS)
        + field(_NODE_OUTPUT, _GATHERED)
        + field(_NODE_NAME, _GATHERED)
        + field(_OP_TYPE, "Gather")
        + field(_ATTRIBUTE, axis),
    )


def _reading(node: memoryview, first: str) -> bytes:
    """A node with another first input."""
    parts = list(fields(node))
    at = next(at for at, part in enumerate(parts) if part.number == _NODE_INPUT)
    return b"".join(field(_NODE_INPUT, first) if each == at else part.raw for each, part in enumerate(parts))


def _indices() -> bytes:
    shape = field(_SHAPE, field(_DIM, field(_DIM_PARAM, POSITIONS)))
    return field(_NAME, POSITIONS) + field(_TYPE, field(_TENSOR_TYPE, field(_ELEMENT, _INT64) + shape))


def _with_free_positions(output: memoryview) -> bytes | None:
    """A value of [batch, steps, vocabulary] whose second length is that of the indices; None where it is not such."""
    named = {part.number: part.content for part in fields(output)}
    kinds = {part.number: part.content for part in fields(named[_TYPE])}
    tensor = {part.number: part.value for part in fields(kinds[_TENSOR_TYPE])}
    element, shape = tensor.get(_ELEMENT), tensor.get(_SHAPE)
    if not isinstance(element, int) or not isinstance(shape, memoryview):
        return None
    dims = [part.content for part in fields(shape) if part.number == _DIM]
    if len(dims) != 3 or any(part.number == _DIM_VALUE for part in fields(dims[1])):
        return None
    free = (bytes(dims[0]), field(_DIM_PARAM, POSITIONS), bytes(dims[2]))
    made = field(_ELEMENT, element) + field(_SHAPE, b"".join(field(_DIM, each) for each in free))
    return field(_NAME, bytes(named[_NAME])) + field(_TYPE, field(_TENSOR_TYPE, made))


def _named(value: Field, name: str) -> bool:
    return _texts(value, _NAME) == (name,)


def _dims(tensor: Field) -> tuple[int, ...]:
    found: list[int] = []
    for part in fields(tensor.content):
        if part.number == _TENSOR_DIMS:
            found += [part.value] if isinstance(part.value, int) else varints(part.value)
    return tuple(found)


def _texts(message: Field, number: int) -> tuple[str, ...]:
    return tuple(str(part.content, "utf-8") for part in fields(message.content) if part.number == number)
