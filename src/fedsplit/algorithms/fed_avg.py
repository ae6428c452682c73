"""The algorithm FedAvg: local training of the whole model, and averages."""

from typing_extensions import override

from fedsplit.algorithms.algorithm import Algorithm, RoundMetrics
from fedsplit.algorithms.round_load import RoundLoad
from fedsplit.network.timelines.fed_avg import FedAvgTimeline
from fedsplit.parties.cohort import Cohort
from fedsplit.parties.loss import mean_loss
from fedsplit.parties.messages import LocalWork
from fedsplit.state.weights import average


class FedAvg(Algorithm):
    """FedAvg: every client trains the whole model for its local epochs; the weights are averaged.

    Source: B. McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized
    Data", 2017.
    """

    client_head = "server"
    timeline = FedAvgTimeline()
    label = "FedAvg"
    place = 0

    @staticmethod
    @override
    def round_load(terms: RoundLoad) -> float:
        return terms.exchange({**terms.client, **terms.server})

    @override
    def run_round(self, t: int, cohort: Cohort) -> RoundMetrics:
        cohort.install("full", self.full_weights())
        locally = cohort.train_local(LocalWork(train_head=True))
        full = average(cohort.weights("full"), cohort.sample_counts)
        self.client_weights = {name: full[name] for name in self.client_weights}
        self.server.load(full)
        return RoundMetrics(train_loss=mean_loss(locally.losses))
