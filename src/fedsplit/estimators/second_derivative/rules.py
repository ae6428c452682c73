"""Which operations of a traced model have a rule, and in which uses."""

import operator
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from fedsplit.estimators.second_derivative.batch_norm import BatchNorm
from fedsplit.estimators.second_derivative.layers import (
    AveragePool,
    Dropout,
    Flatten,
    GlobalAveragePool,
    Linear,
    MaxPool,
    PassThrough,
    Relu,
    Sum,
    convolution,
)
from fedsplit.estimators.second_derivative.operation import Operation, UnsupportedError

Rule: TypeAlias = Callable[[Mapping[str, Tensor], Tensor], Operation]
"""Function that makes an operation from its weights and its (first) input."""


def _always(module: object) -> bool:
    return True


_MODULES: dict[type[nn.Module], tuple[type[Operation], Callable[[Any], bool]]] = {
    nn.Linear: (Linear, _always),
    nn.BatchNorm1d: (BatchNorm, _always),
    nn.BatchNorm2d: (BatchNorm, _always),
    nn.ReLU: (Relu, _always),
    nn.Identity: (PassThrough, _always),
    nn.Dropout: (Dropout, _always),
    nn.Flatten: (Flatten, lambda m: (m.start_dim, m.end_dim) == (1, -1)),
    nn.AdaptiveAvgPool2d: (GlobalAveragePool, lambda m: m.output_size in (1, (1, 1))),
    nn.AvgPool2d: (AveragePool, _always),
    nn.MaxPool2d: (MaxPool, lambda m: not m.return_indices),
}
"""Operation of each exact type of module (a subclass may compute anything), and a test of its settings."""

_FUNCTIONS: dict[object, tuple[type[Operation], tuple[tuple[object, ...], ...]]] = {
    **dict.fromkeys((operator.add, operator.iadd, torch.add, "add", "add_"), (Sum, ((),))),
    **dict.fromkeys((F.relu, torch.relu, torch.relu_, "relu", "relu_"), (Relu, ((),))),
    **dict.fromkeys((torch.flatten, "flatten"), (Flatten, ((1,), (1, -1)))),
    F.adaptive_avg_pool2d: (GlobalAveragePool, ((1,), ((1, 1),))),
}
"""Functions and, by name, methods: the operation, and the arguments it may have besides values."""

_IN_PLACE = (operator.iadd, "add_", torch.relu_, "relu_")
_VIEWS = (nn.Flatten, nn.Identity, nn.Dropout, torch.flatten, "flatten")
"""Modules and functions whose output may share its input's memory."""


def rule_of(module: nn.Module, node: fx.Node) -> tuple[Rule, dict[str, str]]:
    """Rule of a node, and the names of its weights in the model, by their names in the layer.

    Raises:
        UnsupportedError: the node has no rule.
    """
    if node.op == "call_module":
        rule, weights = _rule_of_layer(module.get_submodule(str(node.target)), str(node.target))
    elif node.op in ("call_function", "call_method"):
        rule, weights = _rule_of_function(node), {}
    else:
        raise UnsupportedError(f"{node.op} {node.target}")
    if _is_in_place(module, node) and not _is_used_once(module, node.args[0]):
        raise UnsupportedError(f"{node}, which overwrites what is used elsewhere")
    return rule, weights


def _rule_of_layer(layer: nn.Module, name: str) -> tuple[Rule, dict[str, str]]:
    weights = {short_name: f"{name}.{short_name}" for short_name, _ in layer.named_parameters()}
    has_hooks = layer._forward_hooks or layer._forward_pre_hooks
    if layer.training and not has_hooks:
        if type(layer) is nn.Conv2d and layer.padding_mode == "zeros" and not isinstance(layer.padding, str):
            return partial(convolution, layer), weights
        operation, fits = _MODULES.get(type(layer), (None, _always))
        if operation is not None and fits(layer):
            return lambda weights, _: operation(weights, layer), weights
    raise UnsupportedError(f"{name}, a {layer}")


def _rule_of_function(node: fx.Node) -> Rule:
    operation, allowed_arguments = _FUNCTIONS.get(node.target, (None, ()))
    other_arguments = tuple(argument for argument in node.args if not isinstance(argument, fx.Node))
    values = len(node.args) - len(other_arguments)
    if (
        operation is not None
        and other_arguments in allowed_arguments
        and values == (2 if operation is Sum else 1)
        and node.kwargs.keys() <= {"inplace"}
    ):
        return lambda weights, _: operation(weights)
    raise UnsupportedError(f"{node.target} of {node.args} with {dict(node.kwargs)}")


def _is_in_place(module: nn.Module, node: fx.Node) -> bool:
    if node.op == "call_module":
        return bool(getattr(module.get_submodule(str(node.target)), "inplace", False))
    return node.target in _IN_PLACE or bool(node.kwargs.get("inplace", False))


def _is_used_once(module: nn.Module, value: Any) -> bool:
    """True if only one operation sees the memory of a value."""
    kind = type(module.get_submodule(str(value.target))) if value.op == "call_module" else value.target
    return len(value.users) == 1 and (kind not in _VIEWS or _is_used_once(module, value.args[0]))
