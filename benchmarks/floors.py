"""The floor: plain centralised PyTorch over the same number of samples, preloaded, in one process."""

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset, TensorDataset

from fedsplit.building.parts import RunParts
from tests.oracles.plain_loops import PlainLoop, average_into

if TYPE_CHECKING:
    from fedsplit.training.experiment import Experiment

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

    def __init__(self, parts: RunParts, algorithm: str, batch: int, optimizer: Optimizer) -> None:
        halves, auxiliary = parts.models.halves, parts.models.auxiliary
        self.client, self.server = copy.deepcopy(halves.client), copy.deepcopy(halves.server)
        self.head = self.server if auxiliary is None else copy.deepcopy(auxiliary)
        if algorithm == "fsl_sage":  # its clients leave the auxiliary model alone
            self.head.requires_grad_(False)
        self.steppers = [optimizer(self.client), *([] if algorithm == "fsl_sage" else [optimizer(self.head)])]
        drawn = [each for i in range(len(parts.data.shards)) for each in parts.batches(i).round(0)]
        x, y = torch.cat([x for _, x, _ in drawn]), torch.cat([y for _, _, y in drawn])
        x = x.contiguous(memory_format=torch.channels_last)
        self.batches = list(zip(x.split(batch), y.split(batch), strict=True))
        self.uploads: list[tuple[Tensor, Tensor]] = []
        if auxiliary is not None:
            self.server_stepper = optimizer(self.server)
            q = int(str(parts.config.algorithm.arguments["server_update_interval"]))
            with torch.no_grad():
                self.uploads = [(self.client(x), y) for step, x, y in drawn if step % q == 0]

    def __call__(self) -> None:
        """Step clients and server once per batch, as a round does, and nothing else."""
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
    """FedAvg as most code has it: a copy of the model, an optimizer and a `DataLoader` a client and round.

    Args:
        experiment: whose weights and data it begins with.
        whole: the model, not split, as an ordinary module.
        optimizer: of each copy.
    """

    def __init__(
        self,
        experiment: "Experiment",
        whole: nn.Module,
        optimizer: Callable[..., torch.optim.Optimizer],
    ) -> None:
        super().__init__(experiment, optimizer)
        whole.load_state_dict(super().full_weights())
        self._whole = whole
        samples, every = experiment.parts.data.dataset.train, slice(None)
        self._samples = TensorDataset(samples.inputs_at(every), samples.labels_at(every))

    def fed_avg(self, t: int) -> None:
        """On the batches that the experiment draws, collated sample by sample."""
        trained = []
        for number in range(self.number):
            model = copy.deepcopy(self._whole)
            stepper = self.optimizer(model)
            batches = self.experiment.parts.batches(number)
            (order,) = batches.permutations(t)
            own = Subset(self._samples, batches.indices[order].tolist())
            for x, y in DataLoader(own, batch_size=self.experiment.config.training.batch_size):
                stepper.zero_grad()
                F.cross_entropy(model(x), y).backward()
                stepper.step()
            trained.append(model)
        average_into(self._whole, trained, self.counts)

    def full_weights(self) -> dict[str, Tensor]:
        """Of the averaged model."""
        return self._whole.state_dict()
