"""DP-SGD: gradients of single samples are clipped, and noise is added to their sum."""

from torch import Tensor
from typing_extensions import override

from fedsplit.config.values import NonNegativeFloat, PositiveFloat, Share
from fedsplit.privacy.defence import Defence, Unit
from fedsplit.privacy.defences.gaussian import Gaussian
from fedsplit.privacy.noise import Noise


class DpSgd(Defence):
    """Weights that clients send are trained by DP-SGD; with `smashed_sigma` smashed data have noise too.

    Batches are those of the run, whose order the server knows: nothing is gained by sampling.

    Source: M. Abadi et al., "Deep Learning with Differential Privacy", 2016 (arXiv 1607.00133).

    Args:
        sigma: standard deviation of the noise on a batch's sum of gradients, in units of `clip`; without a
            clip as it is.
        clip: largest Euclidean norm of a sample's gradient, over all that the client trains; None leaves it.
        delta: probability that epsilon is stated for.
        unit: unit that is hidden: `replace` a sample by another, or `zero_out` what it sends.
        smashed_sigma: noise on smashed data, as `sigma` of `Gaussian`; None leaves smashed data as they are.
        smashed_clip: largest Euclidean norm of a sample's smashed data; None: any.
    """

    perturbs_gradients = True

    def __init__(
        self,
        *,
        sigma: NonNegativeFloat,
        clip: PositiveFloat | None,
        delta: Share,
        unit: Unit,
        smashed_sigma: NonNegativeFloat | None,
        smashed_clip: PositiveFloat | None,
    ) -> None:
        super().__init__()
        self.sigma, self.gradient_clip, self.delta, self.unit = sigma, clip, delta, unit
        self._smashed: Defence = Defence()
        if smashed_sigma is not None:
            self._smashed = Gaussian(sigma=smashed_sigma, clip=smashed_clip, delta=delta, unit=unit)

    @property
    @override
    def releases(self) -> bool:
        return self._smashed.releases

    @property
    @override
    def smashed_sigma(self) -> float | None:
        return self._smashed.smashed_sigma

    @property
    @override
    def gradient_sigma(self) -> float | None:
        return self.sigma if self.gradient_clip is not None and self.sigma > 0 else None

    @override
    def release(self, z: Tensor, noise: Noise) -> Tensor:
        return self._smashed.release(z, noise)

    @override
    def perturb(self, gradient: Tensor, noise: Noise) -> Tensor:
        scale = self.sigma * (1.0 if self.gradient_clip is None else self.gradient_clip)
        return gradient + scale * noise.normal(gradient) if scale else gradient
