"""A cohort as one stacked computation equals its clients one after the other."""

from collections import OrderedDict
from collections.abc import Sequence
from math import prod
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fedsplit.errors import UserError
from fedsplit.optim.optimizers import Optimizer
from fedsplit.parties.sequential import Sequential
from fedsplit.parties.vectorized import Vectorized
from fedsplit.recording.metrics import Record
from fedsplit.recording.run_directory import RunDirectory
from fedsplit.training.experiment import Experiment
from tests.cases import long_but
from tests.conftest import Build

COVERED = ("fed_avg", "splitfed_v1", "cse_fsl", "fsl_sage")
OPTIMIZERS = (
    "optimizer=sgd",
    "optimizer=sgd optimizer.momentum=0.9 optimizer.weight_decay=0.01",
    "optimizer=adam",
)


def normed(*, num_classes: int, channels: int, image_size: int) -> nn.Module:
    """Batch normalisation on both sides of the cut, and dropout on both sides too."""
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(channels, 4, 3, padding=1),
            norm1=nn.BatchNorm2d(4),
            relu1=nn.ReLU(),
            drop1=nn.Dropout(0.2),
            conv2=nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2, bias=False),
            norm2=nn.BatchNorm2d(6),
            pool=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            fc1=nn.Linear(6 * (image_size // 4) ** 2, 12),
            norm3=nn.BatchNorm1d(12),
            drop2=nn.Dropout(0.5),
            fc2=nn.Linear(12, num_classes, bias=False),
        )
    )


class Untraceable(nn.Module):
    """An auxiliary model whose forward depends on values, as `torch.fx` cannot follow it."""

    def __init__(self, *, smashed_shape: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(prod(smashed_shape), num_classes)

    def forward(self, z: Tensor) -> Tensor:
        parts = [z.flatten(1)[i : i + 1] for i in range(len(z))]
        logits: Tensor = self.fc(torch.cat(parts))
        return logits


SETTINGS = {
    "digits_cnn": [],
    "ragged": ["distribution=dirichlet", "distribution.alpha=0.5", "num_clients=5"],
    "normed": ["model._target_=tests.parties.test_vectorized.normed", "model.cut=relu1", "auxiliary=linear"],
    "two epochs": ["local_epochs=2", "distribution=dirichlet", "distribution.alpha=0.5", "num_clients=4"],
    "sampled": ["cohort_size=2", "num_clients=4"],
    "small stacks": ["num_clients=5", "engine.stack_mb=0.3"],
    "mlp head": ["auxiliary=mlp", "auxiliary.hidden=8"],
    "untraceable head": ["auxiliary._target_=tests.parties.test_vectorized.Untraceable"],
    "quantized": ["quant=int8", "quant.continue_from_decoded=true"],
    "scheduled": ["scheduler=step", "scheduler.step_size=1", "scheduler.gamma=0.5"],
}


def runs_of_both_engines(tiny: Build, *overrides: str) -> list[Experiment]:
    """The same run with each engine."""
    sequential = [each for each in overrides if not each.startswith("engine.")]
    return [tiny("engine=sequential", *sequential), tiny("engine=vectorized", *overrides)]


def rounds(runs: list[Experiment], number: int) -> list[tuple[Record, Record]]:
    return [(runs[0].run_round(t), runs[1].run_round(t)) for t in range(number)]


@pytest.mark.cover(1)
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("setting", "optimizer"),
    [
        *((setting, optimizer) for setting in ("digits_cnn", "ragged", "normed") for optimizer in OPTIMIZERS),
        *((setting, OPTIMIZERS[1]) for setting in list(SETTINGS)[3:]),
    ],
)
@pytest.mark.parametrize("algorithm", long_but(["splitfed_v1", "fsl_sage"], COVERED))
def test_vectorized_engine_gives_the_losses_bytes_and_weights_of_the_sequential_one(
    tiny: Build, algorithm: str, setting: str, optimizer: str
) -> None:
    runs = runs_of_both_engines(
        tiny, f"algorithm={algorithm}", *optimizer.split(), "dataset.max_train=80", *SETTINGS[setting]
    )
    adam = optimizer == "optimizer=adam"
    for ours, theirs in rounds(runs, 2):
        assert ours.train_loss == pytest.approx(theirs.train_loss, abs=1e-12)
        assert ours.bytes == theirs.bytes
    one, other = (run.algorithm.full_weights() | run.algorithm.auxiliary_weights() for run in runs)
    _assert_close(one, other, 1e-9 if adam else 1e-12)


def _assert_close(ours: object, theirs: object, tolerance: float, path: str = "") -> None:
    if isinstance(ours, dict):
        assert isinstance(theirs, dict)
        assert ours.keys() == theirs.keys(), path
        for key in ours:
            _assert_close(ours[key], theirs[key], tolerance, f"{path}/{key}")
    elif isinstance(ours, Tensor):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance, msg=path)
    else:
        assert ours == theirs, path


