"""SplitFed v1."""

from itertools import count

from fedsplit.algorithms.algorithm import Algorithm, RoundMetrics, Start
from fedsplit.parties.cohort import Cohort
from fedsplit.parties.loss import mean_loss
from fedsplit.parties.messages import BatchLoss
from fedsplit.parties.split_server import SplitServer
from fedsplit.state import State
from fedsplit.weights import average


class SplitFedV1(Algorithm):
    """SplitFed v1: a copy of the server model for each client, averaged like the client models.

    With an elementwise optimizer this is FedAvg, computed in two places.

    Source: C. Thapa et al., "SplitFed: When Federated Learning Meets Split Learning", 2022.
    """

    client_head = "none"

    def __init__(self, start: Start) -> None:
        super().__init__(start)
        self.copies: dict[int, SplitServer] = {}

    def run_round(self, t: int, cohort: Cohort) -> RoundMetrics:
        """See `Algorithm.run_round`."""
        cohort.install("client", self.client_weights)
        copies = {client: self._copy(client) for client in cohort.clients}
        server_weights = self.server.weights()
        for copy in copies.values():
            copy.load(server_weights)

        losses: list[BatchLoss] = []
        for step in count():
            uploads = cohort.forward(step)
            if not uploads:
                break
            stepped = {upload.client: copies[upload.client].step(t, upload) for upload in uploads}
            losses += [loss for loss, _ in stepped.values()]
            cohort.backward(step, {client: dz for client, (_, dz) in stepped.items()})

        self.client_weights = average(cohort.weights("client"), cohort.sample_counts)
        self.server.load(average([copy.weights() for copy in copies.values()], cohort.sample_counts))
        return RoundMetrics(train_loss=mean_loss(losses))

    def _copy(self, client: int) -> SplitServer:
        """A client's copy of the server model; its optimizer lives on from round to round."""
        if client not in self.copies:
            self.copies[client] = self.server.fresh_copy()
        return self.copies[client]

    def state(self) -> State:
        """See `Algorithm.state`."""
        copies = {str(client): copy.state() for client, copy in self.copies.items()}
        return super().state() | {"copies": copies}

    def load_state(self, state: State) -> None:
        """See `Algorithm.load_state`."""
        super().load_state(state)
        self.copies.clear()
        for client, kept in state["copies"].items():
            self._copy(int(client)).load_state(kept)
