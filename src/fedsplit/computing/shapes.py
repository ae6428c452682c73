"""Shapes of what the operations of a module give, found by running them."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from typing_extensions import override


@dataclass(frozen=True)
class TensorShape:
    """Shape and type of a tensor."""

    shape: torch.Size
    dtype: torch.dtype


def note_shapes(module: fx.GraphModule, *inputs: Tensor) -> None:
    """Run a module on inputs, so that `shape_at` knows what each of its operations gives."""
    _Shapes(module).run(*inputs)


def shape_at(node: fx.Node) -> TensorShape | None:
    """The tensor that an operation gave when shapes were noted; None where it gave something else."""
    found: TensorShape | None = node.meta.get(_NOTED)
    return found


def known_shape(node: fx.Node) -> TensorShape:
    """The tensor that an operation gave, as by `shape_at`, where it must have given one."""
    found = shape_at(node)
    assert found is not None
    return found


_NOTED = "fedsplit_shape"
"""Where it is among what a node keeps."""


class _Shapes(fx.Interpreter):
    """Interpreter as torch's `ShapeProp`, without symbolic shapes: these import sympy, for 0.3 s."""

    @override
    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        n.meta[_NOTED] = TensorShape(result.shape, result.dtype) if isinstance(result, Tensor) else None
        return result
