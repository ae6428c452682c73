"""The algorithm SGLR: minibatch split learning with shared cut gradients."""

from collections.abc import Mapping, Sequence
from itertools import count

import torch
from torch import Tensor
from typing_extensions import override

from fedsplit.algorithms.algorithm import Half, RoundMetrics, Start
from fedsplit.algorithms.minibatch_sfl import MinibatchSfl
from fedsplit.algorithms.pooling import pooled_loss
from fedsplit.algorithms.round_load import RoundLoad
from fedsplit.config.values import Fraction, NonNegativeFloat
from fedsplit.errors import UserError
from fedsplit.parties.cohort import Cohort
from fedsplit.parties.messages import BatchLoss, BroadcastGradients, Upload
from fedsplit.randomness import generator
from fedsplit.state.weights import average


class Sglr(MinibatchSfl):
    """SGLR: minibatch SFL with a faster server, and one cut gradient for many clients.

    The server steps on the m batches of a local step together, with m^`alpha` times its learning rate. The
    clients that are drawn for a round get the mean of their cut gradients as one broadcast: row j is the mean
    over those of them whose batches have a sample j. The others get their own. A cut gradient is of the mean
    loss of a client's own batch, as in minibatch SFL with `scale=own`. The paper's clients keep models of
    their own: `average_clients=False`.

    Source: S. Pal et al., "Server-Side Local Gradient Averaging and Learning Rate Acceleration for Scalable
    Split Learning", 2021 (arXiv 2112.05929), algorithm 1.

    Args:
        start: what to start from.
        alpha: power of the number of clients that the server's learning rate is multiplied with.
        phi: fraction of a round's clients that get the broadcast, rounded, and at least one if above 0.
        average_clients: whether client models are averaged at the end of a round, or stay each client's own.
    """

    label = "SGLR"
    place = 18

    def __init__(
        self, start: Start, *, alpha: NonNegativeFloat, phi: Fraction, average_clients: bool
    ) -> None:
        super().__init__(start, scale="own")
        if phi and start.has_positions:
            raise UserError("phi", phi, "must be 0: cut gradients of texts of many lengths have no mean")
        self.alpha, self.phi = alpha, phi
        self.own_half = self.own_half_with({"average_clients": average_clients})

    @classmethod
    @override
    def own_half_with(cls, arguments: Mapping[str, object]) -> Half | None:
        return None if arguments["average_clients"] else "client"

    @staticmethod
    @override
    def round_load(terms: RoundLoad, *, phi: float = 0.5, average_clients: bool = True) -> float:
        cohort = terms.population.cohort
        shared = receivers_of(cohort, phi)
        load = terms.uploads() + (terms.exchanged(terms.client) if average_clients else 0.0)
        load += (1 - shared / cohort) * terms.cut_gradients()
        return load + (terms.shared_gradients(shared) if shared else 0.0)

    @override
    def run_round(self, t: int, cohort: Cohort) -> RoundMetrics:
        if self.own_half is None:
            cohort.install("client", self.client_weights)
        receivers = self.drawn_receivers(t, cohort)
        losses: list[BatchLoss] = []
        for step in count():
            uploads = list(cohort.forward(step))
            if not uploads:
                break
            self.server.acceleration = float(len(uploads) ** self.alpha)
            stepped, dz = self.step_server(t, uploads)
            losses += stepped
            cohort.backward(step, self.shared(uploads, dz, receivers))
        if self.own_half is None:
            self.client_weights = average(cohort.weights("client"), cohort.sample_counts)
        return RoundMetrics(train_loss=pooled_loss(losses))

    def drawn_receivers(self, t: int, cohort: Cohort) -> set[int]:
        """The clients of a round that get the broadcast."""
        order = torch.randperm(
            len(cohort.clients), generator=generator(self.seed, "clients that share a gradient", round=t)
        )
        drawn = order[: receivers_of(len(cohort.clients), self.phi)].tolist()
        return {cohort.clients[place] for place in drawn}

    def shared(
        self, uploads: Sequence[Upload], dz: Mapping[int, Tensor], receivers: set[int]
    ) -> Mapping[int, Tensor]:
        """Cut gradients of a local step, with the mean of those of `receivers` in their place."""
        sharing = [dz[each.client] for each in uploads if each.client in receivers]
        if not sharing:
            return dz
        largest = max(sharing, key=len)
        total, counts = torch.zeros_like(largest), torch.zeros(len(largest), device=largest.device)
        for each in sharing:
            total[: len(each)] += each
            counts[: len(each)] += 1
        mean = total / counts.to(total.dtype).view(-1, *[1] * (total.ndim - 1))
        own = {client: each for client, each in dz.items() if client not in receivers}
        return BroadcastGradients(own, mean, [each.client for each in uploads if each.client in receivers])


def receivers_of(clients: int, phi: float) -> int:
    """Number of a round's clients that get the broadcast."""
    return max(1, round(phi * clients)) if phi else 0
