"""The algorithm FedPer: each client keeps the last layers for itself."""

from typing_extensions import override

from fedsplit.algorithms.algorithm import RoundMetrics
from fedsplit.algorithms.fed_avg import FedAvg
from fedsplit.algorithms.round_load import RoundLoad
from fedsplit.parties.cohort import Cohort
from fedsplit.parties.loss import mean_loss
from fedsplit.parties.messages import LocalWork
from fedsplit.state.weights import average


class FedPer(FedAvg):
    """FedPer: FedAvg of the layers before the cut; those behind it are personal, and stay with each client.

    Source: M. G. Arivazhagan et al., "Federated Learning with Personalization Layers", 2019.
    """

    own_half = "server"
    label = "FedPer"
    place = 16

    @staticmethod
    @override
    def round_load(terms: RoundLoad) -> float:
        return terms.exchange(terms.client)

    @override
    def run_round(self, t: int, cohort: Cohort) -> RoundMetrics:
        cohort.install("client", self.client_weights)
        locally = cohort.train_local(LocalWork(train_head=True))
        self.client_weights = average(cohort.weights("client"), cohort.sample_counts)
        return RoundMetrics(train_loss=mean_loss(locally.losses))
