"""Operations whose Jacobian does not depend on the input, or only by jumps: most layers."""

from collections.abc import Mapping
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from fedsplit.computing.model_state import compute_format
from fedsplit.estimators.second_derivative.operation import Operation, UnsupportedError, images


class Linear(Operation):
    """`x W' + b` of vectors `(n, inputs)`."""

    @override
    def value(self, *inputs: Tensor) -> Tensor:
        (self._x,) = inputs
        if self._x.dim() != 2:
            raise UnsupportedError("a linear layer on more than one vector a sample")
        return F.linear(self._x, self.weights["weight"], self.weights.get("bias"))

    @override
    def pull(self, g: Tensor) -> Tensor:
        self._g = g
        return g @ self.weights["weight"]

    @override
    def push(self, *directions: Tensor) -> Tensor:
        (self._dx,) = directions
        return F.linear(self._dx, self.weights["weight"])

    @override
    def pull_change(self, dg: Tensor, *, weights_only: bool) -> Tensor | None:
        self.changes["weight"] = torch.addmm(dg.T @ self._x, self._g.T, self._dx)
        if "bias" in self.weights:
            self.changes["bias"] = dg.sum(0)
        return None if weights_only else dg @ self.weights["weight"]


class PassThrough(Operation):
    """Operation that leaves values as they are."""

    @override
    def value(self, *inputs: Tensor) -> Tensor:
        return inputs[0]

    @override
    def pull(self, g: Tensor) -> Tensor:
        return g

    @override
    def push(self, *directions: Tensor) -> Tensor:
        return directions[0]


class Sum(PassThrough):
    """The sum of two inputs of one shape, such as the end of a residual block."""

    @override
    def value(self, *inputs: Tensor) -> Tensor:
        if inputs[0].shape != inputs[1].shape:
            raise UnsupportedError("a sum that broadcasts")
        return inputs[0] + inputs[1]

    @override
    def push(self, *directions: Tensor) -> Tensor:
        return directions[0] + directions[1]


class Mask(Operation):
    """Each value times a factor, `self.mask`, that a subclass chooses in `value`."""

    mask: Tensor

    @override
    def pull(self, g: Tensor) -> Tensor:
        return g * self.mask

    @override
    def push(self, *directions: Tensor) -> Tensor:
        return directions[0] * self.mask


class Relu(Mask):
    """Rectifier, `max(x, 0)`, and its derivatives."""

    @override
    def value(self, *inputs: Tensor) -> Tensor:
        y = F.relu(inputs[0])
        self.mask = y.sign()
        return y


class Dropout(Mask):
    """Draws what `nn.Dropout` draws, from torch's default generator."""

    @override
    def value(self, *inputs: Tensor) -> Tensor:
        self.mask = F.dropout(torch.ones_like(inputs[0]), self.layer.p)
        return inputs[0] * self.mask


class Flatten(Operation):
    """Reshape that makes one of all dimensions but the first."""

    @override
    def value(self, *inputs: Tensor) -> Tensor:
        self._shape = inputs[0].shape
        return inputs[0].flatten(1)

    @override
    def pull(self, g: Tensor) -> Tensor:
        return compute_format(g.reshape(self._shape))

    @override
    def push(self, *directions: Tensor) -> Tensor:
        return directions[0].flatten(1)


class GlobalAveragePool(Operation):
    """The mean of each channel's image, as an image of one pixel."""

    @override
    def value(self, *inputs: Tensor) -> Tensor:
        self._shape = images(inputs[0]).shape
        return inputs[0].mean((2, 3), keepdim=True)

    @override
    def pull(self, g: Tensor) -> Tensor:
        return compute_format((g / self._shape[2:].numel()).expand(self._shape))

    @override
    def push(self, *directions: Tensor) -> Tensor:
        return directions[0].mean((2, 3), keepdim=True)


