"""The algorithm HO-SFL: zeroth-order clients of one shared model, first-order servers."""

from collections.abc import Sequence
from itertools import count

import torch
from torch import Tensor
from typing_extensions import override

from fedsplit.algorithms.algorithm import RoundMetrics, Start
from fedsplit.algorithms.minibatch_sfl import MinibatchSfl
from fedsplit.algorithms.pooling import pooled_loss
from fedsplit.algorithms.round_load import RoundLoad
from fedsplit.computing.steppable import Seed, Steppable
from fedsplit.config.values import PositiveFloat, PositiveInt
from fedsplit.network.timelines.ho_sfl import HoSflTimeline
from fedsplit.parties.cohort import Cohort
from fedsplit.parties.local_rule import LocalRule, standard_normal
from fedsplit.parties.messages import BatchLoss
from fedsplit.randomness import seed_of
from fedsplit.state.state import State


class ProjectedProbes(LocalRule):
    """Slopes `<f(w + mu u) - f(w), dz>` of smashed data f along directions u, and the mean of slope times u.

    Args:
        mu: distance that weights are moved along u, whose elements are standard normal.
        probes: number of directions in a step.
    """

    answers_seeds, differentiates = True, False

    def __init__(self, *, mu: PositiveFloat, probes: PositiveInt) -> None:
        self.mu, self.probes, self.passes = mu, probes, 1 + probes

    @torch.no_grad()
    @override
    def slopes(
        self, body: Steppable, x: Tensor, z: Tensor, dz: Tensor, seeds: Sequence[int], *, seed: Seed
    ) -> Tensor:
        weights, slopes = list(body.trainable.values()), []
        initial = [weight.clone() for weight in weights]
        for probe in seeds:
            for weight, start, u in zip(weights, initial, draw_direction(body, probe), strict=True):
                weight.copy_(start + self.mu * u)
            change = body.forward(x, seed=seed, buffers=body.frozen_buffers()) - z
            slopes.append(body.for_each(_inner_product, change, dz.reshape(change.shape)))
        for weight, start in zip(weights, initial, strict=True):
            weight.copy_(start)
        return torch.stack(slopes, -1)

    @torch.no_grad()
    @override
    def estimate(self, body: Steppable, seeds: Sequence[int], slopes: Tensor) -> Sequence[Tensor]:
        gradients = [torch.zeros_like(parameter) for parameter in _client_parameters(body)]
        for probe, slope in zip(seeds, slopes / (self.mu * self.probes), strict=True):
            for total, u in zip(gradients, draw_direction(body, probe), strict=True):
                total.add_(slope * u)
        return gradients


def draw_direction(body: Steppable, seed: int) -> list[Tensor]:
    """Draw a standard normal direction, in the shapes of one client's parameters that learn."""
    return standard_normal(_client_parameters(body), seed, 0)


def _client_parameters(body: Steppable) -> list[Tensor]:
    return [body.module.get_parameter(name).detach() for name in body.trainable]


def _inner_product(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum()


class HoSfl(MinibatchSfl):
    """HO-SFL: the server steps along gradients, clients by forward passes alone on one shared client model.

    At each local step the server steps on all clients' batches together and gives cut gradients dz, rows of
    the gradient of the mean loss over all of them, with `probes` seeds. A client answers with slopes
    `v_p = <f(w + mu u_p) - f(w), dz>`. The server adds up those of all clients, and every client of the round
    steps along the mean of `v_p u_p / mu`, with its own optimizer. So all client models stay the same, and
    the server's copy with them. Weights go, whole and exactly, to a client that was not in the round before.

    Source: Q. Chen, X. Wu, Y. Wang and X. Chen, "HO-SFL: Hybrid-Order Split Federated Learning with
    Backprop-Free Clients and Dimension-Free Aggregation", 2026 (arXiv 2603.14773).

    Args:
        start: starting point of the algorithm.
        mu: distance that clients move weights along a direction.
        probes: P, number of directions in a local step.
    """

    own_rule = ProjectedProbes
    timeline = HoSflTimeline()
    label = "HO-SFL"
    place = 19

    def __init__(self, start: Start, *, mu: PositiveFloat, probes: PositiveInt) -> None:
        super().__init__(start, scale="union")
        self.mu, self.probes = mu, probes
        self.shared_client = start.shared_client(ProjectedProbes(mu=mu, probes=probes))
        self.holders: set[int] = set()
        """Clients that hold the shared client model as it is now."""

    @staticmethod
    @override
    def round_load(terms: RoundLoad, *, probes: int = 8) -> float:
        return (
            terms.uploads()
            + terms.cut_gradients()
            + terms.seeds_and_scalars(probes)
            + terms.joining_downloads()
        )

    @override
    def run_round(self, t: int, cohort: Cohort) -> RoundMetrics:
        joining = [client for client in cohort.clients if client not in self.holders]
        if joining:
            cohort.select(joining).install("client", self.client_weights)
        self.holders = set(cohort.clients)
        losses: list[BatchLoss] = []
        for step in count():
            uploads = list(cohort.forward(step))
            if not uploads:
                break
            step_losses, dz = self.step_server(t, uploads)
            losses += step_losses
            seeds = [self.probe_seed(t, step, probe) for probe in range(self.probes)]
            slopes = cohort.probe(step, dz, seeds)
            slope_sum = torch.stack([slopes[upload.client] for upload in uploads]).sum(0)
            cohort.move(step, seeds, slope_sum)
            self.shared_client.move(t, step, seeds, slope_sum)
        self.client_weights = self.shared_client.weights()
        return RoundMetrics(train_loss=pooled_loss(losses))

    def probe_seed(self, t: int, step: int, probe: int) -> int:
        """Seed of a direction, in 31 bits."""
        return seed_of(self.seed, "probe", round=t, step=step, epoch=probe) % 2**31

    @override
    def forget_clients(self) -> None:
        self.holders = set()
        self.shared_client.forget()

    @override
    def state(self) -> State:
        return super().state() | {"shared": self.shared_client.state(), "holders": sorted(self.holders)}

    @override
    def load_state(self, state: State) -> None:
        super().load_state(state)
        self.shared_client.load_state(state["shared"])
        self.holders = set(state["holders"])
