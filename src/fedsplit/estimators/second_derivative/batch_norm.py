"""Batch normalisation by the statistics of the batch."""

import torch
from torch import Tensor
from typing_extensions import override

from fedsplit.estimators.second_derivative.operation import Operation


class BatchNorm(Operation):
    """`y = w u + b` with `u = (x - mean) r`, `r = (variance + eps)^(-1/2)`, by channel.

    With `A v = v - mean(v) - u mean(v u)` the Jacobian is `J = w r A`. It is symmetric: `pull` and `push`
    are one function, which PyTorch's gradient of batch normalisation computes together with the sums
    of `v u` and of `v`. Along a direction, `u. = r A x.` and `r. = -r^2 mean(x. u)`, so that

        g_x. = J g_y. + (r. / r) g_x - w r (u. mean(g_y u) + u mean(g_y u.)).

    Source: S. Ioffe and C. Szegedy, "Batch Normalization", 2015, for the gradient.
    """

    @override
    def value(self, *inputs: Tensor) -> Tensor:
        (self._x,) = inputs
        self._count = self._x.numel() // self._x.shape[1]
        if self._count == 1:
            raise ValueError(f"batch normalisation needs more than one value a channel, not {self._x.shape}")
        self._ones = self._x.new_ones(self._x.shape[1])
        self._scale = self.weights.get("weight", self._ones)
        y, self._mean, self._r = torch.native_batch_norm(
            self._x, self._scale, self.weights.get("bias"), None, None, True, 0.0, self.layer.eps
        )
        return y

    @override
    def pull(self, g: Tensor) -> Tensor:
        self._g = g
        self._gx, self._g_along_u, _ = self._jacobian(g, self._scale)
        return self._gx

    @override
    def push(self, *directions: Tensor) -> Tensor:
        self._du, self._dx_along_u, _ = self._jacobian(directions[0], self._ones)
        return self._du * self._by_channel(self._scale)

    @override
    def pull_change(self, dg: Tensor, *, weights_only: bool) -> Tensor | None:
        gx, along_u, along_one = self._jacobian(dg, self._scale)
        sums = tuple(d for d in range(self._g.dim()) if d != 1)
        g_along_du = (self._g * self._du).sum(sums)
        if "weight" in self.weights:
            self.changes["weight"] = along_u + g_along_du
        if "bias" in self.weights:
            self.changes["bias"] = along_one
        if weights_only:
            return None
        r, scale = self._r, self._scale * self._r / self._count
        gx.addcmul_(self._gx, self._by_channel(-r * self._dx_along_u / self._count))
        gx.addcmul_(self._du, self._by_channel(-scale * self._g_along_u))
        # u = (x - mean) r, and the mean's share is one number a channel
        along_x = self._by_channel(-scale * g_along_du * r)
        return gx.addcmul_(self._x, along_x).sub_(along_x * self._by_channel(self._mean))

    def _jacobian(self, v: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`scale r A v`, the sum of `v u`, and that of `v`, the sums by channel."""
        gradients = torch.ops.aten.native_batch_norm_backward(
            v, self._x, scale, None, None, self._mean, self._r, True, self.layer.eps, [True, True, True]
        )
        return gradients[0], gradients[1], gradients[2]

    def _by_channel(self, values: Tensor) -> Tensor:
        return values.view(-1, *[1] * (self._x.dim() - 2))
