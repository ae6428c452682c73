"""Which values of a tensor share a scale: all, a channel's, a position's, or those of a block."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

GranularityName: TypeAlias = Literal["tensor", "channel", "block", "token"]


@dataclass(frozen=True)
class Granularity:
    """Division of a tensor into rows `(r, k)`, one scale a row.

    Args:
        name: `tensor` is one row; `channel` a row for each index of one dimension (one row where there is
            no such dimension); `block` rows of `block_size` consecutive values, the last one padded with
            zeros; `token` a row for each position of the last dimension.
        channel_dim: dimension of the channels, -1 the last one; `auto` is 1.
    """

    name: GranularityName
    block_size: int
    channel_dim: int | Literal["auto"] = "auto"

    def rows_of(self, shape: Sequence[int]) -> tuple[int, int]:
        """Number and length of the rows of a tensor of this shape."""
        count = prod(shape)
        if count == 0:
            return 0, 1
        if self.name == "block":
            return -(-count // self.block_size), self.block_size
        if self.name == "token":
            length = shape[-1] if shape else 1
            return count // length, length
        rows = shape[self._channels(shape)] if self._has_channels(shape) else 1
        return rows, count // rows

    def split(self, x: Tensor) -> Tensor:
        """Rows of `x` that share a scale."""
        rows, length = self.rows_of(x.shape)
        if self._has_channels(x.shape):
            return x.movedim(self._channels(x.shape), 0).reshape(rows, length)
        flat = x.reshape(-1)
        return F.pad(flat, (0, rows * length - len(flat))).view(rows, length)

    def join(self, rows: Tensor, shape: Sequence[int]) -> Tensor:
        """Put rows that `split` made together again as a tensor of this shape."""
        if self._has_channels(shape):
            channels = self._channels(shape)
            other_sizes = [size for dim, size in enumerate(shape) if dim != channels]
            return rows.view(-1, *other_sizes).movedim(0, channels).contiguous()
        return rows.reshape(-1)[: prod(shape)].view(tuple(shape))

    def spread(self, numbers: Tensor, shape: Sequence[int]) -> Tensor:
        """Give one number a row `(r,)` to every value of that row."""
        rows, length = self.rows_of(shape)
        return self.join(torch.broadcast_to(numbers[:, None], (rows, length)).contiguous(), shape)

    def _has_channels(self, shape: Sequence[int]) -> bool:
        return self.name == "channel" and len(shape) > max(1, self._channels(shape))

    def _channels(self, shape: Sequence[int]) -> int:
        channels = 1 if self.channel_dim == "auto" else self.channel_dim
        return channels % max(1, len(shape)) if channels < 0 else channels
