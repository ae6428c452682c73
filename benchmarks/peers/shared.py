"""What drivers of all frameworks share: the task as a file, the model, and what is told at the end.

It imports torch and numpy alone, for each framework has an environment of its own.
"""

import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class PeerTask:
    """FedAvg, to the batch.

    Args:
        x: training samples `(n, ...)`, normalised.
        y: their labels.
        orders: for each round and client, the indices of its samples in the order in which it trains on them.
        test_x: test samples.
        test_y: their labels.
        weights: of the model at the start, in the order of its state dict.
        batch_size: samples of a step.
        learning_rate: of plain SGD.
    """

    x: Tensor
    y: Tensor
    orders: Sequence[Sequence[Tensor]]
    test_x: Tensor
    test_y: Tensor
    weights: Sequence[Tensor]
    batch_size: int
    learning_rate: float

    @property
    def clients(self) -> int:
        """Number of clients, all of which take part in every round."""
        return len(self.orders[0])

    def save(self, path: Path) -> None:
        """Write it as arrays, without pickle."""
        counts = np.array([[len(own) for own in order] for order in self.orders])
        arrays = {f"weights.{number}": each.numpy() for number, each in enumerate(self.weights)}
        flat = torch.cat([own for order in self.orders for own in order]).numpy()
        np.savez(
            path,
            allow_pickle=False,
            x=self.x.numpy(),
            y=self.y.numpy(),
            orders=flat,
            counts=counts,
            test_x=self.test_x.numpy(),
            test_y=self.test_y.numpy(),
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            **arrays,
        )

    @classmethod
    def load(cls, path: str) -> "PeerTask":
        """What `save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            found = {name: torch.from_numpy(file[name]) for name in file.files}
        counts = found["counts"]
        parts = iter(found["orders"].split(counts.flatten().tolist()))
        return cls(
            x=found["x"],
            y=found["y"],
            orders=[[next(parts) for _ in row] for row in counts],
            test_x=found["test_x"],
            test_y=found["test_y"],
            weights=[
                found[f"weights.{number}"] for number in range(sum("weights" in name for name in found))
            ],
            batch_size=int(found["batch_size"]),
            learning_rate=float(found["learning_rate"]),
        )

    def model(self) -> nn.Module:
        """The model at the start: an MLP of 64 hidden units."""
        layers = {"flatten": nn.Flatten(), "fc1": nn.Linear(self.x[0].numel(), 64), "relu": nn.ReLU()}
        model = nn.Sequential(OrderedDict(layers, fc2=nn.Linear(64, 10)))
        model.load_state_dict(dict(zip(model.state_dict(), self.weights, strict=True)))
        return model

    def local_epoch(self, model: nn.Module, x: Tensor, y: Tensor) -> None:
        """One epoch of plain SGD on a client's samples, in their order."""
        optimizer = torch.optim.SGD(model.parameters(), lr=self.learning_rate)
        for own_x, own_y in zip(x.split(self.batch_size), y.split(self.batch_size), strict=True):
            optimizer.zero_grad()
            F.cross_entropy(model(own_x), own_y).backward()
            optimizer.step()


def prepare() -> None:
    """One thread, as every side has."""
    torch.set_num_threads(1)


def tell(task: PeerTask, weights: Sequence[Tensor], seconds: Sequence[float]) -> None:
    """Print what `run.py` reads, as the last line: seconds of rounds, and the test loss after the last."""
    model = task.model()
    model.load_state_dict(dict(zip(model.state_dict(), weights, strict=True)))
    with torch.no_grad():
        loss = float(F.cross_entropy(model(task.test_x), task.test_y))
    print(json.dumps({"seconds": list(seconds), "loss": loss}))
