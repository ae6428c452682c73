"""The algorithm SplitFed v2: one server model, clients in turn."""

from itertools import count

import torch
from typing_extensions import override

from fedsplit.algorithms.algorithm import Algorithm, RoundMetrics
from fedsplit.algorithms.round_load import RoundLoad
from fedsplit.network.timelines.splitfed import SplitFedV2Timeline
from fedsplit.parties.cohort import Cohort
from fedsplit.parties.loss import mean_loss
from fedsplit.parties.messages import BatchLoss
from fedsplit.randomness import generator
from fedsplit.state.weights import average


class SplitFedV2(Algorithm):
    """SplitFed v2: one server model; clients train with it one after the other, in an order drawn per round.

    Source: C. Thapa et al., "SplitFed: When Federated Learning Meets Split Learning", 2022.
    """

    client_head = "none"
    takes_tail = True
    takes_turns = True
    timeline = SplitFedV2Timeline()
    label = "SplitFed v2"
    place = 2

    @staticmethod
    @override
    def round_load(terms: RoundLoad) -> float:
        return terms.exchange(terms.client) + terms.uploads() + terms.cut_gradients()

    @override
    def run_round(self, t: int, cohort: Cohort) -> RoundMetrics:
        cohort.install("client", self.client_weights)
        losses: list[BatchLoss] = []
        for client in self.draw_order(t, cohort):
            losses += self.take_turn(t, cohort.select([client]))
        self.client_weights = average(cohort.weights("client"), cohort.sample_counts)
        return RoundMetrics(train_loss=mean_loss(losses))

    def draw_order(self, t: int, cohort: Cohort) -> list[int]:
        """Draw the order in which the clients of a round take their turns."""
        draw = generator(self.seed, "client order", round=t)
        return [cohort.clients[i] for i in torch.randperm(len(cohort.clients), generator=draw)]

    def take_turn(self, t: int, alone: Cohort) -> list[BatchLoss]:
        """Train a cohort of one client with the server for all local steps; losses of the steps."""
        losses: list[BatchLoss] = []
        for step in count():
            uploads = alone.forward(step)
            if not uploads:
                break
            loss, dz = self.server.step(t, uploads[0])
            losses.append(loss)
            alone.backward(step, {uploads[0].client: dz})
        return losses
