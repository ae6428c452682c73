"""Which samples each client has, as tensors."""

from collections.abc import Sequence
from typing import overload

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from fedsplit.data.partition import Partition, Pieces


class ClientShards(Sequence[Tensor]):
    """Indices of each client's samples: a client costs a few numbers, and a tensor where it is looked at."""

    def __init__(self, shards: Sequence[np.ndarray]) -> None:
        self.partition = shards if isinstance(shards, Partition) else Pieces.of(shards)
        self.sizes: list[int] = self.partition.sizes.tolist()

    @property
    def indices(self) -> Tensor:
        """Indices of all clients, one client after the other."""
        return torch.from_numpy(self.partition.block(0, len(self)).indices)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> list[Tensor]: ...
    @override
    def __getitem__(self, index: int | slice) -> Tensor | list[Tensor]:
        if isinstance(index, slice):
            return [self[client] for client in range(len(self))[index]]
        return torch.from_numpy(self.partition[index])

    @override
    def __len__(self) -> int:
        return len(self.sizes)
