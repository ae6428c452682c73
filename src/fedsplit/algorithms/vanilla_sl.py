"""The algorithm of split learning with one client model that is handed on."""

from typing_extensions import override

from fedsplit.algorithms.algorithm import RoundMetrics
from fedsplit.algorithms.splitfed_v2 import SplitFedV2
from fedsplit.network.timelines.vanilla_sl import VanillaSlTimeline
from fedsplit.parties.cohort import Cohort
from fedsplit.parties.loss import mean_loss
from fedsplit.parties.messages import BatchLoss


class VanillaSl(SplitFedV2):
    """Vanilla split learning: one client model is handed from client to client; nothing is averaged.

    In an order drawn per round, each client starts from what the client before it ended with, the first from
    what the last of the round before did, and steps as in SplitFed v2. The client model goes through the
    server, which is what the paper calls the centralised mode. The paper hands on weights alone and leaves
    open what becomes of optimizers: each client keeps the state of its own.

    Source: O. Gupta and R. Raskar, "Distributed Learning of Deep Neural Network over Multiple Agents", 2018.
    """

    timeline = VanillaSlTimeline()
    label = "Vanilla SL"
    place = 5

    @override
    def run_round(self, t: int, cohort: Cohort) -> RoundMetrics:
        losses: list[BatchLoss] = []
        for client in self.draw_order(t, cohort):
            alone = cohort.select([client])
            alone.install("client", self.client_weights)
            losses += self.take_turn(t, alone)
            (self.client_weights,) = alone.weights("client")
        return RoundMetrics(train_loss=mean_loss(losses))
