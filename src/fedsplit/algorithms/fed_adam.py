"""The algorithm FedAdam: FedAvg with Adam at the server."""

import torch
from torch import Tensor
from typing_extensions import override

from fedsplit.algorithms.algorithm import Start
from fedsplit.algorithms.fed_opt import FedOpt
from fedsplit.config.values import BelowOne, PositiveFloat
from fedsplit.state.state import State
from fedsplit.state.weights import Weights, place_like


class FedAdam(FedOpt):
    """FedAdam: the server moves by `server_lr m / (sqrt(v) + tau)`, with Adam's running means.

    `m` is the running mean of the averaged differences, `v` that of their squares, and neither is corrected
    for its beginning. The paper asks for a first `v` of `tau^2` or more; it is `tau^2`.

    Source: S. Reddi et al., "Adaptive Federated Optimization", 2021, algorithm 2.

    Args:
        start: starting point of the algorithm.
        server_lr: learning rate of the server's steps.
        betas: shares of `m` and of `v` that a round keeps.
        tau: adaptivity of steps; a parameter whose differences are far below it moves as with momentum.
    """

    label = "FedAdam"
    place = 10

    def __init__(
        self, start: Start, *, server_lr: PositiveFloat, betas: tuple[BelowOne, BelowOne], tau: PositiveFloat
    ) -> None:
        super().__init__(start, server_lr=server_lr)
        self.betas, self.tau = betas, tau
        self.second_moment: Weights = {
            name: torch.full_like(mean, tau**2) for name, mean in self.first_moment.items()
        }

    @override
    def server_step(self, name: str, difference: Tensor) -> Tensor:
        beta_1 = self.betas[0]
        self.first_moment[name] = beta_1 * self.first_moment[name] + (1 - beta_1) * difference
        self.second_moment[name] = self.update_second_moment(self.second_moment[name], difference.square())
        return self.server_lr * self.first_moment[name] / (self.second_moment[name].sqrt() + self.tau)

    def update_second_moment(self, second_moment: Tensor, square: Tensor) -> Tensor:
        """`v` after a round, given `v` before it and the square of the averaged difference."""
        return self.betas[1] * second_moment + (1 - self.betas[1]) * square

    @override
    def state(self) -> State:
        return super().state() | {"second": self.second_moment}

    @override
    def load_state(self, state: State) -> None:
        super().load_state(state)
        self.second_moment = place_like(state["second"], self.second_moment)
