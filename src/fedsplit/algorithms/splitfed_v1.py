"""The algorithm SplitFed v1: a copy of the server model for each client."""

from itertools import count

from typing_extensions import override

from fedsplit.algorithms.algorithm import RoundMetrics
from fedsplit.algorithms.copied_server import CopiedServer
from fedsplit.algorithms.round_load import RoundLoad
from fedsplit.network.timelines.splitfed import SplitFedV1Timeline
from fedsplit.parties.cohort import Cohort
from fedsplit.parties.loss import mean_loss
from fedsplit.parties.messages import BatchLoss
from fedsplit.state.weights import average


class SplitFedV1(CopiedServer):
    """SplitFed v1: a copy of the server model for each client, averaged like the client models.

    With an elementwise optimizer this is FedAvg, computed in two places.

    Source: C. Thapa et al., "SplitFed: When Federated Learning Meets Split Learning", 2022.
    """

    client_head = "none"
    takes_tail = True
    copies_server = True
    timeline = SplitFedV1Timeline()
    label = "SplitFed v1"
    place = 1

    @override
    def run_round(self, t: int, cohort: Cohort) -> RoundMetrics:
        cohort.install("client", self.client_weights)
        losses = self.train_copies(t, cohort)
        self.client_weights = average(cohort.weights("client"), cohort.sample_counts)
        return RoundMetrics(train_loss=mean_loss(losses))

    def train_copies(self, t: int, cohort: Cohort) -> list[BatchLoss]:
        """Train a cohort for all local steps with the server copies, then average these; losses of steps."""
        self.load_copies(cohort)
        losses: list[BatchLoss] = []
        for step in count():
            uploads = cohort.forward(step)
            if not uploads:
                break
            step_losses, dz = self.copies.step(t, uploads)
            losses += step_losses
            cohort.backward(step, dz)
        self.average_copies(cohort)
        return losses

    @staticmethod
    @override
    def round_load(terms: RoundLoad) -> float:
        return terms.exchange(terms.client) + terms.uploads() + terms.cut_gradients()
