"""The task in pfl-research: `python pfl_research.py TASK`."""

import logging
import sys
import time
from collections.abc import Iterable, Mapping
from itertools import chain, pairwise

import numpy as np
import torch
import torch.nn.functional as F
from pfl.aggregate.simulate import SimulatedBackend
from pfl.aggregate.weighting import WeightByDatapoints
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.hyperparam.base import NNTrainHyperParams
from pfl.metrics import Metrics, Weighted
from pfl.model.pytorch import PyTorchModel
from shared import PeerTask, prepare, tell
from torch import Tensor, nn


class Trained(nn.Module):
    """The model with the two methods that the framework asks for."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Logits of a batch of images."""
        logits: Tensor = self.model(x)
        return logits

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Mean loss of a batch."""
        return F.cross_entropy(self(x), y)

    def metrics(self, x: Tensor, y: Tensor) -> Mapping[str, object]:
        """Nothing but the count: evaluation is in no side's seconds."""
        return {"samples": Weighted(len(x), len(x))}


class Clock(TrainingProcessCallback):
    """Seconds of each round."""

    def __init__(self) -> None:
        self.times = [time.perf_counter()]

    def after_central_iteration(
        self, aggregate_metrics: Metrics, model: PyTorchModel, *, central_iteration: int
    ) -> tuple[bool, Metrics]:
        """Note the time; never stop."""
        self.times.append(time.perf_counter())
        return False, Metrics()


class EpochOrders(Dataset):
    """A client's samples, each time that they are trained on in the order of the next epoch.

    Args:
        task: with all samples.
        order: indices `(epochs, m)`.
        client: its number.
    """

    def __init__(self, task: PeerTask, order: Tensor, client: int) -> None:
        super().__init__(list(task.samples(order[0])), user_id=client)
        self._task, self._later = task, iter(order[1:])
        self._begun = False

    def iter(self, batch_size: int | None) -> Iterable[list[Tensor]]:
        """Batches of the next epoch; of the first one, as long as evaluation asks for all samples at once."""
        training = batch_size == self._task.batch_size
        if not (training and self._begun):
            self._begun = training
            return super().iter(batch_size)
        return Dataset(list(self._task.samples(next(self._later)))).iter(batch_size)


def main(folder: str) -> None:
    """Train all rounds."""
    prepare()
    logging.disable(logging.CRITICAL)
    task = PeerTask.load(folder)
    clock = Clock()
    participants = chain.from_iterable(task.cohorts)

    def own_data(client: int) -> Dataset:
        return EpochOrders(task, task.order(len(clock.times) - 1, client), client)

    model = PyTorchModel(
        Trained(task.model()),
        local_optimizer_create=torch.optim.SGD,
        central_optimizer=None,
    )
    model._central_optimizer = torch.optim.SGD(model.pytorch_model.parameters(), lr=1.0)
    np.random.seed(0)
    backend = SimulatedBackend(
        training_data=FederatedDataset(own_data, lambda: next(participants)),
        val_data=None,
        postprocessors=[WeightByDatapoints()],
    )
    params = NNTrainHyperParams(
        local_batch_size=task.batch_size,
        local_num_epochs=task.epochs,
        local_learning_rate=task.learning_rate,
    )
    rounds = NNAlgorithmParams(
        central_num_iterations=task.rounds,
        evaluation_frequency=task.rounds + 1,  # in the first round, which warms up
        train_cohort_size=task.cohort_size,
        val_cohort_size=0,
    )
    clock.times = [time.perf_counter()]
    FederatedAveraging().run(rounds, backend, model, params, callbacks=[clock])
    seconds = [after - before for before, after in pairwise(clock.times)]
    tell(task, dict(model.pytorch_model.model.named_parameters()), seconds)


if __name__ == "__main__":
    main(sys.argv[1])
