"""Server side of algorithms that keep a copy of the server model for each client."""

from typing_extensions import override

from fedsplit.algorithms.algorithm import Algorithm, Start
from fedsplit.parties.cohort import Cohort
from fedsplit.state.state import State
from fedsplit.state.weights import average


class CopiedServer(Algorithm):
    """An algorithm whose server trains a copy of its model for each client, all averaged each round.

    Each copy keeps the state of its optimizer from round to round.
    """

    def __init__(self, start: Start) -> None:
        super().__init__(start)
        self.copies = start.server_copies

    def load_copies(self, cohort: Cohort) -> None:
        """Let the copies of a cohort's clients begin a round with the server model."""
        samples = dict(zip(cohort.clients, cohort.sample_counts, strict=True))
        self.copies.load(samples, self.server.weights())

    def average_copies(self, cohort: Cohort) -> None:
        """Make the average of the copies of a cohort's clients the server model."""
        self.server.load(average(self.copies.weights(cohort.clients), cohort.sample_counts))

    @override
    def forget_clients(self) -> None:
        self.copies.forget()

    @override
    def state(self) -> State:
        return super().state() | {"copies": self.copies.state()}

    @override
    def load_state(self, state: State) -> None:
        super().load_state(state)
        self.copies.load_state(state["copies"])
