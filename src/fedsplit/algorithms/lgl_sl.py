"""The algorithm of local-loss-based split learning with a server copy for each client."""

from itertools import groupby

from typing_extensions import override

from fedsplit.algorithms.algorithm import Exposure, RoundMetrics
from fedsplit.algorithms.copied_server import CopiedServer
from fedsplit.algorithms.local_loss import LocalLoss
from fedsplit.algorithms.round_load import RoundLoad
from fedsplit.network.timelines.lgl_sl import LglSlTimeline
from fedsplit.parties.cohort import Cohort
from fedsplit.parties.loss import mean_loss
from fedsplit.parties.messages import BatchLoss


class LglSl(CopiedServer, LocalLoss):
    """Local-loss-based split learning: clients upload every batch to a server copy of their own.

    Client and auxiliary model step on the auxiliary model's loss alone; each client's own copy of the server
    model steps on what it uploads. Client models, auxiliary models and copies are averaged at the end of the
    round. Clients are those of CSE-FSL. Where the paper leaves open what becomes of the copies' optimizers,
    each keeps its state, as everybody's does here.

    Source: D.-J. Han et al., "Accelerating Federated Learning with Split Learning on Locally Generated
    Losses", FL-ICML 2021.
    """

    copies_server = True
    timeline = LglSlTimeline()
    label = "LGL-SL"
    place = 8

    @override
    def run_round(self, t: int, cohort: Cohort) -> RoundMetrics:
        self.load_copies(cohort)
        locally = self.train_clients(cohort, upload_interval=1, in_order=False)
        globally: list[BatchLoss] = []
        for _, uploads in groupby(locally.uploads, key=lambda upload: upload.step):
            globally += self.copies.step(t, list(uploads))[0]
        self.average_clients(cohort)
        self.average_copies(cohort)
        mean_loss(locally.losses)  # raises where a client's own loss is no longer finite
        return RoundMetrics(train_loss=mean_loss(globally))

    @staticmethod
    @override
    def round_load(terms: RoundLoad) -> float:
        return terms.exchange(terms.client) + terms.uploads() + terms.exchange(terms.auxiliary)

    @override
    def exposure(self, t: int, client: int, *, steps: int, epochs: int) -> Exposure:
        return Exposure(range(steps), range(steps))
