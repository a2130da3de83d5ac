"""What an ONNX file would make a runtime do, read before any runtime sees it.

An ONNX file is data as long as it is a plain graph of known operators over tensors that lie inside it. What would make
it more is refused here by name: operators and domains outside the list, functions and subgraphs (so no loop and no
branch), tensors that point at other files, strings, sparse tensors, training parts, and every field that this reader
does not know. Field numbers are those of onnx.proto (ONNX IR version 13).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from hansa.artifact.errors import ModelFileError
from hansa.artifact.wireformat import fields, integer, integers, message, packed, text

MAX_MODEL_BYTES = 1 << 30  # the largest encoder that a league would publish, in float32, is below
MAX_NODES = 20_000
MAX_ELEMENTS = 1 << 28  # of one tensor in the file

# What Hansa's export of tables and encoders writes, before and after ONNX Runtime's optimiser and dynamic int8.
# Each computes its outputs from its inputs alone; none runs a subgraph, draws a random number, or opens anything.
OPERATORS: Mapping[str, frozenset[str]] = {
    "": frozenset(
        [
            "Abs",
            "Add",
            "And",
            "ArgMax",
            "BatchNormalization",
            "Cast",
            "Ceil",
            "Clip",
            "Concat",
            "Constant",
            "ConstantOfShape",
            "Cos",
            "CumSum",
            "DequantizeLinear",
            "Div",
            "DynamicQuantizeLinear",
            "Equal",
            "Erf",
            "Exp",
            "Expand",
            "Flatten",
            "Floor",
            "Gather",
            "GatherElements",
            "GatherND",
            "Gelu",
            "Gemm",
            "Greater",
            "GreaterOrEqual",
            "Identity",
            "IsNaN",
            "LayerNormalization",
            "LeakyRelu",
            "Less",
            "LessOrEqual",
            "Log",
            "LogSoftmax",
            "MatMul",
            "MatMulInteger",
            "Max",
            "Mean",
            "Min",
            "Mod",
            "Mul",
            "Neg",
            "Not",
            "Or",
            "Pad",
            "Pow",
            "QuantizeLinear",
            "Range",
            "Reciprocal",
            "ReduceL2",
            "ReduceMax",
            "ReduceMean",
            "ReduceMin",
            "ReduceProd",
            "ReduceSum",
            "Relu",
            "Reshape",
            "Round",
            "ScatterND",
            "Shape",
            "Sigmoid",
            "Sign",
            "Sin",
            "Size",
            "Slice",
            "Softmax",
            "Split",
            "Sqrt",
            "Squeeze",
            "Sub",
            "Sum",
            "Tanh",
            "Tile",
            "Transpose",
            "Trilu",
            "Unsqueeze",
            "Where",
        ]
    ),
    "com.microsoft": frozenset(
        [
            "Attention",
            "BiasGelu",
            "DynamicQuantizeMatMul",
            "EmbedLayerNormalization",
            "FastGelu",
            "FusedMatMul",
            "Gelu",
            "MatMulIntegerToFloat",
            "MultiHeadAttention",
            "QAttention",
            "QEmbedLayerNormalization",
            "SkipLayerNormalization",
        ]
    ),
}
# The optimiser notes domains that it knows, whether a node is of them or not; only those of nodes can do anything.
_NOTED = frozenset({"", "ai.onnx", "com.microsoft"})
_ITEM_BYTES = {
    1: 4,
    2: 1,
    3: 1,
    4: 2,
    5: 2,
    6: 4,
    7: 8,
    9: 1,
    10: 2,
    11: 8,
    12: 4,
    13: 8,
    16: 2,
}  # by data_type
_DTYPES = {1: "float32", 6: "int32", 7: "int64"}
_FLOAT32, _INT32, _INT64 = 1, 6, 7


@dataclass(frozen=True)
class Port:
    """An input or an output of a graph.

    Attributes:
        name: of it.
        dtype: ``float32``, ``int32`` or ``int64``.
        shape: a number, or the name of what varies, for each axis.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass
