"""The algorithm Ampere: device rounds, then one upload, then a server that trains alone."""

from dataclasses import dataclass
from itertools import count

from typing_extensions import override

from fedsplit.algorithms.algorithm import Exposure, RoundMetrics, Start
from fedsplit.algorithms.local_loss import LocalLoss
from fedsplit.algorithms.pooling import pool_uploads, pooled_loss, shuffle
from fedsplit.algorithms.round_load import RoundLoad
from fedsplit.config.values import PositiveInt
from fedsplit.network.timelines.ampere import AmpereTimeline
from fedsplit.parties.cohort import Cohort
from fedsplit.parties.loss import mean_loss
from fedsplit.parties.messages import Upload
from fedsplit.randomness import generator
from fedsplit.state.settled import SettledTensors
from fedsplit.state.state import State
from fedsplit.state.weights import Weights


class Ampere(LocalLoss):
    """Ampere: federated training of client and auxiliary model, then training of the server model alone.

    For `device_rounds` rounds clients train client and auxiliary model on the auxiliary loss, and both are
    averaged. Client models then stay as they are. Every client that takes part uploads, once, the smashed
    data of all its samples, as models are evaluated: with running statistics, and without augmentation. In
    each round from then on, the server goes once through all that was uploaded, shuffled. Until it has begun,
    the model to evaluate is client and auxiliary model.

    The paper trains devices until they converge; here the number of rounds is given. It lets all clients
    upload at the end of that; of a cohort that is drawn, each does in its first round after that. Its server
    takes mini-batches of a size of its own; here there are as many as the clients uploaded.

    Source: Z. Zhang, L. Wong and B. Varghese, "Ampere: Communication-Efficient and High-Accuracy Split
    Federated Learning", 2025 (arXiv 2507.07130).

    Args:
        start: starting point of the algorithm.
        device_rounds: rounds of federated training of client and auxiliary model.
    """

    timeline = AmpereTimeline()
    label = "Ampere"
    place = 9

    def __init__(self, start: Start, *, device_rounds: PositiveInt) -> None:
        super().__init__(start)
        self.device_rounds = device_rounds
        self.memory = start.alignment.memory
        self.uploads: dict[int, Uploads] = {}
        """Uploads of each round, by its number."""

    @override
    def evaluated_auxiliary(self) -> Weights | None:
        return None if self.uploads else self.auxiliary

    @override
    def run_round(self, t: int, cohort: Cohort) -> RoundMetrics:
        if t < self.device_rounds:
            locally = self.train_clients(cohort)
            self.average_clients(cohort)
            return RoundMetrics(train_loss=mean_loss(locally.losses))
        self.collect(t, cohort)
        pools = [uploads.pool for uploads in self.uploads.values()]
        pool = pools[0] if len(pools) == 1 else pool_uploads(pools, self.padding)
        draw = generator(self.seed, "uploaded smashed data", round=t)
        batches = shuffle(pool, sum(uploads.batches for uploads in self.uploads.values()), draw)
        losses = [self.server.step(t, batch)[0] for batch in batches]
        self.samples_at_rest = len(pool.y)
        return RoundMetrics(train_loss=pooled_loss(losses))

    @staticmethod
    @override
    def round_load(terms: RoundLoad) -> float:
        """Bytes of a round of federated training; one round of uploads follows these rounds."""
        return terms.exchange(terms.client) + terms.exchange(terms.auxiliary)

    def collect(self, t: int, cohort: Cohort) -> None:
        """Let those clients of a cohort upload that have not yet."""
        earlier_clients = {client for uploads in self.uploads.values() for client in uploads.clients}
        new_clients = [client for client in cohort.clients if client not in earlier_clients]
        if not new_clients:
            return
        uploading = cohort.select(new_clients)
        uploading.install("client", self.client_weights)
        uploads: list[Upload] = []
        for step in count():
            batch_uploads = uploading.forward(step, evaluating=True)
            if not batch_uploads:
                break
            uploads += batch_uploads
        pool = pool_uploads(uploads, self.padding)
        samples = self.memory.keep({"z": pool.z, "y": pool.y})
        self.uploads[t] = Uploads(new_clients, len(uploads), SettledTensors(samples))

    @override
    def exposure(self, t: int, client: int, *, steps: int, epochs: int) -> Exposure:
        if t < self.device_rounds:
            return Exposure((), range(steps))
        uploaded = t in self.uploads and client in self.uploads[t].clients
        return Exposure(range(steps // epochs) if uploaded else (), ())

    @override
    def state(self) -> State:
        uploads = {
            str(t): {"clients": uploads.clients, "batches": uploads.batches, "samples": uploads.samples}
            for t, uploads in self.uploads.items()
        }
        return super().state() | {"uploads": uploads}

    @override
    def load_state(self, state: State) -> None:
        super().load_state(state)
        device = next(iter(self.server.weights().values())).device
        self.uploads = {
            int(t): Uploads(
                each["clients"],
                each["batches"],
                SettledTensors({name: tensor.to(device) for name, tensor in each["samples"].items()}),
            )
            for t, each in state["uploads"].items()
        }


@dataclass(frozen=True)
class Uploads:
    """Smashed data and labels that clients uploaded in one round.

    Args:
        clients: numbers of the clients that uploaded.
        batches: number of batches that they uploaded.
        samples: smashed data `z (n, ...)` and labels `y (n,)` of all of them.
    """

    clients: list[int]
    batches: int
    samples: SettledTensors

    @property
    def pool(self) -> Upload:
        """All uploads of the round as one."""
        return Upload(self.clients[0], 0, self.samples["z"], self.samples["y"])
