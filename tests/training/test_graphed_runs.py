"""Runs whose steps are captured end where the same steps end that are not; see `emulated_graphs`."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from math import prod
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fedsplit.computing import captured_steps as graphs
from fedsplit.errors import UserError
from fedsplit.optim.optimizers import Adam
from fedsplit.recording.checkpoint import Checkpoint, load_latest, save
from fedsplit.training.experiment import Experiment
from tests.cases import long_but
from tests.computing.emulated_graphs import EmulatedRecorder
from tests.conftest import ALGORITHMS, Build

ROUNDS = 4
RAGGED = (
    "dataset.max_train=80",
    "distribution=dirichlet",
    "distribution.alpha=0.5",
    "scheduler=cosine",
    f"rounds={ROUNDS}",
    "cuda_graphs=true",
)
OPTIMIZERS = (
    "optimizer=adam",
    "optimizer=sgd optimizer.momentum=0.9 optimizer.dampening=0.1 optimizer.weight_decay=0.01",
)
TWICE = ("algorithm.align_interval=2",)
COVERED = [
    *((algorithm, "sequential") for algorithm in ALGORITHMS),
    *((algorithm, "vectorized") for algorithm in ALGORITHMS if algorithm != "splitfed_v2"),
]
IN_EVERY_RUN = [("splitfed_v1", "vectorized"), ("splitfed_v2", "sequential"), ("fsl_sage", "sequential")]
"""Runs that are compared in every way; all are compared with the bits of an eager one."""


def normed(*, num_classes: int, channels: int, image_size: int, drop: float = 0.0) -> nn.Module:
    """Batch normalisation on both sides of the cut."""
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(channels, 4, 3, padding=1, bias=False),
            norm1=nn.BatchNorm2d(4),
            relu1=nn.ReLU(),
            conv2=nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False),
            norm2=nn.BatchNorm2d(6),
            drop=nn.Dropout(drop),
            flatten=nn.Flatten(),
            fc=nn.Linear(6 * (image_size // 2) ** 2, num_classes),
        )
    )


NORMED = ("model._target_=tests.training.test_graphed_runs.normed", "model.cut=relu1", "auxiliary=linear")


class NormedAuxiliary(nn.Sequential):
    """Aligned by sweeps; its batch normalisation has statistics that only a warm start moves."""

    def __init__(self, *, smashed_shape: tuple[int, ...], num_classes: int) -> None:
        size = prod(smashed_shape)
        layers = nn.Flatten(), nn.Linear(size, 6, bias=False), nn.BatchNorm1d(6), nn.ReLU()
        super().__init__(*layers, nn.Linear(6, num_classes))


class Curved(nn.Module):
    """An auxiliary model that has no rule to be aligned by: its error is differentiated twice."""

    def __init__(self, *, smashed_shape: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(prod(smashed_shape), num_classes)

    def forward(self, z: Tensor) -> Tensor:
        logits: Tensor = self.fc(torch.tanh(z.flatten(1)))
        return logits


@pytest.fixture
def recorders(monkeypatch: pytest.MonkeyPatch) -> list[EmulatedRecorder]:
    """Of every run that is built, in this order."""
    made: list[EmulatedRecorder] = []

    def make(device: torch.device) -> EmulatedRecorder:
        made.append(EmulatedRecorder())
        return made[-1]

    monkeypatch.setattr("fedsplit.building.recorders.CudaRecorder", make)
    return made


def tensors_of_state(run: Experiment) -> dict[str, Tensor]:
    """Everything a checkpoint holds, by path."""
    found: dict[str, Tensor] = {}

    def walk(node: object, path: str) -> None:
        if isinstance(node, Tensor):
            found[path] = node.detach().clone()
        elif isinstance(node, dict):
            for key, value in node.items():
                walk(value, f"{path}/{key}")

    walk(run.checkpoint().state, "")
    return found


def losses(run: Experiment, rounds: Sequence[int] = range(ROUNDS)) -> list[float]:
    return [run.run_round(t).train_loss for t in rounds]


def differing_tensors(ours: Experiment, theirs: Experiment) -> list[str]:
    first, second = tensors_of_state(ours), tensors_of_state(theirs)
    assert first.keys() == second.keys()
    return [name for name in first if not torch.equal(first[name], second[name])]


def assert_captured_is_eager(
    build: Callable[[], Experiment], recorders: list[EmulatedRecorder], monkeypatch: pytest.MonkeyPatch
) -> Experiment:
    """Of two runs of the same arithmetic one is captured: to the bit the same. Gives the captured one."""
    captured = build()
    ours = losses(captured)
    assert recorders[-1].captures > 0
    assert recorders[-1].replays > recorders[-1].warmed / 2
    eager = build()
    with monkeypatch.context() as never:
        never.setattr(graphs, "MOST_FORMS", 0)
        assert losses(eager) == ours
    assert recorders[-1].captures == 0
    assert differing_tensors(captured, eager) == []
    return captured


@pytest.mark.cover(1)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(("algorithm", "engine"), COVERED)
def test_captured_run_gives_the_bits_of_an_eager_one(  # noqa: PLR0917
    tiny: Build,
    recorders: list[EmulatedRecorder],
    monkeypatch: pytest.MonkeyPatch,
    algorithm: str,
    engine: str,
    optimizer: str,
) -> None:
    own = TWICE if algorithm == "fsl_sage" else ()
    settings = [f"algorithm={algorithm}", f"engine={engine}", *optimizer.split(), *NORMED, *RAGGED, *own]
    assert_captured_is_eager(lambda: tiny(*settings), recorders, monkeypatch)


@pytest.mark.cover(1)
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(("algorithm", "engine"), long_but(IN_EVERY_RUN, COVERED))
def test_captured_run_gives_the_weights_of_a_run_without_graphs_up_to_rounding(
    tiny: Build, recorders: list[EmulatedRecorder], algorithm: str, engine: str, optimizer: str
) -> None:
    """The rate is rounded to float32, and torch's fused kernels add up in another order."""
    own = TWICE if algorithm == "fsl_sage" else ()
    settings = [f"algorithm={algorithm}", f"engine={engine}", *optimizer.split(), *RAGGED, *own]
    captured, plain = tiny(*settings), tiny(*settings, "cuda_graphs=false")
    assert losses(captured) == pytest.approx(losses(plain), abs=1e-6)
    assert len(recorders) == 1
    assert recorders[0].replays > 0
    ours, theirs = captured.algorithm.full_weights(), plain.algorithm.full_weights()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=1e-6, msg=name)


