"""Operations whose Jacobian does not depend on the input, or only by jumps."""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from fedsplit.computing.model_state import compute_format
from fedsplit.estimators.second_derivative.operation import Operation, UnsupportedError, images


class Linear(Operation):
    """`x W' + b` of vectors `(n, inputs)`."""

    def value(self, *inputs: Tensor) -> Tensor:
        (self._x,) = inputs
        if self._x.dim() != 2:
            raise UnsupportedError("a linear layer on more than one vector a sample")
        return F.linear(self._x, self.weights["weight"], self.weights.get("bias"))

    def pull(self, g: Tensor) -> Tensor:
        self._g = g
        return g @ self.weights["weight"]

    def push(self, *directions: Tensor) -> Tensor:
        (self._dx,) = directions
        return F.linear(self._dx, self.weights["weight"])

    def pull_change(self, dg: Tensor, *, weights_only: bool) -> Tensor | None:
        self.changes["weight"] = torch.addmm(dg.T @ self._x, self._g.T, self._dx)
        if "bias" in self.weights:
            self.changes["bias"] = dg.sum(0)
        return None if weights_only else dg @ self.weights["weight"]


class PassThrough(Operation):
    """Leaves values as they are."""

    def value(self, *inputs: Tensor) -> Tensor:
        return inputs[0]

    def pull(self, g: Tensor) -> Tensor:
        return g

    def push(self, *directions: Tensor) -> Tensor:
        return directions[0]


class Sum(PassThrough):
    """The sum of two inputs of one shape, such as the end of a residual block."""

    def value(self, *inputs: Tensor) -> Tensor:
        if inputs[0].shape != inputs[1].shape:
            raise UnsupportedError("a sum that broadcasts")
        return inputs[0] + inputs[1]

    def push(self, *directions: Tensor) -> Tensor:
        return directions[0] + directions[1]


class Masked(Operation):
    """Each value times a factor, `self.mask`, that a subclass chooses in `value`."""

    mask: Tensor

    def pull(self, g: Tensor) -> Tensor:
        return g * self.mask

    def push(self, *directions: Tensor) -> Tensor:
        return directions[0] * self.mask


class Relu(Masked):
    """`max(x, 0)`."""

    def value(self, *inputs: Tensor) -> Tensor:
        y = F.relu(inputs[0])
        self.mask = y.sign()
        return y


class Dropout(Masked):
    """Draws what `nn.Dropout` draws, from torch's default generator."""

    def value(self, *inputs: Tensor) -> Tensor:
        self.mask = F.dropout(torch.ones_like(inputs[0]), self.layer.p)
        return inputs[0] * self.mask


class Flatten(Operation):
    """All dimensions but the first become one."""

    def value(self, *inputs: Tensor) -> Tensor:
        self._shape = inputs[0].shape
        return inputs[0].flatten(1)

    def pull(self, g: Tensor) -> Tensor:
        return compute_format(g.reshape(self._shape))

    def push(self, *directions: Tensor) -> Tensor:
        return directions[0].flatten(1)


class GlobalAveragePool(Operation):
    """The mean of each channel's image, as an image of one pixel."""

    def value(self, *inputs: Tensor) -> Tensor:
        self._shape = images(inputs[0]).shape
        return inputs[0].mean((2, 3), keepdim=True)

    def pull(self, g: Tensor) -> Tensor:
        return compute_format((g / self._shape[2:].numel()).expand(self._shape))

    def push(self, *directions: Tensor) -> Tensor:
        return directions[0].mean((2, 3), keepdim=True)


class AveragePool(Operation):
    """`nn.AvgPool2d`."""

    def value(self, *inputs: Tensor) -> Tensor:
        self._x = images(inputs[0])
        return cast(Tensor, self.layer(self._x))

    def pull(self, g: Tensor) -> Tensor:
        pool = self.layer
        sizes = (pool.kernel_size, pool.stride, pool.padding, pool.ceil_mode)
        counted = (pool.count_include_pad, pool.divisor_override)
        return cast(Tensor, torch.ops.aten.avg_pool2d_backward(g, self._x, *sizes, *counted))

    def push(self, *directions: Tensor) -> Tensor:
        return cast(Tensor, self.layer(directions[0]))


class MaxPool(Operation):
    """`nn.MaxPool2d`: takes the values at the places of the largest ones."""

    def value(self, *inputs: Tensor) -> Tensor:
        self._x, pool = images(inputs[0]), self.layer
        self._sizes = (pool.kernel_size, pool.stride, pool.padding, pool.dilation, pool.ceil_mode)
        y, self._places = F.max_pool2d_with_indices(self._x, *self._sizes)
        return y

    def pull(self, g: Tensor) -> Tensor:
        backward = torch.ops.aten.max_pool2d_with_indices_backward
        return cast(Tensor, backward(g, self._x, *self._sizes, self._places))

    def push(self, *directions: Tensor) -> Tensor:
        taken = directions[0].flatten(2).gather(2, self._places.flatten(2))
        return compute_format(taken.view(self._places.shape))
