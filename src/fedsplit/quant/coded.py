"""A tensor that was sent."""

from dataclasses import dataclass
from functools import cached_property
from math import isfinite

import torch
from torch import Tensor

from fedsplit.quant.codec import Transfer


@dataclass(frozen=True)
class SentTensor:
    """A tensor to send, and what arrives; energies are sums of squares, 0 where it arrives as it is."""

    original: Tensor
    transfer: Transfer

    @classmethod
    def sent_exactly(cls, x: Tensor) -> "SentTensor":
        """Make a tensor that arrives as it is."""
        return cls(x, Transfer(x, x.numel() * x.element_size()))

    @property
    def size(self) -> int:
        """Number of bytes of payload."""
        return self.transfer.size

    @property
    def values(self) -> int:
        """Number of values in the tensor."""
        return self.original.numel()

    @property
    def exact(self) -> bool:
        """True if the very tensor arrives."""
        return self.transfer.decoded is self.original

    @cached_property
    def signal(self) -> float | Tensor:
        """Energy of the original tensor."""
        return 0.0 if self.exact else _energy(self.original)

    @cached_property
    def noise(self) -> float | Tensor:
        """Energy of the difference between the original tensor and what arrived."""
        return 0.0 if self.exact else _energy(self.transfer.decoded - self.original)


def _energy(x: Tensor) -> float | Tensor:
    if x.device.type != "cpu":  # a 0-d tensor, so that nothing waits
        return x.double().square().sum()
    flat = x.flatten().clone()  # aligned memory: the last bits of a dot product depend on where it starts
    energy = float(torch.dot(flat, flat))
    return energy if isfinite(energy) else float(flat.double().square().sum())
