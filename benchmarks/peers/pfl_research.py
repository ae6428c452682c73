"""The task in pfl-research: `python pfl_research.py TASK`."""

import logging
import sys
import time
from collections.abc import Mapping
from itertools import pairwise

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
from pfl.data.sampling import MinimizeReuseUserSampler
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


def main(path: str) -> None:
    """Train all rounds."""
    prepare()
    logging.disable(logging.CRITICAL)
    task = PeerTask.load(path)
    clock = Clock()

    def own_data(client: int) -> Dataset:
        order = task.orders[len(clock.times) - 1][client]
        return Dataset([task.x[order], task.y[order]], user_id=client)

    model = PyTorchModel(
        Trained(task.model()),
        local_optimizer_create=torch.optim.SGD,
        central_optimizer=None,
    )
    model._central_optimizer = torch.optim.SGD(model.pytorch_model.parameters(), lr=1.0)
    np.random.seed(0)
    backend = SimulatedBackend(
        training_data=FederatedDataset(own_data, MinimizeReuseUserSampler(list(range(task.clients)))),
        val_data=None,
        postprocessors=[WeightByDatapoints()],
    )
    params = NNTrainHyperParams(
        local_batch_size=task.batch_size,
        local_num_epochs=1,
        local_learning_rate=task.learning_rate,
    )
    rounds = NNAlgorithmParams(
        central_num_iterations=len(task.orders),
        evaluation_frequency=len(task.orders) + 1,  # in the first round, which warms up
        train_cohort_size=task.clients,
        val_cohort_size=0,
    )
    clock.times = [time.perf_counter()]
    FederatedAveraging().run(rounds, backend, model, params, callbacks=[clock])
    seconds = [after - before for before, after in pairwise(clock.times)]
    tell(task, [each.detach() for each in model.pytorch_model.parameters()], seconds)


if __name__ == "__main__":
    main(sys.argv[1])
