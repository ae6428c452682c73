"""Gaussian noise on smashed data."""

from torch import Tensor
from typing_extensions import override

from fedsplit.config.values import NonNegativeFloat, PositiveFloat, Share
from fedsplit.privacy.defence import Unit
from fedsplit.privacy.defences.additive import AdditiveNoise
from fedsplit.privacy.noise import Noise


class Gaussian(AdditiveNoise):
    """Gaussian noise, which with a clip gives an (epsilon, delta) for what was released.

    Source: B. Balle and Y.-X. Wang, "Improving the Gaussian Mechanism for Differential Privacy", 2018.

    Args:
        sigma: standard deviation of the noise, in units of `clip`; without a clip as it is.
        clip: largest Euclidean norm of a sample's smashed data; None leaves them as they are.
        delta: probability that epsilon is stated for.
        unit: unit that is hidden: `replace` a sample by another, or `zero_out` what it sends.
    """

    def __init__(
        self, *, sigma: NonNegativeFloat, clip: PositiveFloat | None, delta: Share, unit: Unit
    ) -> None:
        super().__init__(sigma=sigma, clip=clip)
        self.delta, self.unit = delta, unit

    @property
    @override
    def smashed_sigma(self) -> float | None:
        return self.sigma if self.clip is not None and self.sigma > 0 else None

    @override
    def draw(self, z: Tensor, noise: Noise) -> Tensor:
        return noise.normal(z)
