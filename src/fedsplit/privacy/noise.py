"""Noise that nobody can predict who does not have the client's secret.

A server knows a run's seed. And behind a ReLU most smashed data are zero, so that it sees some of the noise
itself: from that it would compute the state of torch's generator, and take the rest of the noise away. So
noise is made from a stream of SHAKE-256, of which no part tells another.
"""

from dataclasses import dataclass
from hashlib import blake2b, shake_256
from math import pi, sqrt

import numpy as np
import torch
from torch import Tensor

from fedsplit.quant.bit_packing import to_bytes

SECRET_BYTES = 32


@dataclass(frozen=True)
class Noise:
    """Noise of one release, the same whenever it is asked for.

    Args:
        key: key that the noise is drawn from.
        bound: True if noise also depends on what it is added to. Whoever asks for a step twice, with other
            weights, then gets other noise; by the same noise the difference would be exact.
    """

    key: bytes
    bound: bool = False

    def uniform(self, like: Tensor) -> Tensor:
        """Uniform numbers above 0, at most 1, in the shape of `like`: what they change."""
        return _place(self._numbers(like, like.numel()), like)

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal numbers in the shape of `like`: what they are added to."""
        pairs = (like.numel() + 1) // 2
        radius, angle = self._numbers(like, 2 * pairs).view(2, -1)
        radius, angle = (-2 * radius.log()).sqrt(), 2 * pi * angle  # Box and Muller, 1958
        return _place(torch.cat((radius * angle.cos(), radius * angle.sin()))[: like.numel()], like)

    def laplace(self, like: Tensor) -> Tensor:
        """Laplace numbers of variance 1 in the shape of `like`: what they are added to."""
        size, side = self._numbers(like, 2 * like.numel()).view(2, -1)
        return _place(size.log() / sqrt(2) * torch.where(side > 0.5, 1.0, -1.0), like)

    def _numbers(self, like: Tensor, count: int) -> Tensor:
        """Uniform float64 numbers `(count,)` above 0, at most 1."""
        key = blake2b(to_bytes(like), key=self.key).digest() if self.bound else self.key
        words = np.frombuffer(shake_256(key).digest(8 * count), "<u8") >> np.uint64(11)
        return torch.from_numpy((words.astype(np.float64) + 1) * 2.0**-53)


def _place(numbers: Tensor, like: Tensor) -> Tensor:
    return numbers.view(like.shape).to(like.device, like.dtype)


class Secrets:
    """Secrets of the clients of a process, from which their noise is made.

    Args:
        seed: seed of the run, from which a secret is derived that anybody can derive who knows the seed.
        own: secret of the only client of this process, which nobody else knows; None: derived.
    """

    def __init__(self, seed: int, own: bytes | None = None) -> None:
        self._seed, self._own = seed, own

    def noise(self, purpose: str, *, client: int, round: int, step: int) -> Noise:
        """Noise of one draw, which its arguments name."""
        secret = (
            self._own
            or blake2b(f"{self._seed}/secret of client {client}".encode(), digest_size=SECRET_BYTES).digest()
        )
        name = f"{purpose}/{client}/{round}/{step}"
        return Noise(blake2b(name.encode(), key=secret).digest(), bound=self._own is not None)
