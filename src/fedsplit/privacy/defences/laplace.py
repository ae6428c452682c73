"""Laplace noise on smashed data."""

from torch import Tensor
from typing_extensions import override

from fedsplit.privacy.defences.additive import AdditiveNoise
from fedsplit.privacy.noise import Noise


class Laplace(AdditiveNoise):
    """Laplace noise of a given standard deviation; no guarantee is accounted for.

    Its own guarantee is for values of bounded sums, not norms, and no use for thousands of them.
    """

    @override
    def draw(self, z: Tensor, noise: Noise) -> Tensor:
        return noise.laplace(z)
