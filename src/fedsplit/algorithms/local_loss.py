"""Client side of algorithms that train on the loss of an auxiliary model."""

from typing import ClassVar

from typing_extensions import override

from fedsplit.algorithms.algorithm import Algorithm, ClientHead, Start
from fedsplit.parties.cohort import Cohort
from fedsplit.parties.messages import LocalTraining, LocalWork
from fedsplit.state.state import State
from fedsplit.state.weights import Weights, average


class LocalLoss(Algorithm):
    """An algorithm whose clients train client and auxiliary model by themselves, both averaged each round."""

    client_head: ClassVar[ClientHead] = "auxiliary"

    def __init__(self, start: Start) -> None:
        super().__init__(start)
        self.auxiliary: Weights = start.auxiliary_weights

    def train_clients(
        self, cohort: Cohort, *, upload_interval: int | None = None, in_order: bool = True
    ) -> LocalTraining:
        """Let clients train client and auxiliary model from the averages for a round.

        Args:
            cohort: clients of the round.
            upload_interval: clients upload at local steps 0, q, 2q, ...; None: never.
            in_order: True if uploads are wanted by (client, step), see `LocalWork`.
        """
        cohort.install("client", self.client_weights)
        cohort.install("auxiliary", self.auxiliary)
        work = LocalWork(train_head=True, upload_interval=upload_interval, in_order=in_order)
        return cohort.train_local(work)

    def average_clients(self, cohort: Cohort) -> None:
        """Average the client and auxiliary models of a cohort."""
        self.client_weights = average(cohort.weights("client"), cohort.sample_counts)
        self.auxiliary = average(cohort.weights("auxiliary"), cohort.sample_counts)

    @override
    def auxiliary_weights(self) -> dict[str, Weights]:
        return {"auxiliary": self.auxiliary}

    @override
    def state(self) -> State:
        return super().state() | {"auxiliary": self.auxiliary}

    @override
    def load_state(self, state: State) -> None:
        super().load_state(state)
        self.auxiliary = dict(state["auxiliary"])
