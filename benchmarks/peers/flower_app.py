"""The task as an app of Flower, which `flower.py` lets it run."""

import time
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from shared import PeerTask, prepare

client = ClientApp()
server = ServerApp()


@cache
def task_at(folder: str) -> PeerTask:
    """The task, read once in each process."""
    prepare()
    return PeerTask.load(folder)


@client.train()
def train(message: Message, context: Context) -> Message:
    """Local epochs of the client that the server names."""
    config = message.content["config"]
    task = task_at(str(config["task"]))
    model = task.model()
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    samples = task.train(model, int(config["server-round"]) - 1, int(config["client"]))
    metrics = MetricRecord({"num-examples": samples})
    return Message(
        content=RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics}),
        reply_to=message,
    )


class Assigning(FedAvg):
    """FedAvg that tells each node that it draws which client of the task's cohort the node stands for.

    Args:
        task: with the cohorts.
    """

    def __init__(self, task: PeerTask) -> None:
        super().__init__(
            fraction_train=task.cohort_size / task.clients,
            fraction_evaluate=0.0,
            min_train_nodes=task.cohort_size,
            min_available_nodes=task.clients,
        )
        self.task = task

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Messages of the round, each with a client's number."""
        drawn = super().configure_train(server_round, arrays, config, grid)
        return [
            Message(
                content=RecordDict({"arrays": arrays, "config": ConfigRecord({**config, "client": number})}),
                message_type=message.metadata.message_type,
                dst_node_id=message.metadata.dst_node_id,
            )
            for message, number in zip(drawn, self.task.cohorts[server_round - 1], strict=True)
        ]


@server.main()
def main(grid: Grid, context: Context) -> None:
    """Train all rounds; what `flower.py` reads is written at the end."""
    folder = str(context.run_config["task"])
    task, times = task_at(folder), list[float]()

    def noted(_: int, __: ArrayRecord) -> None:
        times.append(time.perf_counter())

    result = Assigning(task).start(
        grid=grid,
        initial_arrays=ArrayRecord(task.model().state_dict()),
        num_rounds=task.rounds,
        train_config=ConfigRecord({"task": folder}),
        evaluate_fn=noted,
    )
    found = {name: each.numpy() for name, each in result.arrays.to_torch_state_dict().items()}
    partial = Path(folder, "partial.npz")
    np.savez(partial, seconds=np.diff(times), **found)
    partial.rename(Path(folder, "flower.npz"))  # who waits for it finds it whole
