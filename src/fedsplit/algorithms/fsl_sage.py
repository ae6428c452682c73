"""FSL-SAGE."""

from collections.abc import Collection

from fedsplit.algorithms.algorithm import RoundMetrics, Start
from fedsplit.algorithms.cse_fsl import CseFsl
from fedsplit.algorithms.round_load import RoundLoad
from fedsplit.config.values import NonNegativeInt, PositiveInt
from fedsplit.errors import UserError
from fedsplit.network.timelines.fsl_sage import FslSageTimeline
from fedsplit.parties.cohort import Cohort
from fedsplit.parties.loss import mean_loss
from fedsplit.parties.messages import BatchLoss, LocalWork, Upload
from fedsplit.state.state import State
from fedsplit.state.weights import Weights, average


class FslSage(CseFsl):
    """FSL-SAGE: clients descend along estimated cut gradients; the server aligns the estimators.

    A client aligns when it first takes part, and then at its first participation at least
    `align_interval` rounds after its last alignment. The server first steps on the first batches of
    all aligning clients, and is then left alone while their auxiliary models are fitted, so that
    clients do not depend on each other. (The published code aligns one client after another, each
    on a server that earlier clients have moved.)

    Source: S. Nair et al., "FSL-SAGE: Accelerating Federated Split Learning via Smashed Activation
    Gradient Estimation", 2025.

    Args:
        start: what to start from.
        server_update_interval: q; clients upload at local steps 0, q, 2q, ... of each round.
        align_interval: l; rounds between two alignments of a client.
        warm_start: rounds of CSE-FSL first, from whose auxiliary model all alignments then start.
    """

    client_head = "estimator"
    timeline = FslSageTimeline()
    label = "FSL-SAGE"
    place = 4

    def __init__(
        self,
        start: Start,
        *,
        server_update_interval: PositiveInt,
        align_interval: PositiveInt,
        warm_start: NonNegativeInt,
    ) -> None:
        super().__init__(start, server_update_interval=server_update_interval)
        if warm_start and not start.alignment.estimator.trains_on_loss:
            told = "must be 0: this estimator has no loss of its own to train on"
            raise UserError("warm_start", warm_start, told)
        self.align_interval = align_interval
        self.warm_start = warm_start
        self.alignment = start.alignment

    def run_round(self, t: int, cohort: Cohort) -> RoundMetrics:
        if t < self.warm_start:
            return super().run_round(t, cohort)
        losses: list[BatchLoss] = []

        cohort.install("client", self.client_weights)
        due = [client for client in cohort.clients if self.alignment.is_due(client, t, self.align_interval)]
        if due:
            aligning = cohort.select(due)
            losses += [self.step_server(t, upload) for upload in aligning.forward(0)]
            aligned = {client: self._align(client, t) for client in due}
            aligning.install_each("auxiliary", aligned)
        interval = self.server_update_interval
        work = LocalWork(train_head=False, upload_interval=interval, skip_first_upload=due)
        locally = cohort.train_local(work)
        losses += [self.step_server(t, upload) for upload in locally.uploads]

        self.client_weights = average(cohort.weights("client"), cohort.sample_counts)
        return RoundMetrics(train_loss=mean_loss(losses))

    @staticmethod
    def round_load(terms: RoundLoad) -> float:
        return (
            terms.exchanged(terms.client)
            + terms.uploads(terms.population.server_update_interval)
            + terms.aligned()
        )

    def step_server(self, t: int, upload: Upload) -> BatchLoss:
        """Step the server on an upload, and keep the upload for alignment."""
        self.alignment.store(upload.client, upload.z, upload.y)
        return super().step_server(t, upload)

    def _align(self, client: int, t: int) -> Weights:
        return self.alignment.align(client, t, self.server, initially=self.auxiliary)

    def gradient_error(self, t: int, clients: Collection[int]) -> float | None:
        """See `Algorithm.gradient_error`: on the clients' rings, against the server as it is now."""
        return self.alignment.error(clients, t, self.server)

    def auxiliary_weights(self) -> dict[str, Weights]:
        aligned = self.alignment.auxiliary_weights()
        if not aligned:  # the run ended in its warm start
            return super().auxiliary_weights()
        return {f"auxiliary-{client}": weights for client, weights in aligned.items()}

    def state(self) -> State:
        return super().state() | {"alignment": self.alignment.state()}

    def load_state(self, state: State) -> None:
        super().load_state(state)
        self.alignment.load_state(state["alignment"])
