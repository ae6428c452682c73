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
    def update_second_moment(self, second_moment: Tensor, square: Tensor) -> Tensor:
        """`v - (1 - beta_2) difference^2 sign(v - difference^2)`, the next `v`."""
        return second_moment - (1 - self.betas[1]) * square * (second_moment - square).sign()