@pytest.mark.parametrize(
    ("algorithm", "replays"),
    # three clients with 5 batches of 8 and a smaller one in each of 4 rounds: 17 + 1 replays for each of a
    # client's functions, and of the one server 57 + 5 + 1
    [("fed_avg", 3 * 18), ("splitfed_v1", 3 * 3 * 18), ("splitfed_v2", 2 * 3 * 18 + 63)],
)
def test_captured_run_replays_all_but_the_first_calls_of_a_shape(
    tiny: Build, recorders: list[EmulatedRecorder], algorithm: str, replays: int
) -> None:
    losses(tiny(f"algorithm={algorithm}", "engine=sequential", "cuda_graphs=true"))
    assert recorders[0].replays == replays
    assert recorders[0].warmed == graphs.WARM_UP * recorders[0].captures


@pytest.mark.parametrize(
    ("algorithm", "engine"),
    [("splitfed_v1", "sequential"), pytest.param("fed_avg", "vectorized", marks=pytest.mark.long)],
)
def test_captured_run_in_bf16_gives_the_bits_of_an_eager_one(
    tiny: Build,
    recorders: list[EmulatedRecorder],
    monkeypatch: pytest.MonkeyPatch,
    algorithm: str,
    engine: str,
) -> None:
    settings = [f"algorithm={algorithm}", f"engine={engine}", "precision=bf16", *RAGGED]
    assert_captured_is_eager(lambda: tiny(*settings), recorders, monkeypatch)


@pytest.mark.parametrize(
    "auxiliary",
    [
        ["auxiliary=mlp", "auxiliary.hidden=8"],
        ["auxiliary._target_=tests.training.test_graphed_runs.NormedAuxiliary", "algorithm.warm_start=1"],
        ["auxiliary._target_=tests.training.test_graphed_runs.Curved"],
        ["estimator=mlp_regression", "client_optimizer=adamw"],
        ["estimator=linear_regression"],
    ],
    ids=" ".join,
)
def test_captured_run_gives_the_bits_of_an_eager_one_with_every_kind_of_alignment(
    tiny: Build,
    recorders: list[EmulatedRecorder],
    monkeypatch: pytest.MonkeyPatch,
    auxiliary: list[str],
) -> None:
    settings = ["algorithm=fsl_sage", "engine=sequential", *auxiliary, *RAGGED, *TWICE]
    assert_captured_is_eager(lambda: tiny(*settings), recorders, monkeypatch)