class _Contents:
    operators: set[str] = field(default_factory=set)
    nodes: int = 0
    elements: int = 0
    inputs: list[Port] = field(default_factory=list)
    outputs: list[Port] = field(default_factory=list)


@dataclass(frozen=True)
class Graph:
    """A graph that may be run as data.

    Attributes:
        operators: that occur in it, ``domain:name`` outside ONNX's own domain.
        nodes: how many.
        elements: numbers in its tensors.
        inputs, outputs: in the file's order.
    """

    operators: tuple[str, ...]
    nodes: int
    elements: int
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


def read_graph(data: bytes, *, max_bytes: int = MAX_MODEL_BYTES) -> Graph:
    """Look through a whole ONNX file.

    Args:
        data: the file.
        max_bytes: larger files are not read.

    Guarantees: a file that passes holds no operator, domain, function or subgraph but those listed here, and names no
    other file. Assumes: the runtime implements the listed operators as ONNX and ONNX Runtime describe them.

    Raises:
        ModelFileError: it holds anything else, or is no ONNX file; says what.
    """
    if len(data) > max_bytes:
        raise ModelFileError(f"the model's file has {len(data):,} bytes; at most {max_bytes:,} are read")
    found = _Contents()
    graph: memoryview | None = None
    for number, kind, value in fields(memoryview(data)):
        if number == 7:
            if graph is not None:  # a protobuf reader would merge the two
                raise ModelFileError("the model's file has two graphs")
            graph = message(kind, value)
        elif number == 8:
            _opset(message(kind, value))
        elif number in (20, 25):
            what = "training steps" if number == 20 else "functions of its own"
            raise ModelFileError(f"the model's file has {what}")
        elif number not in (1, 2, 3, 4, 5, 6, 14):
            raise ModelFileError(f"the model's file has an unknown part (field {number} of the model)")
    if graph is None:
        raise ModelFileError("the model's file has no graph")
    _graph(graph, found)
    if not found.inputs or not found.outputs:
        raise ModelFileError("the model's file has no inputs, or no outputs")
    return Graph(
        tuple(sorted(found.operators)),
        found.nodes,
        found.elements,
        tuple(found.inputs),
        tuple(found.outputs),
    )


def _opset(data: memoryview) -> None:
    for number, kind, value in fields(data):
        if number == 1 and not (
            text(kind, value) in _NOTED or text(kind, value).startswith(("ai.onnx.", "com."))
        ):
            raise ModelFileError(f"the model's file uses the operators of {text(kind, value)!r}")
        if number not in (1, 2):
            raise ModelFileError(f"the model's file has an unknown part (field {number} of an opset)")


def _graph(data: memoryview, found: _Contents) -> None:
    initial: set[str] = set()
    inputs: list[Port] = []
    for number, kind, value in fields(data):
        if number == 1:
            found.nodes += 1
            if found.nodes > MAX_NODES:
                raise ModelFileError(f"the model's file has more than {MAX_NODES:,} operators")
            _node(message(kind, value), found)
        elif number == 5:
            initial.add(_tensor(message(kind, value), found))
        elif number in (11, 12):
            (inputs if number == 11 else found.outputs).append(_port(message(kind, value)))
        elif number == 15:
            raise ModelFileError("the model's file has sparse tensors")
        elif number not in (2, 10, 13, 14, 16):
            raise ModelFileError(f"the model's file has an unknown part (field {number} of the graph)")
    found.inputs += [port for port in inputs if port.name not in initial]


def _node(data: memoryview, found: _Contents) -> None:
    operator, domain = "", ""
    seen: set[int] = set()
    for number, kind, value in fields(data):
        if number in (4, 7, 8):
            if number in seen:
                raise ModelFileError("an operator of the model's file has two names")
            seen.add(number)
        if number == 4:
            operator = text(kind, value)
        elif number == 7:
            domain = text(kind, value)
        elif number == 8:
            if text(kind, value):
                raise ModelFileError("an operator of the model's file is overloaded")
        elif number == 5:
            _attribute(message(kind, value), found)
        elif number not in (1, 2, 3, 6, 9):
            raise ModelFileError(f"the model's file has an unknown part (field {number} of an operator)")
    domain = "" if domain == "ai.onnx" else domain
    if operator not in OPERATORS.get(domain, ()):
        shown = f"{domain}:{operator}" if domain else operator
        raise ModelFileError(f"the model's file uses the operator {shown[:80]!r}, which is not run")
    found.operators.add(f"{domain}:{operator}" if domain else operator)


