"""What drivers of all frameworks share: the task as a folder, its model, and what is told at the end.

It imports torch and numpy alone, for each framework has an environment of its own.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from models import MODELS
from torch import Tensor, nn


@dataclass(frozen=True)
class PeerTask:
    """FedAvg, to the batch.

    Args:
        model_name: one of `MODELS`.
        weights: of the model at the start, parameters and buffers by name.
        x: training samples `(n, ...)`, normalised.
        y: their labels.
        test_x: test samples.
        test_y: their labels.
        classes: number of classes.
        clients: number of clients.
        cohorts: for each round, the clients that take part.
        orders: for each round and client of its cohort, indices `(epochs, m)` of the client's samples in the
            order in which each local epoch trains on them.
        batch_size: samples of a step.
        learning_rate: of plain SGD.
    """

    model_name: str
    weights: Mapping[str, Tensor]
    x: Tensor
    y: Tensor
    test_x: Tensor
    test_y: Tensor
    classes: int
    clients: int
    cohorts: Sequence[Sequence[int]]
    orders: Sequence[Sequence[Tensor]]
    batch_size: int
    learning_rate: float

    @property
    def rounds(self) -> int:
        """Number of rounds."""
        return len(self.cohorts)

    @property
    def cohort_size(self) -> int:
        """Clients of a round."""
        return len(self.cohorts[0])

    @property
    def epochs(self) -> int:
        """Local epochs of a round."""
        return len(self.orders[0][0])

    def order(self, t: int, client: int) -> Tensor:
        """Indices `(epochs, m)` of a client's samples in round `t`."""
        return self.orders[t][self.cohorts[t].index(client)]

    def samples(self, order: Tensor) -> tuple[Tensor, Tensor]:
        """Samples and labels of a client in the order of an epoch."""
        return self.x[order], self.y[order]

    def save(self, folder: Path) -> None:
        """Write it as arrays, without pickle."""
        arrays = {"x": self.x, "y": self.y, "test_x": self.test_x, "test_y": self.test_y}
        for name, tensor in arrays.items():
            np.save(folder / f"{name}.npy", tensor.numpy(), allow_pickle=False)
        flat = torch.cat([own.flatten() for orders in self.orders for own in orders])
        np.save(folder / "orders.npy", flat.numpy(), allow_pickle=False)
        np.savez(folder / "weights.npz", **{name: each.numpy() for name, each in self.weights.items()})
        plain = {
            "model_name": self.model_name,
            "classes": self.classes,
            "clients": self.clients,
            "cohorts": [list(cohort) for cohort in self.cohorts],
            "epochs": self.epochs,
            "counts": [[own.shape[1] for own in orders] for orders in self.orders],
            "batch_size": self.batch_size,
            "learning_rate": self.learning_rate,
        }
        (folder / "task.json").write_text(json.dumps(plain))

    @classmethod
    def load(cls, folder: str) -> "PeerTask":
        """What `save` wrote; samples stay in mapped files, whose pages processes share."""

        def mapped(name: str) -> Tensor:
            # copy on write: torch warns of arrays that cannot be written
            return torch.from_numpy(np.load(Path(folder, f"{name}.npy"), mmap_mode="c", allow_pickle=False))

        plain = json.loads(Path(folder, "task.json").read_text())
        counts, epochs = plain.pop("counts"), plain.pop("epochs")
        sizes = [epochs * count for row in counts for count in row]
        parts = iter(torch.from_numpy(np.load(Path(folder, "orders.npy"), allow_pickle=False)).split(sizes))
        orders = [[next(parts).view(epochs, count) for count in row] for row in counts]
        with np.load(Path(folder, "weights.npz"), allow_pickle=False) as file:
            weights = {name: torch.from_numpy(file[name]) for name in file.files}
        arrays = {name: mapped(name) for name in ("x", "y", "test_x", "test_y")}
        return cls(**plain, **arrays, weights=weights, orders=orders)

    def model(self) -> nn.Module:
        """The model at the start, in training mode."""
        _, channels, size, _ = self.x.shape
        model = MODELS[self.model_name](num_classes=self.classes, channels=channels, image_size=size)
        model.load_state_dict(self.weights)
        return model

    def train(self, model: nn.Module, t: int, client: int) -> int:
        """Train for the local epochs of a client in round `t` by plain SGD; the number of its samples."""
        order = self.order(t, client)
        optimizer = torch.optim.SGD(model.parameters(), lr=self.learning_rate)
        for x, y in self.batches(order):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
        return order.shape[1]

    def batches(self, order: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of all local epochs, given in the order of `order`."""
        for epoch in order:
            x, y = self.samples(epoch)
            yield from zip(x.split(self.batch_size), y.split(self.batch_size), strict=True)

    @torch.no_grad()
    def test_loss(self, parameters: Mapping[str, Tensor]) -> float:
        """Mean loss over the test samples.

        Batch normalisation takes the statistics of the test samples themselves: only some frameworks average
        running statistics.

        Args:
            parameters: of the model, by name; buffers among them are left out.
        """
        model = self.model()
        for name, parameter in model.named_parameters():
            parameter.copy_(parameters[name])
        return float(F.cross_entropy(model(self.test_x), self.test_y))


def prepare() -> None:
    """Compute in one thread, as every side does."""
    torch.set_num_threads(1)


def tell(task: PeerTask, parameters: Mapping[str, Tensor], seconds: Sequence[float]) -> None:
    """Print what `run.py` reads, as the last line: seconds of rounds, and the test loss after the last."""
    print(json.dumps({"seconds": list(seconds), "loss": task.test_loss(parameters)}))
