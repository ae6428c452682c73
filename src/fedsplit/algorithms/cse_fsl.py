"""CSE-FSL."""

from typing import ClassVar

from fedsplit.algorithms.algorithm import Algorithm, ClientHead, RoundMetrics, Start
from fedsplit.algorithms.round_load import RoundLoad
from fedsplit.config.values import PositiveInt
from fedsplit.network.timelines.cse_fsl import CseFslTimeline
from fedsplit.parties.cohort import Cohort
from fedsplit.parties.loss import mean_loss
from fedsplit.parties.messages import BatchLoss, LocalWork, Upload
from fedsplit.state.state import State
from fedsplit.state.weights import Weights, average


class CseFsl(Algorithm):
    """CSE-FSL: local auxiliary losses, one server model, an upload every `server_update_interval` steps.

    Source: Y. Mu and C. Shen, "Communication and Storage Efficient Federated Split Learning", 2023.

    Args:
        start: what to start from.
        server_update_interval: q; clients upload at local steps 0, q, 2q, ... of each round.
    """

    client_head: ClassVar[ClientHead] = "auxiliary"
    timeline = CseFslTimeline()
    label = "CSE-FSL"
    place = 3

    def __init__(self, start: Start, *, server_update_interval: PositiveInt) -> None:
        super().__init__(start)
        self.server_update_interval = server_update_interval
        self.auxiliary: Weights = start.auxiliary_weights

    def run_round(self, t: int, cohort: Cohort) -> RoundMetrics:
        cohort.install("client", self.client_weights)
        cohort.install("auxiliary", self.auxiliary)
        work = LocalWork(train_head=True, upload_interval=self.server_update_interval)
        locally = cohort.train_local(work)
        globally = [self.step_server(t, upload) for upload in locally.uploads]
        self.client_weights = average(cohort.weights("client"), cohort.sample_counts)
        self.auxiliary = average(cohort.weights("auxiliary"), cohort.sample_counts)
        mean_loss(locally.losses)  # raises where a client's own loss is no longer finite
        return RoundMetrics(train_loss=mean_loss(globally))

    @staticmethod
    def round_load(terms: RoundLoad) -> float:
        return (
            terms.exchanged(terms.client)
            + terms.uploads(terms.population.server_update_interval)
            + terms.exchanged(terms.auxiliary)
        )

    def step_server(self, t: int, upload: Upload) -> BatchLoss:
        """Step the server model on an upload; its loss before the step."""
        loss, _ = self.server.step(t, upload)
        return loss

    def auxiliary_weights(self) -> dict[str, Weights]:
        return {"auxiliary": self.auxiliary}

    def state(self) -> State:
        return super().state() | {"auxiliary": self.auxiliary}

    def load_state(self, state: State) -> None:
        super().load_state(state)
        self.auxiliary = dict(state["auxiliary"])
