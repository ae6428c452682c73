"""The task as an app of Flower, which `flower.py` lets it run."""

import json
import time
from functools import cache
from itertools import pairwise
from pathlib import Path

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from shared import PeerTask, prepare

client = ClientApp()
server = ServerApp()


@cache
def task_at(path: str) -> PeerTask:
    """The task, read once in each process."""
    prepare()
    return PeerTask.load(path)


@client.train()
def train(message: Message, context: Context) -> Message:
    """One local epoch of the client that the node stands for."""
    config = message.content["config"]
    task = task_at(str(config["task"]))
    order = task.orders[int(config["server-round"]) - 1][int(context.node_config["partition-id"])]
    model = task.model()
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    task.local_epoch(model, task.x[order], task.y[order])
    metrics = MetricRecord({"num-examples": len(order)})
    return Message(
        content=RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics}),
        reply_to=message,
    )


@server.main()
def main(grid: Grid, context: Context) -> None:
    """All rounds; what `flower.py` reads is written at the end."""
    path = str(context.run_config["task"])
    task, times = task_at(path), list[float]()

    def noted(_: int, __: ArrayRecord) -> None:
        times.append(time.perf_counter())

    strategy = FedAvg(fraction_train=1.0, fraction_evaluate=0.0, min_available_nodes=task.clients)
    result = strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(task.model().state_dict()),
        num_rounds=len(task.orders),
        train_config=ConfigRecord({"task": path}),
        evaluate_fn=noted,
    )
    weights = [each.tolist() for each in result.arrays.to_torch_state_dict().values()]
    seconds = [after - before for before, after in pairwise(times)]
    left = Path(path).with_suffix(".flower.json")
    partial = left.with_suffix(".partial")
    partial.write_text(json.dumps({"seconds": seconds, "weights": weights}))
    partial.rename(left)  # who waits for it finds it whole
