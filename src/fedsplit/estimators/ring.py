"""The most recently uploaded samples of one client."""

import torch
from torch import Tensor

from fedsplit.computing.memory import Memory
from fedsplit.objectives.padding import pad_to
from fedsplit.state.state import State


class Ring:
    """Smashed data and labels of the last `capacity` samples, each in one block of memory.

    The block has the memory format that models compute in, so that none of it is converted at each step.
    Where labels have positions `(b, t)`, it is as long as the longest batch so far, and others are padded.

    Args:
        memory: account of the memory of the blocks.
        padding: value of smashed data behind the end of a text.
    """

    def __init__(self, capacity: int, memory: Memory | None = None, padding: float = 0.0) -> None:
        self.capacity, self._padding = capacity, padding
        self._memory = memory or Memory()
        self._z: Tensor | None = None
        self._y: Tensor | None = None
        self._next_place = 0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def store(self, z: Tensor, y: Tensor) -> None:
        """Keep a batch, `z (b, ...)` and `y (b, ...)`, in place of the oldest samples."""
        if self._z is None or self._y is None:
            self._z = self._block(z)
            self._y = self._memory.empty(y, self.capacity, *y.shape[1:])
        z, y = z[-self.capacity :], y[-self.capacity :]
        if y.dim() == 2 and y.shape[1] > self._y.shape[1]:  # labels kept so far are padded to the new length
            longer = pad_to(self._z, self._y, y.shape[1], self._padding)
            self.release()
            self._z, self._y = map(self._memory.keep, longer)
        elif y.dim() == 2:
            z, y = pad_to(z, y, self._y.shape[1], self._padding)
        places = (self._next_place + torch.arange(len(y), device=y.device)) % self.capacity
        self._z[places], self._y[places] = z, y
        self._next_place = (self._next_place + len(y)) % self.capacity
        self._count = min(self._count + len(y), self.capacity)

    def _block(self, z: Tensor) -> Tensor:
        if z.dim() != 4:
            return self._memory.empty(z, self.capacity, *z.shape[1:])
        _, channels, height, width = z.shape
        return self._memory.empty(z, self.capacity, height, width, channels).permute(0, 3, 1, 2)

    def samples(self) -> tuple[Tensor, Tensor]:
        """All samples that the ring keeps, `z` and `y`, oldest first: views, valid until the next `store`."""
        if self._z is None or self._y is None:
            raise AssertionError("nothing was uploaded yet")
        if self._count == self.capacity and self._next_place != 0:
            # Turn the ring so that it begins with the oldest; until it is stored to again, this is free.
            for block in (self._z, self._y):
                block.copy_(torch.cat([block[self._next_place :], block[: self._next_place]]))
            self._next_place = 0
        return self._z[: self._count], self._y[: self._count]

    def release(self) -> None:
        """Take the blocks out of the account of memory when the ring is dropped."""
        self._memory.release({"z": self._z, "y": self._y})

    def state(self) -> State:
        """The samples kept, oldest first, as `samples` gives them."""
        if self._count == 0:
            return {"z": None, "y": None}
        z, y = self.samples()
        return {"z": z, "y": y}

    def load_state(self, state: State, device: torch.device) -> None:
        """Take over what `state` gave, to keep it on `device`."""
        self.release()
        self._z = self._y = None
        self._next_place = self._count = 0
        if state["z"] is not None:
            self.store(state["z"].to(device), state["y"].to(device))
