"""The tasks as fedsplit runs them, and as a folder for others."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from shared import PeerTask

from benchmarks.experiments import MLP, build
from fedsplit.training.experiment import Experiment

_TEST_SAMPLES = 1000
"""Test samples at most, spread over all of them."""


@dataclass(frozen=True)
class Task:
    """One row of comparisons.

    Args:
        overrides: of fedsplit's configuration.
        images: training images in the shape of CIFAR-10; 0 takes what the overrides name.
        warm_up: rounds of each process that are not counted.
        rounds: counted rounds of each process, unless others are asked for.
    """

    overrides: Sequence[str]
    images: int = 0
    warm_up: int = 1
    rounds: int = 3

    def altered(self, *, cohort: int | None, learning_rate: float | None) -> "Task":
        """The task with so many clients a round, and this learning rate; None leaves what it has."""
        new = {"cohort_size": cohort, "optimizer.lr": learning_rate}
        wanted = {key: value for key, value in new.items() if value is not None}
        kept = [each for each in self.overrides if each.partition("=")[0] not in wanted]
        return replace(self, overrides=[*kept, *(f"{key}={value}" for key, value in wanted.items())])


def _own_model(function: str, cut: str) -> list[str]:
    return [f"model._target_=benchmarks.peers.models.{function}", f"model.cut={cut}", "auxiliary=linear"]


_STATELESS = "client.stateless=true"
"""Plain SGD keeps nothing; without it, the weights of every client that took part would stay in memory."""
_BLAZE = ["num_clients=100", _STATELESS, "batch_size=50", "local_epochs=5", "optimizer.lr=0.1"]
TASKS = {
    "mlp": Task(["num_clients=100", "batch_size=8", *MLP], warm_up=2, rounds=10),
    "cnn": Task(
        [
            "num_clients=1000",
            _STATELESS,
            "cohort_size=50",
            "batch_size=10",
            "optimizer.lr=0.1",
            *_own_model("cnn", "flatten"),
        ],
        images=50_000,
    ),
    "blaze-cnn": Task(
        [*_BLAZE, "cohort_size=10", *_own_model("blaze_cnn", "flatten")],
        images=50_000,
    ),
    "blaze-resnet18": Task(
        [*_BLAZE, "cohort_size=2", *_own_model("resnet18", "layer2")],
        images=50_000,
        rounds=1,
    ),
}
_FOLDER = ["dataset=image_folder", "dataset.flip=false", "dataset.crop_padding=0"]


def experiment(task: Task, root: str | None) -> Experiment:
    """A task as fedsplit runs it.

    Args:
        task: one of `TASKS`, or altered.
        root: folder of images as `dataset=image_folder` has it; None takes noise.
    """
    overrides = ["algorithm=fed_avg", "optimizer=sgd", *task.overrides]
    if not task.images:
        return build(*overrides)
    if root is not None:
        return build(*overrides, *_FOLDER, f"dataset.root={root}", f"dataset.max_train={task.images}")
    return build(*overrides, noise={"train": task.images, "test": _TEST_SAMPLES})


def peer_task(name: str, run: Experiment, rounds: int) -> PeerTask:
    """The same for others: weights, samples, who takes part, and the orders of their samples."""
    data, training = run.parts.data.dataset, run.parts.config.training
    cohorts = [sorted(run.parts.cohort_of(t)) for t in range(rounds)]
    orders = []
    for t, cohort in enumerate(cohorts):
        batches = [run.parts.batches(client) for client in cohort]
        orders.append([torch.stack([own.indices[each] for each in own.permutations(t)]) for own in batches])
    spread = slice(None, None, -(-len(data.test) // _TEST_SAMPLES))
    return PeerTask(
        model_name=name,
        weights={key: each.contiguous().clone() for key, each in run.algorithm.full_weights().items()},
        x=data.train.inputs_at(slice(None)).contiguous(),
        y=data.train.labels_at(slice(None)),
        test_x=data.test.inputs_at(spread).contiguous(),
        test_y=data.test.labels_at(spread),
        classes=data.num_classes,
        clients=len(run.parts.data.shards),
        cohorts=cohorts,
        orders=orders,
        batch_size=training.batch_size,
        learning_rate=float(str(run.parts.config.optimizer.arguments["lr"])),
    )
