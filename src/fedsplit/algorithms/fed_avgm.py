"""The algorithm FedAvgM: FedAvg with momentum at the server."""

from torch import Tensor
from typing_extensions import override

from fedsplit.algorithms.algorithm import Start
from fedsplit.algorithms.fed_opt import FedOpt
from fedsplit.config.values import BelowOne, PositiveFloat


class FedAvgM(FedOpt):
    """FedAvgM: the server moves by its rate times a velocity, `v = momentum v + difference`.

    Without momentum and with a rate of 1 it is FedAvg.

    Source: T. Hsu, H. Qi and M. Brown, "Measuring the Effects of Non-Identical Data Distribution for
    Federated Visual Classification", 2019, whose velocity is not dampened.

    Args:
        start: starting point of the algorithm.
        server_lr: learning rate of the server's steps.
        momentum: share of the velocity that a round keeps.
    """

    label = "FedAvgM"
    place = 12

    def __init__(self, start: Start, *, server_lr: PositiveFloat, momentum: BelowOne) -> None:
        super().__init__(start, server_lr=server_lr)
        self.momentum = momentum

    @override
    def server_step(self, name: str, difference: Tensor) -> Tensor:
        self.first_moment[name] = self.momentum * self.first_moment[name] + difference
        return self.server_lr * self.first_moment[name]
