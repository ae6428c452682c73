"""Noise that is added to smashed data."""

from abc import abstractmethod

from torch import Tensor
from typing_extensions import override

from fedsplit.config.values import NonNegativeFloat, PositiveFloat
from fedsplit.privacy.clipping import clip_samples
from fedsplit.privacy.defence import Defence
from fedsplit.privacy.noise import Noise


class AdditiveNoise(Defence):
    """Each sample is clipped to a norm, and noise is added to each of its values.

    Args:
        sigma: standard deviation of the noise, in units of `clip`; without a clip as it is.
        clip: largest Euclidean norm of a sample's smashed data; None leaves them as they are.
    """

    def __init__(self, *, sigma: NonNegativeFloat, clip: PositiveFloat | None) -> None:
        super().__init__()
        self.sigma, self.clip = sigma, clip

    @property
    @override
    def releases(self) -> bool:
        return True

    @override
    def release(self, z: Tensor, noise: Noise) -> Tensor:
        within = z if self.clip is None else clip_samples(z, self.clip)
        scale = self.sigma * (1.0 if self.clip is None else self.clip)
        return within + scale * self.draw(within, noise) if scale else within

    @abstractmethod
    def draw(self, z: Tensor, noise: Noise) -> Tensor:
        """Noise of variance 1 for clipped smashed data."""
