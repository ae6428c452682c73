"""The algorithm FedYogi: FedAvg with Yogi at the server."""

from torch import Tensor
from typing_extensions import override

from fedsplit.algorithms.fed_adam import FedAdam


class FedYogi(FedAdam):
    """FedYogi: as FedAdam, but `v` moves by `(1 - beta_2) difference^2` at most, towards the square.

    Source: S. Reddi et al., "Adaptive Federated Optimization", 2021, algorithm 2.
    """

    label = "FedYogi"
    place = 11

    @override
    def next_second(self, second: Tensor, square: Tensor) -> Tensor:
        """`v - (1 - beta_2) difference^2 sign(v - difference^2)`."""
        return second - (1 - self.betas[1]) * square * (second - square).sign()
