"""The most recently uploaded samples of one client."""

import torch
from torch import Tensor

from fedsplit.state import State


class Ring:
    """Smashed data and labels of the last `capacity` samples, in memory set aside once.

    Args:
        capacity: samples to keep.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._z: Tensor | None = None
        self._y: Tensor | None = None
        self._next = 0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def store(self, z: Tensor, y: Tensor) -> None:
        """Keep a batch, `z (b, ...)` and `y (b,)`; the oldest samples give way."""
        if self._z is None or self._y is None:
            self._z = torch.empty(self.capacity, *z.shape[1:], dtype=z.dtype, device=z.device)
            self._y = torch.empty(self.capacity, dtype=y.dtype, device=y.device)
        z, y = z[-self.capacity :], y[-self.capacity :]
        places = (self._next + torch.arange(len(y), device=y.device)) % self.capacity
        self._z[places], self._y[places] = z, y
        self._next = (self._next + len(y)) % self.capacity
        self._count = min(self._count + len(y), self.capacity)

    def samples(self) -> tuple[Tensor, Tensor]:
        """All that is kept, `z` and `y`, oldest first."""
        if self._z is None or self._y is None:
            raise AssertionError("nothing was uploaded yet")
        oldest = self._next if self._count == self.capacity else 0
        order = (oldest + torch.arange(self._count, device=self._y.device)) % self.capacity
        return self._z[order], self._y[order]

    def state(self) -> State:
        """The samples kept, oldest first."""
        if self._count == 0:
            return {"z": None, "y": None}
        z, y = self.samples()
        return {"z": z, "y": y}

    def load_state(self, state: State, device: torch.device) -> None:
        """Take over what `state` gave, to keep it on `device`."""
        self._z = self._y = None
        self._next = self._count = 0
        if state["z"] is not None:
            self.store(state["z"].to(device), state["y"].to(device))
