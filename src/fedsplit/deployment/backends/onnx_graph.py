"""A module as an ONNX graph, with nothing in the file that running it does not need."""

import contextlib
import io
from collections import Counter
from collections.abc import Container, Iterable
from itertools import count
from typing import Any

import numpy as np
import onnx
import torch
from onnx import GraphProto, ModelProto, NodeProto, numpy_helper
from torch import Tensor, nn

from fedsplit.deployment.backends.exporting import exporting
from fedsplit.errors import UserError

INPUT, OUTPUT = "x", "z"
_ZEROS_BY_DEFAULT = {"DequantizeLinear": 2}
"""Position of the zero point among an operator's inputs; where it is left out it is zero."""


def export_onnx(module: nn.Module, example: Tensor) -> ModelProto:
    """Export a module in evaluation mode for any number of samples; `x` goes in, `z` comes out.

    Raises:
        UserError: an operation of it has no counterpart in ONNX.
    """
    module.eval()
    try:
        with exporting(), contextlib.redirect_stdout(io.StringIO()):
            program = torch.onnx.export(
                module,
                (example,),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
                external_data=False,
            )
    except torch.onnx.OnnxExporterError as error:
        reason = " ".join(str(error.__cause__ or error).split())[:200]
        raise UserError("model", type(module).__name__, f"cannot be exported to ONNX ({reason})") from error
    assert program is not None
    model: ModelProto = program.model_proto
    _rename(model.graph, {model.graph.input[0].name: INPUT, model.graph.output[0].name: OUTPUT})
    return model


def compact(model: ModelProto) -> ModelProto:
    """The same graph without names, shapes, comments and zeros that it can do without."""
    graph = model.graph
    for each in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        each.ClearField("doc_string")
        each.ClearField("metadata_props")
    for field in ("value_info", "quantization_annotation"):
        graph.ClearField(field)
    for field in ("producer_name", "producer_version"):
        model.ClearField(field)
    _leave_out_zeros(graph)
    used = {node.domain for node in graph.node}
    for entry in [each for each in model.opset_import if each.domain not in used]:
        model.opset_import.remove(entry)
    _share_equal(graph)
    kept = {INPUT, OUTPUT, ""}
    names = {name for node in graph.node for name in (*node.input, *node.output)} - kept
    _rename(graph, dict(zip(sorted(names), _short_names(), strict=False)))
    for node in graph.node:
        node.ClearField("name")
    return model


def _leave_out_zeros(graph: GraphProto) -> None:
    zeros = {
        each.name
        for each in graph.initializer
        if each.data_type in (onnx.TensorProto.INT8, onnx.TensorProto.INT32)
        and not np.any(numpy_helper.to_array(each))
    }
    for node in graph.node:
        place = _ZEROS_BY_DEFAULT.get(node.op_type)
        if place is not None and len(node.input) > place and node.input[place] in zeros:
            del node.input[place:]


def _share_equal(graph: GraphProto) -> None:
    """Keep one of constants that are equal, and none that are not used."""
    used = {name for node in graph.node for name in node.input}
    kept: dict[bytes, str] = {}
    others: dict[str, str] = {}
    for each in list(graph.initializer):
        array = numpy_helper.to_array(each)
        content = f"{each.data_type} {array.shape} ".encode() + array.tobytes()
        if each.name not in used or kept.setdefault(content, each.name) != each.name:
            others[each.name] = kept.get(content, "")
            graph.initializer.remove(each)
    _rename(graph, others)


def _short_names() -> Iterable[str]:
    digits = "abcdefghijklmnopqrstuvwyABCDEFGHIJKLMNOPQRSTUVWXYZ"  # neither x nor z
    for number in count():
        name, rest = digits[number % len(digits)], number // len(digits)
        while rest:
            name, rest = digits[rest % len(digits)] + name, rest // len(digits)
        yield name


def _rename(graph: GraphProto, names: dict[str, str]) -> None:
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    named: tuple[Any, ...] = (*graph.input, *graph.output, *graph.initializer, *graph.value_info)
    for each in named:
        each.name = names.get(each.name, each.name)


WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators with weights, which are nearly all of the work."""
_MOVES = {
    *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "Identity", "Cast", "Constant"),
    *("Shape", "Gather", "Concat", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice"),
}
"""Operators that move or convert values and compute nothing."""
_WHOLE = {"ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul", "QGemm"}
"""Operators that compute on whole numbers (int8)."""


def float_operators(graph: GraphProto, quantizable: Container[str]) -> Counter[str]:
    """Number of times that each operator computes on floating-point numbers.

    Args:
        quantizable: operators that compute on whole numbers where all they are given is decoded from them.
    """
    made_by = {name: node.op_type for node in graph.node for name in node.output}
    made_by |= {each.name: "Constant" for each in graph.initializer}
    floats: Counter[str] = Counter()
    for node in graph.node:
        if node.op_type in _MOVES | _WHOLE:
            continue
        sources = [made_by.get(name, "") for name in node.input if made_by.get(name) != "Constant"]
        decoded = all(source == "DequantizeLinear" for source in sources)
        if not decoded or node.op_type not in quantizable:
            floats[node.op_type] += 1
    return floats


def producer(graph: GraphProto, name: str) -> NodeProto | None:
    """The node that computes a value; None where none does."""
    return next((node for node in graph.node if name in node.output), None)


def constant(graph: GraphProto, name: str) -> np.ndarray:
    """The value of a constant."""
    return numpy_helper.to_array(next(each for each in graph.initializer if each.name == name))