@pytest.mark.cover(1)
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("model", long_but(["simple_conv"], ["simple_conv", "resnet18"]))
@pytest.mark.parametrize("algorithm", COVERED)
def test_vectorized_engine_gives_the_weights_of_the_sequential_one_for_larger_models(
    tiny: Build, algorithm: str, model: str
) -> None:
    runs = runs_of_both_engines(
        tiny, f"algorithm={algorithm}", f"model={model}", "optimizer=sgd", "dataset.max_train=40"
    )
    ((ours, theirs),) = rounds(runs, 1)
    assert ours.train_loss == pytest.approx(theirs.train_loss, abs=1e-12)
    _assert_close(*(run.algorithm.full_weights() for run in runs), 1e-10)  # type: ignore[misc]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("estimator", ["linear_regression", "mlp_regression"])
def test_vectorized_engine_gives_the_losses_of_the_sequential_one_for_regression_estimators(
    tiny: Build, estimator: str
) -> None:
    runs = runs_of_both_engines(tiny, f"estimator={estimator}", "optimizer=sgd", "model.cut=pool")
    for ours, theirs in rounds(runs, 2):
        assert ours.train_loss == pytest.approx(theirs.train_loss, abs=1e-11)


@pytest.mark.cover(1)
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("algorithm", COVERED)
@pytest.mark.parametrize("first", ["sequential", "vectorized"])
def test_run_continued_with_the_other_engine_gives_the_weights_of_an_uninterrupted_one(
    tiny: Build, algorithm: str, first: str
) -> None:
    settings = [
        f"algorithm={algorithm}",
        "optimizer=sgd",
        "optimizer.momentum=0.9",
        "num_clients=4",
        "cohort_size=3",
    ]
    second = {"sequential": "vectorized", "vectorized": "sequential"}[first]
    straight, begun, continued = (tiny(*settings, f"engine={each}") for each in (first, first, second))
    begun.run_round(0)
    begun.run_round(1)
    continued.restore(begun.checkpoint())
    for t in range(3):
        straight.run_round(t)
    continued.run_round(2)
    _assert_close(straight.algorithm.full_weights(), continued.algorithm.full_weights(), 1e-12)


def test_stack_larger_than_its_limit_is_split_into_equal_parts(tiny: Build) -> None:
    run = tiny("engine=vectorized", "num_clients=7", "engine.stack_mb=0.4")
    run.run_round(0)
    assert isinstance(run.parts.engine, Vectorized)
    sizes = [len(stack.clients) for stack in run.parts.engine._stacks]
    assert len(sizes) > 1
    assert sum(sizes) == 7
    assert max(sizes) - min(sizes) <= max(sizes) // 2


def test_engine_auto_is_vectorized_for_small_steps_of_many_clients_and_recorded(
    tiny: Build, tmp_path: Path
) -> None:
    small, large = tiny(), tiny("engine.largest_step_mmac=0.001")
    assert isinstance(small.parts.engine, Vectorized)
    assert isinstance(large.parts.engine, Sequential)
    assert isinstance(tiny("algorithm=splitfed_v2").parts.engine, Sequential)
    assert isinstance(tiny("num_clients=1").parts.engine, Sequential)
    small.run(RunDirectory(tmp_path / "run"))
    written = RunDirectory(tmp_path / "run").config()
    assert written["engine"] == {"_target_": "fedsplit.parties.vectorized.Vectorized", "stack_mb": 16}
    assert written["choices"]["engine"] == "vectorized"


def test_vectorized_engine_refuses_clients_that_take_turns(tiny: Build) -> None:
    with pytest.raises(UserError, match=r"engine=vectorized: must be auto or sequential: clients .* turns"):
        tiny("algorithm=splitfed_v2", "engine=vectorized")


def test_vectorized_engine_refuses_an_optimizer_without_rows_and_auto_avoids_it(tiny: Build) -> None:
    own = ["client_optimizer=sgd", "client_optimizer._target_=tests.parties.test_vectorized.own_optimizer"]
    assert isinstance(tiny(*own).parts.engine, Sequential)
    with pytest.raises(UserError, match="engine=vectorized: must be sequential: Own cannot step many"):
        tiny(*own, "engine=vectorized")


def own_optimizer(**arguments: object) -> Optimizer:
    """An optimizer that says nothing about rows."""

    class Own(Optimizer):
        def build(self, parameters: Sequence[Tensor]) -> torch.optim.Optimizer:
            return torch.optim.SGD(parameters, lr=self.lr)

    return Own(lr=0.1, weight_decay=0)