class AveragePool(Operation):
    """Average pooling, `nn.AvgPool2d`, and its derivatives."""

    @override
    def value(self, *inputs: Tensor) -> Tensor:
        self._x = images(inputs[0])
        return cast(Tensor, self.layer(self._x))

    @override
    def pull(self, g: Tensor) -> Tensor:
        pool = self.layer
        sizes = (pool.kernel_size, pool.stride, pool.padding, pool.ceil_mode)
        count_options = (pool.count_include_pad, pool.divisor_override)
        return cast(Tensor, torch.ops.aten.avg_pool2d_backward(g, self._x, *sizes, *count_options))

    @override
    def push(self, *directions: Tensor) -> Tensor:
        return cast(Tensor, self.layer(directions[0]))


class MaxPool(Operation):
    """`nn.MaxPool2d`: takes the values at the places of the largest ones."""

    @override
    def value(self, *inputs: Tensor) -> Tensor:
        self._x, pool = images(inputs[0]), self.layer
        self._sizes = (pool.kernel_size, pool.stride, pool.padding, pool.dilation, pool.ceil_mode)
        y, self._places = F.max_pool2d_with_indices(self._x, *self._sizes)
        return y

    @override
    def pull(self, g: Tensor) -> Tensor:
        backward = torch.ops.aten.max_pool2d_with_indices_backward
        return cast(Tensor, backward(g, self._x, *self._sizes, self._places))

    @override
    def push(self, *directions: Tensor) -> Tensor:
        selected_values = directions[0].flatten(2).gather(2, self._places.flatten(2))
        return compute_format(selected_values.view(self._places.shape))


def convolution(layer: nn.Conv2d, weights: Mapping[str, Tensor], x: Tensor) -> Operation:
    """The operation that is fastest for inputs such as `x (n, c, h, w)`."""
    return (ConvolutionOf2x2 if ConvolutionOf2x2.fits(layer, images(x)) else Convolution)(weights, layer)