def _attribute(data: memoryview, found: _Contents) -> None:
    for number, kind, value in fields(data):
        if number in (5, 10):
            _tensor(message(kind, value), found)
        elif number in (6, 11):
            raise ModelFileError("an operator of the model's file has a graph of its own: a loop or a branch")
        elif number in (14, 15, 22, 23):
            raise ModelFileError("an operator of the model's file has a type or a sparse tensor as attribute")
        elif number not in (1, 2, 3, 4, 7, 8, 9, 13, 20):
            raise ModelFileError(f"the model's file has an unknown part (field {number} of an attribute)")


def _tensor(data: memoryview, found: _Contents) -> str:
    """Check a tensor that lies in the file; returns its name."""
    name, dims, data_type, raw, listed = "", [], 0, None, 0
    for number, kind, value in fields(data):
        if number == 1:
            dims += integers(kind, value)
        elif number == 2:
            data_type = integer(kind, value)
        elif number == 8:
            name = text(kind, value)
        elif number == 9:
            raw = len(message(kind, value))
        elif number in (4, 10):
            listed += packed(kind, value, 4 if number == 4 else 8)
        elif number in (5, 7, 11):
            listed += packed(kind, value, 0)
        elif number == 13 or (number == 14 and integer(kind, value) != 0):
            raise ModelFileError("a tensor of the model's file lies in another file")
        elif number == 6:
            raise ModelFileError("a tensor of the model's file holds text")
        elif number not in (12, 14, 16):
            raise ModelFileError(f"the model's file has an unknown part (field {number} of a tensor)")
    if any(size < 0 for size in dims) or len(dims) > 8:
        raise ModelFileError(f"the tensor {name[:80]!r} has no shape")
    elements = math.prod(dims)
    if elements > MAX_ELEMENTS:
        raise ModelFileError(f"the tensor {name[:80]!r} has {elements:,} numbers; at most {MAX_ELEMENTS:,}")
    item = _ITEM_BYTES.get(data_type)
    if item is None:
        raise ModelFileError(f"the tensor {name[:80]!r} is of a type that is not run ({data_type})")
    if (raw is not None and (raw != elements * item or listed)) or (raw is None and listed != elements):
        raise ModelFileError(f"the tensor {name[:80]!r} does not hold the numbers that its shape says")
    found.elements += elements
    return name


def _port(data: memoryview) -> Port:
    name, dtype, shape = "", "", None
    for number, kind, value in fields(data):
        if number == 1:
            name = text(kind, value)
        elif number == 2:
            dtype, shape = _tensor_type(message(kind, value), name)
    if shape is None:
        raise ModelFileError(f"{name[:80]!r} of the model's file is no tensor")
    return Port(name, dtype, shape)


def _tensor_type(data: memoryview, name: str) -> tuple[str, tuple[int | str, ...]]:
    element, shape = 0, []
    for number, kind, value in fields(data):
        if number == 6:
            continue  # a denotation, which nobody reads
        if number != 1:
            raise ModelFileError(f"{name[:80]!r} of the model's file is no tensor")
        for inner, inner_kind, inner_value in fields(message(kind, value)):
            if inner == 1:
                element = integer(inner_kind, inner_value)
            elif inner == 2:
                shape = [
                    _axis(message(k, v)) for n, k, v in fields(message(inner_kind, inner_value)) if n == 1
                ]
    if element not in _DTYPES:
        raise ModelFileError(f"{name[:80]!r} of the model's file is neither float32 nor an integer")
    return _DTYPES[element], tuple(shape)


def _axis(data: memoryview) -> int | str:
    for number, kind, value in fields(data):
        if number == 1:
            return integer(kind, value)
        if number == 2:
            return text(kind, value)
    return ""
