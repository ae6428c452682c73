"""The task in BlazeFL, clients one after the other: `python blaze_fl.py TASK`."""

import sys
import time
from collections.abc import Iterator

import torch
from blazefl.contrib.fedavg import (
    FedAvgBaseClientTrainer,
    FedAvgBaseServerHandler,
    FedAvgPartitionType,
)
from shared import PeerTask, prepare, tell
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler, TensorDataset


class EpochOrders(Sampler[int]):
    """Samples in the order of each epoch in turn.

    Args:
        order: indices `(epochs, m)`.
    """

    def __init__(self, order: Tensor) -> None:
        self._order, self._epochs = order, iter(order.tolist())

    def __iter__(self) -> Iterator[int]:
        """The next epoch's indices."""
        return iter(next(self._epochs))

    def __len__(self) -> int:
        """Samples of an epoch."""
        return self._order.shape[1]


class Ordered:
    """Samples of each client, in the order of the round."""

    def __init__(self, task: PeerTask) -> None:
        self.task, self.samples = task, TensorDataset(task.x, task.y)
        self.round = 0

    def get_dataloader(
        self, type_: FedAvgPartitionType, cid: int, batch_size: int, generator: torch.Generator
    ) -> DataLoader[tuple[Tensor, ...]]:
        """Batches of a client; nothing is drawn."""
        return DataLoader(self.samples, batch_size, sampler=EpochOrders(self.task.order(self.round, cid)))


class Selector:
    """Gives the one model that there is."""

    def __init__(self, task: PeerTask) -> None:
        self.task = task

    def select_model(self, model_name: str) -> nn.Module:
        """The model at the start."""
        return self.task.model()


def main(folder: str) -> None:
    """Train all rounds."""
    prepare()
    task = PeerTask.load(folder)
    data = Ordered(task)
    common = {
        "model_selector": Selector(task),
        "model_name": task.model_name,
        "dataset": data,
        "device": "cpu",
    }
    common |= {"num_clients": task.clients, "batch_size": task.batch_size, "seed": 0}
    ratio = (task.cohort_size + 0.5) / task.clients  # rounded down there
    server = FedAvgBaseServerHandler(**common, global_round=task.rounds, sample_ratio=ratio)
    clients = FedAvgBaseClientTrainer(**common, epochs=task.epochs, lr=task.learning_rate)
    seconds = []
    for data.round, cohort in enumerate(task.cohorts):
        start = time.perf_counter()
        clients.local_process(server.downlink_package(), cohort)
        for package in clients.uplink_package():
            server.load(package)
        seconds.append(time.perf_counter() - start)
    tell(task, dict(server.model.named_parameters()), seconds)


if __name__ == "__main__":
    main(sys.argv[1])
