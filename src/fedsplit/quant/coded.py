"""A tensor that was sent."""

from dataclasses import dataclass
from functools import cached_property
from math import isfinite

import torch
from torch import Tensor

from fedsplit.quant.codec import Simulated


@dataclass(frozen=True)
class Coded:
    """A tensor that was meant, and what arrives; energies are sums of squares, 0 where all arrives."""

    original: Tensor
    arrived: Simulated

    @classmethod
    def exactly(cls, x: Tensor) -> "Coded":
        """A tensor that arrives as it is."""
        return cls(x, Simulated(x, x.numel() * x.element_size()))

    @property
    def size(self) -> int:
        """Number of bytes of payload."""
        return self.arrived.size

    @property
    def values(self) -> int:
        """Number of values in the tensor."""
        return self.original.numel()

    @property
    def exact(self) -> bool:
        """True if the very tensor arrives."""
        return self.arrived.decoded is self.original

    @cached_property
    def signal(self) -> float | Tensor:
        """Energy of what was meant."""
        return 0.0 if self.exact else _energy(self.original)

    @cached_property
    def noise(self) -> float | Tensor:
        """Energy of the difference between what was meant and what arrived."""
        return 0.0 if self.exact else _energy(self.arrived.decoded - self.original)


def _energy(x: Tensor) -> float | Tensor:
    if x.device.type != "cpu":  # a 0-d tensor, so that nothing waits
        return x.double().square().sum()
    flat = x.flatten().clone()  # aligned memory: the last bits of a dot product depend on where it starts
    energy = float(torch.dot(flat, flat))
    return energy if isfinite(energy) else float(flat.double().square().sum())