class Convolution(Operation):
    """Convolution, `nn.Conv2d`, padded with zeros."""

    @override
    def value(self, *inputs: Tensor) -> Tensor:
        (self._x,) = inputs
        return self._convolve(self._x, self.weights.get("bias"))

    @override
    def pull(self, g: Tensor) -> Tensor:
        self._g = g
        return cast(Tensor, self._backward(g, self._x, of_input=True, of_weight=False)[0])

    @override
    def push(self, *directions: Tensor) -> Tensor:
        (self._dx,) = directions
        return self._convolve(self._dx, None)

    @override
    def pull_change(self, dg: Tensor, *, weights_only: bool) -> Tensor | None:
        _, along_x = self._backward(self._g, self._dx, of_input=False, of_weight=True)
        dgx, along_g = self._backward(dg, self._x, of_input=not weights_only, of_weight=True)
        self.changes["weight"] = cast(Tensor, along_x).add_(cast(Tensor, along_g))
        if "bias" in self.weights:
            self.changes["bias"] = dg.sum((0, 2, 3))
        return dgx

    def _convolve(self, x: Tensor, bias: Tensor | None) -> Tensor:
        conv = self.layer
        weight = self.weights["weight"]
        return F.conv2d(x, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)

    def _backward(
        self, g: Tensor, x: Tensor, *, of_input: bool, of_weight: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        conv, output_mask = self.layer, [of_input, of_weight, False]
        sizes = (conv.stride, conv.padding, conv.dilation, False, [0, 0], conv.groups)
        gradients = torch.ops.aten.convolution_backward(
            g, x, self.weights["weight"], None, *sizes, output_mask
        )
        return gradients[0], gradients[1]


class ConvolutionOf2x2(Operation):
    """A 3x3 convolution, padded by 1, of images of 2x2: nine products of channels, not 36.

    Each of the four pixels reaches each of the four outputs, so 16 products of `(n, c) (c, c')` do it, and
    not the 36 of nine taps on a padded image. In one dimension such a convolution is a Toeplitz matrix, which
    needs three products for four:

        y0 = w_0 x0 + w_1  x1 = w_0 (x0 + x1) + (w_1  - w_0) x1
        y1 = w_-1 x0 + w_0 x1 = w_0 (x0 + x1) + (w_-1 - w_0) x0

    and so 3 x 3 for 4 x 4 in two. Its transpose is the same with pixels and outputs in reverse order.

    Source: S. Winograd, "Arithmetic Complexity of Computations", 1980 (products with Toeplitz matrices).
    """

    _TAPS = ((0.0, 1.0, 0.0), (0.0, -1.0, 1.0), (1.0, -1.0, 0.0))
    """Rows: the three factors above, of `(w_-1, w_0, w_1)`."""

    @staticmethod
    def fits(layer: nn.Conv2d, x: Tensor) -> bool:
        """True if the layer is of this kind and its input `x` too; on a GPU cuDNN is as fast."""
        sizes = (layer.kernel_size, layer.padding, layer.stride, layer.dilation, layer.groups)
        return (
            x.shape[2:] == (2, 2) and sizes == ((3, 3), (1, 1), (1, 1), (1, 1), 1) and x.device.type == "cpu"
        )

    def __init__(self, weights: Mapping[str, Tensor], layer: nn.Conv2d) -> None:
        super().__init__(weights, layer)
        weight = weights["weight"]
        rows = torch.tensor(self._TAPS, dtype=weight.dtype)
        self._taps = torch.kron(rows, rows)
        outputs, inputs = weight.shape[:2]
        by_tap = weight.permute(2, 3, 0, 1).reshape(9, outputs * inputs)
        self._factors = (self._taps @ by_tap).view(9, outputs, inputs)

    @override
    def value(self, *inputs: Tensor) -> Tensor:
        self._x = _combine_pixels(inputs[0])
        y = _combine_outputs(torch.bmm(self._x, self._factors.mT))
        return y + self.weights["bias"][:, None, None] if "bias" in self.weights else y

    @override
    def pull(self, g: Tensor) -> Tensor:
        self._g = _combine_pixels(g.flip(2, 3))
        return self._input_gradient(self._g)

    @override
    def push(self, *directions: Tensor) -> Tensor:
        self._dx = _combine_pixels(directions[0])
        return _combine_outputs(torch.bmm(self._dx, self._factors.mT))

    @override
    def pull_change(self, dg: Tensor, *, weights_only: bool) -> Tensor | None:
        spread = _combine_pixels(dg.flip(2, 3))
        factors = torch.baddbmm(torch.bmm(spread.mT, self._x), self._g.mT, self._dx)
        _, outputs, inputs = factors.shape
        by_tap = (self._taps.T @ factors.flatten(1)).view(3, 3, outputs, inputs)
        weight = self.weights["weight"]
        self.changes["weight"] = torch.empty_like(weight).copy_(by_tap.permute(2, 3, 0, 1))
        if "bias" in self.weights:
            self.changes["bias"] = dg.sum((0, 2, 3))
        return None if weights_only else self._input_gradient(spread)

    def _input_gradient(self, g: Tensor) -> Tensor:
        return _combine_outputs(torch.bmm(g, self._factors)).flip(2, 3)


def _combine_pixels(x: Tensor) -> Tensor:
    """Images `(n, c, 2, 2)` to `(9, n, c)`: of rows and of columns the sum, the second and the first."""
    rows = x.permute(2, 3, 0, 1)
    spread = rows.new_empty(3, 3, *rows.shape[2:])
    spread[1:, 1:] = rows.flip(0, 1)
    torch.add(spread[1:, 1], spread[1:, 2], out=spread[1:, 0])
    torch.add(spread[1], spread[2], out=spread[0])
    return spread.flatten(0, 1)


def _combine_outputs(products: Tensor) -> Tensor:
    """Products `(9, n, c)` to images `(n, c, 2, 2)` in channels_last: the sums that y0 and y1 are."""
    _, n, c = products.shape
    rows = products.view(3, 3, n, c)
    rows = rows[0] + rows[1:]
    images = rows.new_empty(n, 2, 2, c).permute(0, 3, 1, 2)
    torch.add(rows[:, :1], rows[:, 1:], out=images.permute(2, 3, 0, 1))
    return images
