"""Parallel split learning on the clients' batches together."""

from collections.abc import Mapping, Sequence
from itertools import count
from typing import Literal

import torch
from torch import Tensor
from typing_extensions import override

from fedsplit.algorithms.algorithm import Algorithm, RoundMetrics, Start
from fedsplit.algorithms.pooling import pool_uploads, pooled_loss
from fedsplit.algorithms.round_load import RoundLoad
from fedsplit.network.timelines.minibatch_sfl import MinibatchSflTimeline
from fedsplit.parties.cohort import Cohort
from fedsplit.parties.messages import BatchLoss, Upload
from fedsplit.state.weights import average


class MinibatchSfl(Algorithm):
    """Parallel split learning with averaging: at each step the server steps on all clients' batches together.

    Each client gets its rows of the gradient of the mean loss over all samples of the step. Papers leave open
    of which mean a client descends the gradient; scaled to its own batch's (`scale=own`), client models move
    as far in a step as in SplitFed, however many clients there are. Clients that have no more batches in a
    round are not waited for. Client models are averaged at the end of the round.

    Source: J. Jeon and J. Kim, "Privacy-Sensitive Parallel Split Learning", 2020, for the server's step; the
    averages are SplitFed's.

    Args:
        start: starting point of the algorithm.
        scale: `own`: a client's cut gradient is of its own batch's mean loss; `union`: of that of all.
    """

    client_head = "none"
    timeline = MinibatchSflTimeline()
    label = "Minibatch SFL"
    place = 6

    def __init__(self, start: Start, *, scale: Literal["own", "union"]) -> None:
        super().__init__(start)
        self.scale = scale

    @staticmethod
    @override
    def round_load(terms: RoundLoad) -> float:
        return terms.exchange(terms.client) + terms.uploads() + terms.cut_gradients()

    @override
    def run_round(self, t: int, cohort: Cohort) -> RoundMetrics:
        cohort.install("client", self.client_weights)
        losses: list[BatchLoss] = []
        for step in count():
            uploads = list(cohort.forward(step))
            if not uploads:
                break
            step_losses, dz = self.step_server(t, uploads)
            losses += step_losses
            cohort.backward(step, dz)
        self.client_weights = average(cohort.weights("client"), cohort.sample_counts)
        return RoundMetrics(train_loss=pooled_loss(losses))

    def step_server(self, t: int, uploads: Sequence[Upload]) -> tuple[list[BatchLoss], Mapping[int, Tensor]]:
        """Step the server on the uploads of a local step; its losses, and each client's cut gradient."""
        pool = pool_uploads(uploads, self.padding)
        loss, dz = self.server.step(t, pool)
        split = zip(uploads, torch.split(dz, [len(upload.y) for upload in uploads]), strict=True)
        rows = [
            (upload, gradient[:, : upload.z.shape[1]]) for upload, gradient in split
        ]  # texts without others' padding
        if self.scale == "union":
            return [loss], {upload.client: gradient for upload, gradient in rows}
        terms = self.server.terms
        return [loss], {
            upload.client: gradient * (terms(pool.y) / terms(upload.y)) for upload, gradient in rows
        }
