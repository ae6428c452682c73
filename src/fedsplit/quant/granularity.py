"""Which values of a tensor share a scale: all, a channel's, or those of a block."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

GranularityName: TypeAlias = Literal["tensor", "channel", "block"]


@dataclass(frozen=True)
class Granularity:
    """A tensor as rows `(r, k)`, one scale a row.

    Args:
        name: `tensor` is one row; `channel` a row for each index of one dimension (one row where there is
            no such dimension); `block` rows of `block_size` consecutive values, the last one padded with
            zeros.
    """

    name: GranularityName
    block_size: int
    channel_dim: int = 1

    def rows_of(self, shape: Sequence[int]) -> tuple[int, int]:
        """Number and length of the rows of a tensor of this shape."""
        count = prod(shape)
        if count == 0:
            return 0, 1
        if self.name == "block":
            return -(-count // self.block_size), self.block_size
        rows = shape[self.channel_dim] if self._has_channels(shape) else 1
        return rows, count // rows

    def split(self, x: Tensor) -> Tensor:
        """The rows of `x`."""
        rows, length = self.rows_of(x.shape)
        if self._has_channels(x.shape):
            return x.movedim(self.channel_dim, 0).reshape(rows, length)
        flat = x.reshape(-1)
        return F.pad(flat, (0, rows * length - len(flat))).view(rows, length)

    def join(self, rows: Tensor, shape: Sequence[int]) -> Tensor:
        """The tensor that `split` made these rows of."""
        if self._has_channels(shape):
            others = [size for dim, size in enumerate(shape) if dim != self.channel_dim]
            return rows.view(-1, *others).movedim(0, self.channel_dim).contiguous()
        return rows.reshape(-1)[: prod(shape)].view(tuple(shape))

    def spread(self, each: Tensor, shape: Sequence[int]) -> Tensor:
        """One number a row `(r,)`, given to every value of that row."""
        rows, length = self.rows_of(shape)
        return self.join(torch.broadcast_to(each[:, None], (rows, length)).contiguous(), shape)

    def _has_channels(self, shape: Sequence[int]) -> bool:
        return self.name == "channel" and len(shape) > max(1, self.channel_dim)
