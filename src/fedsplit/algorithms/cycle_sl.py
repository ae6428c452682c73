"""The algorithm CycleSL: a server that steps on shuffled smashed data before it gives gradients."""

from collections.abc import Mapping, Sequence

from torch import Tensor
from typing_extensions import override

from fedsplit.algorithms.algorithm import Start
from fedsplit.algorithms.minibatch_sfl import MinibatchSfl
from fedsplit.algorithms.pooling import pool_uploads, shuffle
from fedsplit.network.timelines.cycle_sl import CycleSlTimeline
from fedsplit.parties.messages import BatchLoss, Upload
from fedsplit.randomness import generator, seed_of


class CycleSl(MinibatchSfl):
    """CycleSL: the server trains on resampled smashed data, and then gives cut gradients with what it became.

    At each step the smashed data of all clients are shuffled, and the server steps on them in as many
    mini-batches as there are clients. Each client's cut gradient is then that of its own batch's mean loss at
    the updated server, which is left as it is meanwhile, its running statistics included. Of the variants
    that the paper composes this is the one with averaged client models; it leaves the number of passes over
    a step's smashed data open, and one is taken.

    Source: M. Wang, E. Bozkir and E. Kasneci, "CycleSL: Server-Client Cyclical Update Driven Scalable Split
    Learning", 2025 (arXiv 2511.18611).
    """

    timeline = CycleSlTimeline()
    label = "CycleSL"
    place = 7

    def __init__(self, start: Start) -> None:
        super().__init__(start, scale="own")

    @override
    def step_server(self, t: int, uploads: Sequence[Upload]) -> tuple[list[BatchLoss], Mapping[int, Tensor]]:
        """Step the server on shuffled mini-batches of a local step; then the cut gradients, by client."""
        draw = generator(self.seed, "resampled smashed data", round=t, step=uploads[0].step)
        batches = shuffle(pool_uploads(uploads, self.padding), len(uploads), draw)
        losses = [
            self.server.step(t, Upload(upload.client, upload.step, batch.z, batch.y))[0]
            for upload, batch in zip(uploads, batches, strict=True)
        ]
        return losses, {upload.client: self._cut_gradient(t, upload) for upload in uploads}

    def _cut_gradient(self, t: int, upload: Upload) -> Tensor:
        dropout = seed_of(
            self.seed, "dropout of cut gradients", client=upload.client, round=t, step=upload.step
        )
        return self.server.cut_gradients(upload.z, upload.y, seed=dropout) / self.server.terms(upload.y)
