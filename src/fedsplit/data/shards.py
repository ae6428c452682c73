"""Which samples each client has."""

from collections.abc import Sequence
from itertools import accumulate
from typing import overload

import numpy as np
import torch
from torch import Tensor


class ClientShards(Sequence[Tensor]):
    """Indices of each client's samples, as ranges of one tensor: a client costs two numbers."""

    def __init__(self, shards: Sequence[np.ndarray]) -> None:
        self.sizes = [len(shard) for shard in shards]
        self._starts = [0, *accumulate(self.sizes)]
        self.indices = torch.from_numpy(np.concatenate(shards))
        """Of all clients, one after the other."""

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> list[Tensor]: ...
    def __getitem__(self, index: int | slice) -> Tensor | list[Tensor]:
        if isinstance(index, slice):
            return [self[client] for client in range(*index.indices(len(self)))]
        client = range(len(self))[index]
        return self.indices[self._starts[client] : self._starts[client] + self.sizes[client]]

    def __len__(self) -> int:
        return len(self.sizes)
