"""The floor: plain centralised PyTorch over the same number of samples, preloaded, in one process."""

import copy
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.plain_loops import PlainLoop
from fedsplit.parts import Parts

if TYPE_CHECKING:
    from fedsplit.experiment import Experiment

LARGE = 128
"""The large batch of a floor that a small network prefers to its clients' own."""

Optimizer = Callable[[nn.Module], torch.optim.Optimizer]


class Floor:
    """A plain loop over as many samples as an algorithm's round passes through each part of the model.

    The client model and what trains it (the server model, or the auxiliary model) see every sample of the
    round; a server that is only sent some uploads sees those.

    Args:
        parts: whose modules and data it works on.
        algorithm: whose passes it makes.
        batch: samples of a step.
        optimizer: of everything that is trained.
    """

    def __init__(self, parts: Parts, algorithm: str, batch: int, optimizer: Optimizer) -> None:
        halves, auxiliary = parts.models.halves, parts.models.auxiliary
        self.client, self.server = copy.deepcopy(halves.client), copy.deepcopy(halves.server)
        self.head = self.server if auxiliary is None else copy.deepcopy(auxiliary)
        if algorithm == "fsl_sage":  # its clients leave the auxiliary model alone
            self.head.requires_grad_(False)
        self.steppers = [optimizer(self.client), *([] if algorithm == "fsl_sage" else [optimizer(self.head)])]
        drawn = [each for i in range(len(parts.shards)) for each in parts.batches(i).round(0)]
        x, y = torch.cat([x for _, x, _ in drawn]), torch.cat([y for _, _, y in drawn])
        x = x.contiguous(memory_format=torch.channels_last)
        self.batches = list(zip(x.split(batch), y.split(batch), strict=True))
        self.uploads: list[tuple[Tensor, Tensor]] = []
        if auxiliary is not None:
            self.server_stepper = optimizer(self.server)
            q = parts.config["algorithm"]["server_update_interval"]
            with torch.no_grad():
                self.uploads = [(self.client(x), y) for step, x, y in drawn if step % q == 0]

    def __call__(self) -> None:
        for x, y in self.batches:
            for stepper in self.steppers:
                stepper.zero_grad()
            F.cross_entropy(self.head(self.client(x)), y).backward()
            for stepper in self.steppers:
                stepper.step()
        for z, y in self.uploads:
            self.server_stepper.zero_grad()
            F.cross_entropy(self.server(z), y).backward()
            self.server_stepper.step()


class LoadedLoop(PlainLoop):
    """A plain loop over clients that reads every client's data with a `DataLoader`, as most code does."""

    def __init__(self, experiment: "Experiment", optimizer: Callable[..., torch.optim.Optimizer]) -> None:
        super().__init__(experiment, optimizer)
        images = experiment.parts.dataset.train
        self._samples = TensorDataset(experiment.parts.normalise(images.pixels), images.labels)

    def batches(self, t: int, client: int) -> Iterator[Any]:
        """The batches that the experiment draws, collated sample by sample."""
        batches = self.experiment.parts.batches(client)
        (order,) = batches.permutations(t)
        pieces = batches.indices[order].split(batches.sizes()[0])
        loader = DataLoader(self._samples, batch_sampler=[piece.tolist() for piece in pieces])
        for step, (x, y) in enumerate(loader):
            yield step, x, y
