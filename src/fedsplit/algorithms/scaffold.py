"""The algorithm SCAFFOLD: FedAvg with control variates."""

from collections.abc import Sequence

import torch
from torch import Tensor
from typing_extensions import override

from fedsplit.algorithms.algorithm import RoundMetrics, Start
from fedsplit.algorithms.fed_avg import FedAvg
from fedsplit.algorithms.round_load import RoundLoad
from fedsplit.computing.steppable import RuleTensors, Steppable
from fedsplit.parties.cohort import Cohort
from fedsplit.parties.local_rule import LocalRule
from fedsplit.state.state import State
from fedsplit.state.weights import Weights, average, place_like


class ControlVariates(LocalRule):
    """Gradients of the loss, minus the client's control variate and plus the server's: `g - c_i + c`.

    Of a round, a client keeps `c - c_i` as `correction` and the sum of what it descended along as `total`.
    After K steps its control variate becomes `c_i - c + total / K`, option II of the paper: under plain SGD
    with a constant rate, `total / K` is the difference of the round's first and last weights over K times the
    rate. The client sends `total / K`, which differs from c by as much as its own control variate moved.
    """

    keeps = ("correction", "total")

    @override
    def correct_gradients(self, gradients: Sequence[Tensor], model: Steppable) -> Sequence[Tensor]:
        corrections = model.rule_tensors["correction"].values()
        directions = [
            gradient + correction for gradient, correction in zip(gradients, corrections, strict=True)
        ]
        for total, direction in zip(model.rule_tensors["total"].values(), directions, strict=True):
            total.add_(direction)
        return directions

    @override
    def receive(self, rule_tensors: RuleTensors, control_variates: Weights, steps: int) -> None:
        for name, total in rule_tensors["total"].items():
            mean_gradient = total / steps - rule_tensors["correction"][name]
            rule_tensors["correction"][name].copy_(control_variates[name] - mean_gradient)
            total.zero_()

    @override
    def control_variates(self, rule_tensors: RuleTensors, steps: int) -> Weights:
        return {name: total / steps for name, total in rule_tensors["total"].items()}


class Scaffold(FedAvg):
    """SCAFFOLD: FedAvg whose clients correct their gradients by control variates.

    The server's control variate moves by the average change of the cohort's, times the cohort's fraction of
    all clients. Averages are in proportion to samples, as everywhere here (the paper weighs clients alike);
    the paper's global step size is 1. Control variates are means of gradients, whatever the optimizer.

    Source: S. P. Karimireddy et al., "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning", 2020
    (arXiv 1910.06378), algorithm 1.

    Args:
        start: starting point of the algorithm.
    """

    own_rule = ControlVariates
    label = "SCAFFOLD"
    place = 17

    def __init__(self, start: Start) -> None:
        super().__init__(start)
        self.num_clients = start.num_clients
        parameters = {
            name: tensor for name, tensor in self.full_weights().items() if name not in start.buffers
        }
        self.control: Weights = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
        """The server's control variate c, one tensor per parameter."""

    @staticmethod
    @override
    def round_load(terms: RoundLoad) -> float:
        return FedAvg.round_load(terms) + terms.exchange(terms.parameters)

    @override
    def run_round(self, t: int, cohort: Cohort) -> RoundMetrics:
        cohort.install("control", self.control)
        metrics = super().run_round(t, cohort)
        means = average(cohort.weights("control"), cohort.sample_counts)
        fraction = len(cohort.clients) / self.num_clients
        self.control = {name: c + fraction * (means[name] - c) for name, c in self.control.items()}
        return metrics

    @override
    def state(self) -> State:
        return super().state() | {"control": self.control}

    @override
    def load_state(self, state: State) -> None:
        super().load_state(state)
        self.control = place_like(state["control"], self.control)
