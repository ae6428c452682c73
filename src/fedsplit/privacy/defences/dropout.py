"""Smashed data with values left out."""

from torch import Tensor
from typing_extensions import override

from fedsplit.config.values import BelowOne
from fedsplit.privacy.defence import Defence
from fedsplit.privacy.noise import Noise


class ValueDropout(Defence):
    """Values are set to zero at random, and the others scaled so that the mean stays.

    Args:
        p: probability of a value to be left out.
    """

    def __init__(self, *, p: BelowOne) -> None:
        super().__init__()
        self.p = p

    @property
    @override
    def releases(self) -> bool:
        return True

    @override
    def release(self, z: Tensor, noise: Noise) -> Tensor:
        return z * (noise.uniform(z) > self.p) / (1 - self.p)
