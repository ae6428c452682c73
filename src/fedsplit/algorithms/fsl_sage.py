"""The algorithm FSL-SAGE: clients descend along estimated cut gradients."""

from collections.abc import Collection, Mapping
from math import isfinite
from typing import Literal, TypeAlias

from torch import Tensor
from typing_extensions import override

from fedsplit.algorithms.algorithm import RoundMetrics, Start
from fedsplit.algorithms.cse_fsl import CseFsl
from fedsplit.algorithms.round_load import RoundLoad
from fedsplit.config.values import NonNegativeFloat, NonNegativeInt, PositiveInt
from fedsplit.errors import UserError
from fedsplit.estimators.alignment import SquaredError
from fedsplit.estimators.estimator import Chunk
from fedsplit.network.timelines.fsl_sage import FslSageTimeline
from fedsplit.parties.cohort import Cohort
from fedsplit.parties.loss import mean_loss
from fedsplit.parties.messages import BatchLoss, LocalWork, Upload
from fedsplit.state.state import State
from fedsplit.state.weights import Weights, average

AlignWhen: TypeAlias = Literal["interval", "error", "geometric"]


class FslSage(CseFsl):
    """FSL-SAGE: clients descend along estimated cut gradients; the server aligns the estimators.

    A client aligns when it first takes part, and then when `align_when` says, at most once a round:

    - `interval`: at its first participation at least `align_interval` rounds after its last alignment;
    - `geometric`: at its first participation once the run is twice as old as it was then, so in rounds 0, 1,
      3, 7, ...: the server model changes most in the beginning;
    - `error`: at its first participation after a round in which the relative squared error of its estimates
      was above `align_error`. The server measures it on each upload but those that go before an alignment, as
      it has the true cut gradient and a copy of the auxiliary model: no byte is sent for it. Where a round
      has no other upload, it measures on the client's ring.

    The last two are not of the paper. In an alignment, the server first steps on the first batches of
    all aligning clients, and is then left alone while their auxiliary models are fitted, so that
    clients do not depend on each other. (The published code aligns one client after another, each
    on a server that earlier clients have moved.)

    Source: S. Nair et al., "FSL-SAGE: Accelerating Federated Split Learning via Smashed Activation
    Gradient Estimation", 2025.

    Args:
        start: starting point of the algorithm.
        server_update_interval: q; clients upload at local steps 0, q, 2q, ... of each round.
        align_when: rule by which a client aligns.
        align_interval: l; rounds between two alignments of a client, with `align_when=interval`.
        align_error: relative squared error above which a client aligns, with `align_when=error`; None: never.
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
        align_when: AlignWhen,
        align_interval: PositiveInt,
        align_error: NonNegativeFloat | None,
        warm_start: NonNegativeInt,
    ) -> None:
        super().__init__(start, server_update_interval=server_update_interval)
        if warm_start and not start.alignment.estimator.trains_on_loss:
            message = "must be 0: this estimator has no loss of its own to train on"
            raise UserError("warm_start", warm_start, message)
        self.align_when, self.align_interval = align_when, align_interval
        self.align_error = align_error
        self._errors: dict[int, float] = {}
        """Relative squared errors of estimates in each client's last round; 0 where there is no gradient."""
        self.warm_start = warm_start
        self.alignment = start.alignment

    @property
    @override
    def trains_head(self) -> bool:
        return self.warm_start > 0

    @override
    def run_round(self, t: int, cohort: Cohort) -> RoundMetrics:
        if t < self.warm_start:
            return super().run_round(t, cohort)
        losses: list[BatchLoss] = []
        self.alignment.enter(cohort.clients)
        for client in self.alignment.dropped_clients:
            self._errors.pop(client, None)

        cohort.install("client", self.client_weights)
        due = [client for client in cohort.clients if self.is_due(client, t)]
        if due:
            aligning = cohort.select(due)
            losses += [self.step_server(t, upload) for upload in aligning.forward(0)]
            auxiliary_weights = self.alignment.align_many(due, t, self.server, initially=self.auxiliary)
            aligning.install_own("auxiliary", auxiliary_weights)
        interval = self.server_update_interval
        work = LocalWork(train_head=False, upload_interval=interval, skip_first_upload=due)
        locally = cohort.train_local(work)
        errors: dict[int, SquaredError] = {}
        for upload in locally.uploads:
            loss, dz = self._step_server(t, upload)
            losses.append(loss)
            if self.align_when == "error":
                error = self._error(t, upload, dz)
                errors[upload.client] = errors.get(upload.client, SquaredError()) + error
        self._note_errors(t, cohort, errors)

        self.client_weights = average(cohort.weights("client"), cohort.sample_counts)
        return RoundMetrics(train_loss=mean_loss(losses))

    @staticmethod
    @override
    def round_load(terms: RoundLoad) -> float:
        return (
            terms.exchange(terms.client)
            + terms.uploads(terms.population.server_update_interval)
            + terms.alignment_downloads()
        )

    def is_due(self, client: int, t: int) -> bool:
        """True if a client that takes part in round `t` aligns in it."""
        last_round = self.alignment.last_round(client)
        if last_round is None or self.align_when == "interval":
            return self.alignment.is_due(client, t, self.align_interval)
        if self.align_when == "geometric":
            return t + 1 >= 2 * (last_round + 1)
        return self.align_error is not None and self._errors[client] > self.align_error

    @override
    def step_server(self, t: int, upload: Upload) -> BatchLoss:
        return self._step_server(t, upload)[0]

    def _step_server(self, t: int, upload: Upload) -> tuple[BatchLoss, Tensor]:
        """Step the server on an upload, and keep the upload for alignment; loss and cut gradient."""
        self.alignment.store(upload.client, upload.z, upload.y)
        return self.server.step(t, upload)

    def _error(self, t: int, upload: Upload, dz: Tensor) -> SquaredError:
        of_samples = Chunk(upload.z, upload.y, dz * self.server.terms(upload.y))
        return self.alignment.squared_error(upload.client, of_samples, round=t, step=upload.step)

    def _note_errors(self, t: int, cohort: Cohort, errors: Mapping[int, SquaredError]) -> None:
        """Keep the errors of a round; a client whose uploads showed none is measured on its ring."""
        if self.align_when != "error":
            return
        for client in cohort.clients:
            measured_error = errors.get(client)
            error = (
                measured_error.relative if measured_error else self.alignment.error([client], t, self.server)
            )
            self._errors[client] = error if error is not None and isfinite(error) else 0.0

    @override
    def gradient_error(self, t: int, clients: Collection[int]) -> float | None:
        return self.alignment.error(clients, t, self.server)

    @override
    def auxiliary_weights(self) -> dict[str, Weights]:
        auxiliaries = self.alignment.auxiliary_weights()
        if not auxiliaries:  # the run ended in its warm start
            return super().auxiliary_weights()
        return {f"auxiliary-{client}": weights for client, weights in auxiliaries.items()}

    @override
    def state(self) -> State:
        errors = {str(client): error for client, error in self._errors.items()}
        return super().state() | {"alignment": self.alignment.state(), "errors": errors}

    @override
    def load_state(self, state: State) -> None:
        super().load_state(state)
        self.alignment.load_state(state["alignment"])
        self._errors = {int(client): float(error) for client, error in state["errors"].items()}
