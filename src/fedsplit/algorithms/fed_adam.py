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
        start: what to start from.
        server_lr: of the server's steps.
        betas: shares of `m` and of `v` that are kept.
        tau: how adaptive steps are; a parameter whose differences are far below it moves as with momentum.
    """

    label = "FedAdam"
    place = 10

    def __init__(
        self, start: Start, *, server_lr: PositiveFloat, betas: tuple[BelowOne, BelowOne], tau: PositiveFloat
    ) -> None:
        super().__init__(start, server_lr=server_lr)
        self.betas, self.tau = betas, tau
        self.second: Weights = {name: torch.full_like(each, tau**2) for name, each in self.first.items()}

    @override
    def server_step(self, name: str, difference: Tensor) -> Tensor:
        kept = self.betas[0]
        self.first[name] = kept * self.first[name] + (1 - kept) * difference
        self.second[name] = self.next_second(self.second[name], difference.square())
        return self.server_lr * self.first[name] / (self.second[name].sqrt() + self.tau)

    def next_second(self, second: Tensor, square: Tensor) -> Tensor:
        """`v` after a round, from `v` before it and the square of the averaged difference."""
        return self.betas[1] * second + (1 - self.betas[1]) * square

    @override
    def state(self) -> State:
        return super().state() | {"second": self.second}

    @override
    def load_state(self, state: State) -> None:
        super().load_state(state)
        self.second = place_like(state["second"], self.second)
