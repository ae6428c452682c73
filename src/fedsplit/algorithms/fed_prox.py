"""The algorithm FedProx: FedAvg with clients held near the server's weights."""

from collections.abc import Sequence

from torch import Tensor
from typing_extensions import override

from fedsplit.algorithms.fed_avg import FedAvg
from fedsplit.computing.steppable import Steppable
from fedsplit.config.values import NonNegativeFloat
from fedsplit.parties.local_rule import LocalRule


class Prox(LocalRule):
    """Gradients of the loss and of `mu / 2 |w - w_0|^2`, where w_0 are the weights that the round began with.

    Args:
        mu: weight of the proximal term.
    """

    keeps_anchor = True

    def __init__(self, *, mu: NonNegativeFloat) -> None:
        self.mu = mu

    @override
    def correct_gradients(self, gradients: Sequence[Tensor], model: Steppable) -> Sequence[Tensor]:
        weights = zip(gradients, model.trainable.values(), model.anchor.values(), strict=True)
        return [
            gradient + self.mu * (weight.detach() - initial_weight)
            for gradient, weight, initial_weight in weights
        ]


class FedProx(FedAvg):
    """FedProx: FedAvg whose clients are held near the weights that they begin a round with.

    Source: T. Li et al., "Federated Optimization in Heterogeneous Networks", 2020.
    """

    own_rule = Prox
    label = "FedProx"
    place = 13