def test_alignment_captures_its_fit_once_and_replays_the_other_epochs(
    tiny: Build, recorders: list[EmulatedRecorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted: list[tuple[int, int]] = []
    run = tiny("auxiliary.align_epochs=9", "auxiliary.align_batch_size=1000", *RAGGED)
    fit = run.parts.estimator.fit

    def watched(*args: object, **kwargs: object) -> None:
        before = recorders[0].captures, recorders[0].replays
        fit(*args, **kwargs)  # type: ignore[arg-type]
        fitted.append((recorders[0].captures - before[0], recorders[0].replays - before[1]))

    monkeypatch.setattr(run.parts.estimator, "fit", watched)
    run.run_round(0)
    assert fitted == [(1, 9 - graphs.WARM_UP)] * 3


@pytest.mark.cover(1)
@pytest.mark.parametrize("stop", [1, 3])
@pytest.mark.parametrize(("algorithm", "engine"), long_but(IN_EVERY_RUN, COVERED))
def test_captured_run_resumed_gives_the_losses_and_weights_of_an_uninterrupted_one(  # noqa: PLR0917
    tiny: Build, recorders: list[EmulatedRecorder], tmp_path: Path, algorithm: str, engine: str, stop: int
) -> None:
    settings = [f"algorithm={algorithm}", f"engine={engine}", *NORMED, *RAGGED]
    straight = tiny(*settings)
    for t in range(ROUNDS):
        straight.records.append(straight.run_round(t))
        if t + 1 == stop:
            save(tmp_path / "checkpoint", straight.checkpoint())
    resumed = tiny(*settings)
    resumed.run_round(0)  # so that there are graphs, of tensors that are then replaced
    found = load_latest(tmp_path / "checkpoint")
    assert isinstance(found, Checkpoint)
    resumed.restore(found)
    rest = losses(resumed, range(stop, ROUNDS))
    assert rest == [record.train_loss for record in straight.records[stop:]]
    ours, theirs = resumed.algorithm.full_weights(), straight.algorithm.full_weights()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_captured_run_of_sampled_stateless_clients_gives_the_bits_of_an_eager_one(
    tiny: Build, recorders: list[EmulatedRecorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ["algorithm=fsl_sage", "engine=vectorized", "num_clients=6", "cohort_size=4", "local_epochs=3"]
    settings += ["client.stateless=true", *RAGGED, *TWICE, "dataset.max_train=130"]
    assert_captured_is_eager(lambda: tiny(*settings), recorders, monkeypatch)


def test_model_with_dropout_is_not_captured_and_trains_as_without_graphs(
    tiny: Build, recorders: list[EmulatedRecorder]
) -> None:
    drawing = ["algorithm=fed_avg", *NORMED, "+model.drop=0.3", *RAGGED]
    captured, plain = tiny(*drawing), tiny(*drawing, "cuda_graphs=false")
    assert losses(captured) == losses(plain)
    assert differing_tensors(captured, plain) == []
    assert recorders[0].warmed == recorders[0].captures == 0


def test_model_with_dropout_in_one_half_is_captured_in_the_other(
    tiny: Build, recorders: list[EmulatedRecorder]
) -> None:
    drawing = ["algorithm=splitfed_v2", *NORMED, "+model.drop=0.3", *RAGGED]
    captured, plain = tiny(*drawing), tiny(*drawing, "cuda_graphs=false")
    assert losses(captured) == pytest.approx(losses(plain), abs=1e-5)
    server = captured.algorithm.server
    assert captured.parts.engine.blueprint.recorder is recorders[0]
    assert server._model.recorder is None
    assert recorders[0].replays > 0


def test_client_step_with_a_codec_is_not_captured_but_the_server_step_is(
    tiny: Build, recorders: list[EmulatedRecorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ["algorithm=cse_fsl", "quant=int8", "quant.continue_from_decoded=true", *RAGGED]
    run = assert_captured_is_eager(lambda: tiny(*settings), recorders, monkeypatch)
    assert run.parts.engine.blueprint.recorder is None


class Plain(Adam):
    """An optimizer of a user's own, that says nothing of captures."""

    capturable = False


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["device=cpu"], "cuda_graphs=True: must be false on device=cpu"),
        (["compile=true"], "cuda_graphs=True: must be false with compile=true"),
        (
            ["optimizer._target_=tests.training.test_graphed_runs.Plain", "engine=sequential"],
            "cuda_graphs=True: must be false: Plain takes no learning rate in a tensor",
        ),
        (["cuda_graphs=perhaps"], "cuda_graphs=perhaps: must be true or false"),
    ],
    ids=" ".join,
)
def test_cuda_graphs_that_cannot_be_captured_are_refused(
    tiny: Build, overrides: list[str], told: str
) -> None:
    with pytest.raises(UserError, match=told):
        tiny("cuda_graphs=true", *overrides)
