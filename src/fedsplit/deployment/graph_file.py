"""Graphs of torch's operations as safetensors: the tensors, and the list of operations as JSON beside them.

An archive of `torch.export` would do the same, but loading one unpickles its example inputs and
evaluates expressions as code. Here a file can name operations on tensors and nothing else.
"""

import json
import operator
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, fx, nn

_NAMESPACES = ("aten", "quantized_decomposed")
_PYTHON = {"getitem": operator.getitem, "add": operator.add, "sub": operator.sub, "mul": operator.mul}
_KINDS = {"dtype": torch.dtype, "memory_format": torch.memory_format, "layout": torch.layout}
_FORBIDDEN = ("from_file",)
"""Operations that reach beyond tensors."""


def write_graph(module: fx.GraphModule, path: Path) -> None:
    """Write a graph of ATen operations with one input and one output.

    Args:
        module: as `torch.export` makes it.
        path: of the file.

    Raises:
        ValueError: it holds something else.
    """
    numbers: dict[fx.Node, int] = {}
    tensors: dict[str, Tensor] = {}
    steps: list[list[object]] = []
    for node in module.graph.nodes:
        if node.op == "call_module" and not node.users:
            continue  # guards on the shapes of inputs
        if node.op == "get_attr":
            name = str(len(tensors))
            tensor = operator.attrgetter(str(node.target))(module).detach()
            tensors[name] = _narrowed(tensor).contiguous()
            steps.append(["tensor", name, _plain(tensor.dtype, numbers)])
        elif node.op == "call_function":
            steps.append([_name(node.target), _plain(node.args, numbers), _plain(node.kwargs, numbers)])
        elif node.op in ("placeholder", "output"):
            steps.append([node.op, *([_plain(_only(node.args[0]), numbers)] if node.op == "output" else [])])
        else:
            raise ValueError(f"{node.op} of {node.target} is no operation on tensors")
        numbers[node] = len(steps) - 1
    save_file(tensors, path, {"graph": json.dumps(steps, separators=(",", ":"))})


def read_graph(path: Path) -> fx.GraphModule:
    """The graph that was written.

    Raises:
        ValueError: the file does not hold one.
        SafetensorError: it is no whole safetensors file.
    """
    root, graph = nn.Module(), fx.Graph()
    made: list[fx.Node] = []
    with safe_open(path, "pt") as file:
        for kind, *rest in json.loads((file.metadata() or {}).get("graph", "[]")):
            if kind == "tensor":
                name, dtype = rest
                root.register_buffer(f"t{name}", file.get_tensor(name).to(_value(dtype, made)))
                made.append(graph.create_node("get_attr", f"t{name}"))
            elif kind == "placeholder":
                made.append(graph.placeholder("x"))
            elif kind == "output":
                made.append(graph.output(_value(rest[0], made)))
            else:
                arguments, named = (_value(each, made) for each in rest)
                made.append(graph.call_function(_function(kind), tuple(arguments), named))
    if not made:
        raise ValueError("it holds no graph")
    return fx.GraphModule(root, graph)


def _narrowed(tensor: Tensor) -> Tensor:
    """Whole numbers of 64 bits in 8, where they fit: zero points of channels."""
    small = tensor.dtype == torch.int64 and tensor.numel() > 0 and int(tensor.abs().max()) < 128
    return tensor.to(torch.int8) if small else tensor


def _only(value: Any) -> Any:
    if isinstance(value, list | tuple):
        (value,) = value
    return value


def _name(target: object) -> str:
    if isinstance(target, torch._ops.OpOverload) and target.namespace in _NAMESPACES:
        return str(target)
    for name, function in _PYTHON.items():
        if target is function:
            return name
    raise ValueError(f"{target} is no operation on tensors")


def _function(name: str) -> Callable[..., object]:
    if name in _PYTHON:
        return _PYTHON[name]
    namespace, _, rest = name.partition(".")
    operation, _, overload = rest.partition(".")
    if namespace not in _NAMESPACES or operation in _FORBIDDEN:
        raise ValueError(f"{name} is no operation on tensors")
    packet = getattr(getattr(torch.ops, namespace), operation, None)
    found = getattr(packet, overload, None)
    if not isinstance(found, torch._ops.OpOverload):
        raise ValueError(f"this torch has no operation {name}")
    return found


def _plain(value: Any, numbers: dict[fx.Node, int]) -> Any:
    """An argument as JSON: what JSON has no word for is an object of one key."""
    if isinstance(value, fx.Node):
        return {"step": numbers[value]}
    if isinstance(value, dict):
        return {"named": {key: _plain(each, numbers) for key, each in value.items()}}
    if isinstance(value, list | tuple):
        return [_plain(each, numbers) for each in value]
    for kind, found in _KINDS.items():
        if isinstance(value, found):
            return {kind: str(value).removeprefix("torch.")}
    if isinstance(value, torch.device):
        return {"device": "cpu"}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"{value!r} cannot be written")


def _value(value: Any, made: Sequence[fx.Node]) -> Any:
    if isinstance(value, list):
        return [_value(each, made) for each in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "step":
        return made[content]
    if kind == "named":
        return {key: _value(each, made) for key, each in content.items()}
    if kind == "device":
        return torch.device("cpu")
    found = getattr(torch, content, None)
    if kind not in _KINDS or not isinstance(found, _KINDS[kind]):
        raise ValueError(f"{content} is no {kind}")
    return found
