"""The algorithm CSE-FSL: clients train on an auxiliary loss, the server on their uploads."""

from typing_extensions import override

from fedsplit.algorithms.algorithm import Exposure, RoundMetrics, Start
from fedsplit.algorithms.local_loss import LocalLoss
from fedsplit.algorithms.round_load import RoundLoad
from fedsplit.config.values import PositiveInt
from fedsplit.network.timelines.cse_fsl import CseFslTimeline
from fedsplit.parties.cohort import Cohort
from fedsplit.parties.loss import mean_loss
from fedsplit.parties.messages import BatchLoss, Upload


class CseFsl(LocalLoss):
    """CSE-FSL: local auxiliary losses, one server model, an upload every `server_update_interval` steps.

    Source: Y. Mu and C. Shen, "Communication and Storage Efficient Federated Split Learning", 2023.

    Args:
        start: starting point of the algorithm.
        server_update_interval: q; clients upload at local steps 0, q, 2q, ... of each round.
    """

    timeline = CseFslTimeline()
    label = "CSE-FSL"
    place = 3

    def __init__(self, start: Start, *, server_update_interval: PositiveInt) -> None:
        super().__init__(start)
        self.server_update_interval = server_update_interval

    @override
    def run_round(self, t: int, cohort: Cohort) -> RoundMetrics:
        locally = self.train_clients(cohort, upload_interval=self.server_update_interval)
        globally = [self.step_server(t, upload) for upload in locally.uploads]
        self.average_clients(cohort)
        mean_loss(locally.losses)  # raises where a client's own loss is no longer finite
        return RoundMetrics(train_loss=mean_loss(globally))

    @staticmethod
    @override
    def round_load(terms: RoundLoad) -> float:
        return (
            terms.exchange(terms.client)
            + terms.uploads(terms.population.server_update_interval)
            + terms.exchange(terms.auxiliary)
        )

    @override
    def exposure(self, t: int, client: int, *, steps: int, epochs: int) -> Exposure:
        return Exposure(range(0, steps, self.server_update_interval), range(steps))

    def step_server(self, t: int, upload: Upload) -> BatchLoss:
        """Step the server model on an upload; its loss before the step."""
        loss, _ = self.server.step(t, upload)
        return loss
