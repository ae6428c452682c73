"""SplitFed v2."""

from itertools import count

import torch

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
    takes_turns = True
    timeline = SplitFedV2Timeline()
    label = "SplitFed v2"
    place = 2

    @staticmethod
    def round_load(terms: RoundLoad) -> float:
        return terms.exchanged(terms.client) + terms.uploads() + terms.cut_gradients()

    def run_round(self, t: int, cohort: Cohort) -> RoundMetrics:
        cohort.install("client", self.client_weights)
        draw = generator(self.seed, "client order", round=t)
        order = [cohort.clients[i] for i in torch.randperm(len(cohort.clients), generator=draw)]

        losses: list[BatchLoss] = []
        for client in order:
            alone = cohort.select([client])
            for step in count():
                uploads = alone.forward(step)
                if not uploads:
                    break
                loss, dz = self.server.step(t, uploads[0])
                losses.append(loss)
                alone.backward(step, {client: dz})

        self.client_weights = average(cohort.weights("client"), cohort.sample_counts)
        return RoundMetrics(train_loss=mean_loss(losses))
