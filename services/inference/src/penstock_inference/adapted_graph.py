"""A model's graph, rewritten so that each row of a pass may have a LoRA adapter of its own, or none.

Every linear layer becomes `y + ((x @ a^T) * rows) @ b`. `a` [k, inputs] and `b` [k, outputs] are inputs of the graph:
the matrices of all adapters in the batch, one below the other; `rows` [rows, 1, k] is 1 where a row has the adapter
that a line belongs to, else 0, and the same for all layers of a kind. With k = 0 nothing is added: y stays bit for bit
what it was. Graph in, graph out, as bytes; weights in files beside the graph are not touched.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from penstock.models.projections import (
    ATTRIBUTE,
    ATTRIBUTE_INT,
    ATTRIBUTE_NAME,
    ATTRIBUTE_TYPE,
    DOMAIN,
    GRAPH,
    INPUT,
    NODE,
    NODE_INPUT,
    NODE_NAME,
    NODE_OUTPUT,
    OP_TYPE,
    Projection,
)
from penstock.models.protobuf import Field, field, fields

_INTEGER, _FLOAT = 2, 1
"""An attribute's type, a tensor's."""
_NAME, _TYPE, _TENSOR, _ELEMENT, _SHAPE, _DIM, _VALUE, _PARAM = 1, 2, 1, 1, 2, 1, 1, 2
_MICROSOFT: Final = "com.microsoft"


def a_of(number: int) -> str:
    """The input for `a` of the layer of that number."""
    return f"adapters/{number}/a"


def b_of(number: int) -> str:
    """The input for `b`."""
    return f"adapters/{number}/b"


def rows_of(kind: str) -> str:
    """The input that says which rows have which adapters, of all layers of a kind."""
    return f"adapters/{kind}/rows"


def adapted(model: bytes, layers: Sequence[Projection]) -> bytes:
    """The model with inputs for adapters of these layers, numbered as they come."""
    numbers = {layer.output: number for number, layer in enumerate(layers)}
    return b"".join(
        field(GRAPH, b"".join(_graph(part.content, layers, numbers))) if part.number == GRAPH else part.raw
        for part in fields(memoryview(model))
    )


def _graph(graph: memoryview, layers: Sequence[Projection], numbers: dict[str, int]) -> Iterator[bytes | memoryview]:
    for part in fields(graph):
        made = _outputs(part) if part.number == NODE else ()
        number = next((numbers[name] for name in made if name in numbers), None)
        if number is None:
            yield part.raw
            continue
        yield field(NODE, b"".join(_renamed(part.content, layers[number].output)))
        for node in _added(layers[number], number):
            yield field(NODE, node)
    for number, layer in enumerate(layers):
        yield field(INPUT, _input(a_of(number), (f"k/{layer.kind}", layer.inputs)))
        yield field(INPUT, _input(b_of(number), (f"k/{layer.kind}", layer.outputs)))
    for kind in sorted({layer.kind for layer in layers}):
        yield field(INPUT, _input(rows_of(kind), ("adapters/rows", 1, f"k/{kind}")))


def _outputs(node: Field) -> Iterator[str]:
    return (str(part.content, "utf-8") for part in fields(node.content) if part.number == NODE_OUTPUT)


def _plain(name: str) -> str:
    """What a layer gives without adapters."""
    return f"{name}/plain"


def _renamed(node: memoryview, output: str) -> Iterator[bytes | memoryview]:
    """The node that makes a layer's output, which now makes the plain one."""
    for part in fields(node):
        ours = part.number == NODE_OUTPUT and part.content == output.encode()
        yield field(NODE_OUTPUT, _plain(output)) if ours else part.raw


def _added(layer: Projection, number: int) -> Iterator[bytes]:
    down, chosen, up = (f"adapters/{number}/{step}" for step in ("down", "chosen", "up"))
    transposed = field(ATTRIBUTE_NAME, "transB") + field(ATTRIBUTE_INT, 1) + field(ATTRIBUTE_TYPE, _INTEGER)
    yield (
        _node("FusedMatMul", (layer.input, a_of(number)), down)
        + field(DOMAIN, _MICROSOFT)
        + field(ATTRIBUTE, transposed)
    )
    yield _node("Mul", (down, rows_of(layer.kind)), chosen)
    yield _node("MatMul", (chosen, b_of(number)), up)
    yield _node("Add", (_plain(layer.output), up), layer.output)


def _node(operator: str, inputs: Sequence[str], output: str) -> bytes:
    named = b"".join(field(NODE_INPUT, name) for name in inputs)
    return named + field(NODE_OUTPUT, output) + field(NODE_NAME, f"{output}/{operator}") + field(OP_TYPE, operator)


def _input(name: str, shape: Sequence[int | str]) -> bytes:
    dims = b"".join(field(_DIM, field(_PARAM if isinstance(each, str) else _VALUE, each)) for each in shape)
    tensor = field(_ELEMENT, _FLOAT) + field(_SHAPE, dims)
    return field(_NAME, name) + field(_TYPE, field(_TENSOR, tensor))
