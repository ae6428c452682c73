"""The task in BlazeFL, clients one after the other: `python blaze_fl.py TASK`."""

import sys
import time

import torch
from blazefl.contrib.fedavg import (
    FedAvgBaseClientTrainer,
    FedAvgBaseServerHandler,
    FedAvgPartitionType,
)
from shared import PeerTask, prepare, tell
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Ordered:
    """Samples of each client, in the order of the round."""

    def __init__(self, task: PeerTask) -> None:
        self.task, self.round = task, 0

    def get_dataloader(
        self, type_: FedAvgPartitionType, cid: int, batch_size: int, generator: torch.Generator
    ) -> DataLoader[tuple[torch.Tensor, ...]]:
        """Batches of a client; nothing is drawn."""
        order = self.task.orders[self.round][cid]
        return DataLoader(TensorDataset(self.task.x[order], self.task.y[order]), batch_size=batch_size)


class Selector:
    """Gives the one model that there is."""

    def __init__(self, task: PeerTask) -> None:
        self.task = task

    def select_model(self, model_name: str) -> nn.Module:
        """The model at the start."""
        return self.task.model()


def main(path: str) -> None:
    """Train all rounds."""
    prepare()
    task = PeerTask.load(path)
    data, rounds = Ordered(task), len(task.orders)
    common = {"model_selector": Selector(task), "model_name": "mlp", "dataset": data, "device": "cpu"}
    common |= {"num_clients": task.clients, "batch_size": task.batch_size, "seed": 0}
    server = FedAvgBaseServerHandler(**common, global_round=rounds, sample_ratio=1.0)
    clients = FedAvgBaseClientTrainer(**common, epochs=1, lr=task.learning_rate)
    seconds = []
    for data.round in range(rounds):
        start = time.perf_counter()
        clients.local_process(server.downlink_package(), server.sample_clients())
        for package in clients.uplink_package():
            server.load(package)
        seconds.append(time.perf_counter() - start)
    tell(task, [each.detach() for each in server.model.parameters()], seconds)


if __name__ == "__main__":
    main(sys.argv[1])
