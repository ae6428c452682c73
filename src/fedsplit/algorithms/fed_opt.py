"""FedAvg with an optimizer at the server."""

from abc import abstractmethod

import torch
from torch import Tensor
from typing_extensions import override

from fedsplit.algorithms.algorithm import RoundMetrics, Start
from fedsplit.algorithms.fed_avg import FedAvg
from fedsplit.config.values import PositiveFloat
from fedsplit.parties.cohort import Cohort
from fedsplit.state.state import State
from fedsplit.state.weights import Weights, place_like


class FedOpt(FedAvg):
    """FedAvg whose server moves parameters along the averaged difference, as an optimizer moves them.

    Clients are averaged in proportion to their samples, as everywhere here (the paper weighs them alike in
    its algorithm). Buffers, as the statistics of batch normalisation, have no gradient and are averaged. The
    server's rate is constant; schedules belong to the clients' steps.

    Source: S. Reddi et al., "Adaptive Federated Optimization", 2021, algorithm 2.

    Args:
        start: starting point of the algorithm.
        server_lr: learning rate of the server's steps.
    """

    def __init__(self, start: Start, *, server_lr: PositiveFloat) -> None:
        super().__init__(start)
        self.server_lr = server_lr
        parameters = {
            name: tensor for name, tensor in self.full_weights().items() if name not in start.buffers
        }
        self.first_moment: Weights = {
            name: torch.zeros_like(parameter) for name, parameter in parameters.items()
        }
        """Running means of the averaged differences, by parameter."""

    @abstractmethod
    def server_step(self, name: str, difference: Tensor) -> Tensor:
        """Step of the server along one parameter.

        Args:
            name: name of the parameter.
            difference: average of the clients' new weights minus the weights that the round began with.
        """

    @override
    def run_round(self, t: int, cohort: Cohort) -> RoundMetrics:
        before = self.full_weights()
        metrics = super().run_round(t, cohort)
        full = self.full_weights()
        for name, average in full.items():
            if name in self.first_moment:
                start = before[name].to(average.device)
                full[name] = start + self.server_step(name, average - start)
        self.client_weights = {name: full[name] for name in self.client_weights}
        self.server.load(full)
        return metrics

    @override
    def state(self) -> State:
        return super().state() | {"first": self.first_moment}

    @override
    def load_state(self, state: State) -> None:
        super().load_state(state)
        self.first_moment = place_like(state["first"], self.first_moment)
