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
        start: starting point of the algorithm.
        alpha: power of the number of clients by which the server's learning rate is multiplied.
        phi: fraction of a round's clients that get the broadcast, rounded, and at least one if above 0.
        average_clients: True to average client models at the end of a round; else each client keeps its own.
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
        receivers = receiver_count(cohort, phi)
        load = terms.uploads() + (terms.exchange(terms.client) if average_clients else 0.0)
        load += (1 - receivers / cohort) * terms.cut_gradients()
        return load + (terms.shared_gradients(receivers) if receivers else 0.0)

    @override
    def run_round(self, t: int, cohort: Cohort) -> RoundMetrics:
        if self.own_half is None:
            cohort.install("client", self.client_weights)
        receivers = self.draw_receivers(t, cohort)
        losses: list[BatchLoss] = []
        for step in count():
            uploads = list(cohort.forward(step))
            if not uploads:
                break
            self.server.acceleration = float(len(uploads) ** self.alpha)
            step_losses, dz = self.step_server(t, uploads)
            losses += step_losses
            cohort.backward(step, self.share_mean_gradient(uploads, dz, receivers))
        if self.own_half is None:
            self.client_weights = average(cohort.weights("client"), cohort.sample_counts)
        return RoundMetrics(train_loss=pooled_loss(losses))

    def draw_receivers(self, t: int, cohort: Cohort) -> set[int]:
        """Draw the clients of a round that get the broadcast."""
        order = torch.randperm(
            len(cohort.clients), generator=generator(self.seed, "clients that share a gradient", round=t)
        )
        places = order[: receiver_count(len(cohort.clients), self.phi)].tolist()
        return {cohort.clients[place] for place in places}

    def share_mean_gradient(
        self, uploads: Sequence[Upload], dz: Mapping[int, Tensor], receivers: set[int]
    ) -> Mapping[int, Tensor]:
        """Replace the cut gradients of `receivers` by their mean."""
        shared_gradients = [dz[upload.client] for upload in uploads if upload.client in receivers]
        if not shared_gradients:
            return dz
        largest = max(shared_gradients, key=len)
        total, counts = torch.zeros_like(largest), torch.zeros(len(largest), device=largest.device)
        for gradient in shared_gradients:
            total[: len(gradient)] += gradient
            counts[: len(gradient)] += 1
        mean = total / counts.to(total.dtype).view(-1, *[1] * (total.ndim - 1))
        own_gradients = {client: gradient for client, gradient in dz.items() if client not in receivers}
        return BroadcastGradients(
            own_gradients, mean, [upload.client for upload in uploads if upload.client in receivers]
        )


def receiver_count(clients: int, phi: float) -> int:
    """Number of a round's clients that get the broadcast."""
    return max(1, round(phi * clients)) if phi else 0
