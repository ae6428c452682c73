"""The algorithm SplitFed v3: client models that are not averaged."""

from typing_extensions import override

from fedsplit.algorithms.algorithm import RoundMetrics
from fedsplit.algorithms.round_load import RoundLoad
from fedsplit.algorithms.splitfed_v1 import SplitFedV1
from fedsplit.parties.cohort import Cohort
from fedsplit.parties.loss import mean_loss


class SplitFedV3(SplitFedV1):
    """SplitFed v3: SplitFed v1 whose client models stay each client's own; only server copies are averaged.

    Source: M. Gawali et al., "Comparison of Privacy-Preserving Distributed Deep Learning Methods in
    Healthcare", 2021.
    """

    own_half = "client"
    label = "SplitFed v3"
    place = 15

    @override
    def run_round(self, t: int, cohort: Cohort) -> RoundMetrics:
        return RoundMetrics(train_loss=mean_loss(self.train_copies(t, cohort)))

    @staticmethod
    @override
    def round_load(terms: RoundLoad) -> float:
        return terms.uploads() + terms.cut_gradients()
