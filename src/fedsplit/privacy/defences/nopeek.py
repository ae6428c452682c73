"""NoPeek: smashed data that vary less with the inputs."""

from torch import Tensor
from torch.func import grad
from typing_extensions import override

from fedsplit.config.values import NonNegativeFloat
from fedsplit.privacy.defence import Defence
from fedsplit.privacy.distance_correlation import distance_correlation


class NoPeek(Defence):
    """The distance correlation of inputs and smashed data is minimised beside the loss.

    Its gradient is the client's own business: it is added to the cut gradient, and nothing more is sent.

    Source: P. Vepakomma et al., "NoPeek: Information leakage reduction to share activations in distributed
    deep learning", 2020 (arXiv 2008.09161).

    Args:
        strength: weight of the distance correlation in the loss.
    """

    def __init__(self, *, strength: NonNegativeFloat) -> None:
        super().__init__()
        self.strength = strength

    @property
    @override
    def adds_gradient(self) -> bool:
        return self.strength > 0

    @override
    def extra_gradient(self, x: Tensor, z: Tensor) -> Tensor:
        found: Tensor = grad(lambda z: distance_correlation(x, z))(z)
        return self.strength * found
