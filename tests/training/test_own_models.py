"""What a model has besides tensors and a forward is honoured by every algorithm and engine."""

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedsplit.building.models import build_whole_model
from fedsplit.computing.model_state import ModelState
from fedsplit.errors import UserError
from fedsplit.parties.sequential import Sequential
from fedsplit.parties.vectorized import Vectorized
from fedsplit.recording.run_directory import RunDirectory
from fedsplit.training.experiment import Experiment
from tests.cases import long_but
from tests.computing.emulated_graphs import EmulatedRecorder
from tests.conftest import ALGORITHMS, Build
from tests.oracles.plain_loops import PlainLoop, average_into

HERE = "tests.training.test_own_models"
MOMENTUM = ("optimizer=sgd", "optimizer.momentum=0.9", "optimizer.weight_decay=0.1")


class Net(nn.Module):
    """A small network with batch normalisation on both sides of the cut `pool`.

    Args:
        frozen: parts with `requires_grad=False`.
        hooks: what is hooked, see below.
        evaluating: parts that stay in evaluation mode.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        channels: int,
        image_size: int,
        frozen: Sequence[str] = (),
        hooks: Sequence[str] = (),
        evaluating: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(channels, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.pool = nn.MaxPool2d(2)
        hidden = nn.Linear(3 * (image_size // 2) ** 2, 7), nn.BatchNorm1d(7)
        self.hidden = nn.Sequential(*hidden)
        self.last = nn.Linear(7, num_classes)
        self.evaluating = evaluating
        for name in frozen:
            self.get_submodule(name).requires_grad_(False)
        for each in hooks:
            HOOKS[each](self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.norm(self.conv(x)).relu())
        logits: Tensor = self.last(self.hidden(x.flatten(1)).relu())
        return logits

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for name in self.evaluating:
            self.get_submodule(name).eval()
        return self


def _only_the_first_row(gradient: Tensor) -> Tensor:
    return torch.cat([gradient[:1], torch.zeros_like(gradient[1:])])


HOOKS = {
    "forward": lambda net: net.conv.register_forward_hook(lambda m, given, output: 3 * output),
    "pre-forward": lambda net: net.last.register_forward_pre_hook(lambda m, given: (given[0] + 1,)),
    "with keywords": lambda net: net.last.register_forward_pre_hook(
        lambda m, given, named: ((2 * given[0],), named), with_kwargs=True
    ),
    "backward": lambda net: net.hidden.register_full_backward_hook(
        lambda m, before, after: tuple(0.5 * each for each in before)
    ),
    "pre-backward": lambda net: net.norm.register_full_backward_pre_hook(
        lambda m, after: tuple(0.25 * each for each in after)
    ),
    "container": lambda net: net.hidden.register_forward_hook(lambda m, given, output: output.abs()),
    "parameter": lambda net: net.conv.weight.register_hook(_only_the_first_row),
    "parameter of the server": lambda net: net.last.weight.register_hook(_only_the_first_row),
}


def own(tiny: Build, *overrides: str, **options: Sequence[str]) -> Experiment:
    given = [f"+model.{key}=[{','.join(value)}]" for key, value in options.items()]
    model = f"model._target_={HERE}.Net"
    base = () if any(each.startswith("model.cut") for each in overrides) else ("model.cut=pool",)
    small = ("dataset.max_train=32", "batch_size=6", "auxiliary=linear")
    return tiny(model, *base, *small, *overrides, *given)


def whole_weights(run: Experiment) -> dict[str, Tensor]:
    """What the run trained, and the parameters beside it that do not learn."""
    halves = run.parts.models.halves
    return {**halves.client.state_dict(), **halves.server.state_dict(), **run.algorithm.full_weights()}


def named(run: Experiment, parts: Sequence[str]) -> dict[str, Tensor]:
    """Copies of the parameters of some parts, as the run would save them."""
    halves = run.parts.models.halves
    parameters = {name for half in (halves.client, halves.server) for name, _ in half.named_parameters()}
    full = whole_weights(run)
    return {
        name: tensor.clone()
        for name, tensor in full.items()
        if name in parameters and any(name.startswith(f"{part}.") for part in parts)
    }


FROZEN = {
    "in the client half": ("conv",),
    "in both halves": ("norm", "hidden.0", "last"),
    "all of the client half": ("conv", "norm"),
    "all of the server half": ("hidden", "last"),
}
ENGINES = ("sequential", "vectorized")
SETTINGS = {
    "momentum": MOMENTUM,
    "adamw": ("optimizer=adamw", "optimizer.weight_decay=0.1"),
    "stateless": (*MOMENTUM, "client.stateless=true"),
    "lossy weights": (*MOMENTUM, "quant=int8"),
    "decoded": (*MOMENTUM, "quant=int8", "quant.continue_from_decoded=true"),
    "bf16": (*MOMENTUM, "precision=bf16"),
}


@pytest.mark.cover(1)
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("frozen", FROZEN)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_frozen_parameters_end_as_they_began_to_the_bit_and_others_move(
    tiny: Build, algorithm: str, engine: str, frozen: str, setting: str
) -> None:
    engine = "sequential" if algorithm == "splitfed_v2" else engine
    run = own(tiny, f"algorithm={algorithm}", f"engine={engine}", *SETTINGS[setting], frozen=FROZEN[frozen])
    parts = ("conv", "norm", "hidden", "last")
    before = named(run, parts)
    run.run_round(0)
    run.run_round(1)
    after = named(run, parts)
    kept = {name for name in before if any(name.startswith(f"{part}.") for part in FROZEN[frozen])}
    assert kept
    assert {name for name in before if torch.equal(before[name], after[name])} == kept


@pytest.mark.parametrize("engine", ENGINES)
def test_frozen_parameters_are_one_tensor_for_all_clients_and_in_no_message_or_checkpoint(
    tiny: Build, engine: str
) -> None:
    frozen = ("conv", "hidden.0")
    run, plain = (own(tiny, f"engine={engine}", "algorithm=fed_avg", frozen=each) for each in (frozen, ()))
    for each in (run, plain):
        each.run_round(0)
    halves, weights = run.parts.models.halves, run.algorithm.full_weights()
    values = {
        name: tensor for half in (halves.client, halves.server) for name, tensor in half.named_parameters()
    }
    kept = {name for name in values if name.startswith(frozen)}
    sent = 4 * sum(values[name].numel() for name in kept)
    clients = len(run.parts.sample_counts)
    for direction in ("up", "down"):
        bytes_of = [each.ledger.of_round(0)[direction]["full_weights"] for each in (run, plain)]
        assert bytes_of[1] - bytes_of[0] == clients * sent
    assert not kept & weights.keys()
    states = run.parts.engine.state()
    assert not any(
        kept & each[part]["weights"].keys() for each in states.values() for part in ("body", "head")
    )
    assert not any(
        kept & each[part]["optimizer"].keys() for each in states.values() for part in ("body", "head")
    )
    for half in (halves.client, halves.server):
        first, second = ModelState(half), ModelState(half)
        for name in kept & first.parameters.keys():
            assert (
                first.parameters[name].data_ptr()
                == second.parameters[name].data_ptr()
                == values[name].data_ptr()
            )


def test_resume_needs_the_same_frozen_parameters_and_a_run_leaves_its_whole_model(
    tiny: Build, tmp_path: Path
) -> None:
    run = own(tiny, "rounds=1", "algorithm=splitfed_v2", frozen=("conv",))
    run.run(RunDirectory(tmp_path / "run"))
    written = RunDirectory(tmp_path / "run").model("client")
    assert written.keys() == run.parts.models.halves.client.state_dict().keys()
    client = run.parts.models.halves.client
    assert torch.equal(written["conv.weight"], client.state_dict()["conv.weight"])
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    conv = sum(p.numel() for name, p in client.named_parameters() if name.startswith("conv."))
    assert results["frozen_bytes"] == {"client": 4 * conv, "server": 0, "auxiliary": 0}
    again = own(tiny, "rounds=2", "algorithm=splitfed_v2", frozen=("conv",))
    checkpoint = run.checkpoint()
    again.restore(checkpoint)
    checkpoint.state["identity"]["frozen"] = "of others"
    with pytest.raises(UserError, match="holds other parameters that do not learn"):
        again.restore(checkpoint)


@pytest.mark.parametrize("rounding", ["qat=true", "weight_bits=4"])
def test_frozen_parameters_stay_where_weights_are_rounded_in_training(tiny: Build, rounding: str) -> None:
    run = own(tiny, rounding, frozen=("conv",))
    before = named(run, ("conv",))
    run.run_round(0)
    after = named(run, ("conv",))
    assert before.keys() == {"conv.weight", "conv.bias"}
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("frozen", ["in both halves", "all of the client half"])
def test_frozen_parameters_stay_in_captured_steps(
    tiny: Build, monkeypatch: pytest.MonkeyPatch, engine: str, frozen: str
) -> None:
    recorder = EmulatedRecorder()
    monkeypatch.setattr("fedsplit.building.recorders.CudaRecorder", lambda device: recorder)
    captured, eager = (
        own(tiny, *MOMENTUM, f"engine={engine}", "algorithm=splitfed_v1", f"cuda_graphs={graphs}",
            "local_epochs=5", frozen=FROZEN[frozen])
        for graphs in ("true", "false")
    )  # fmt: skip
    before = named(captured, FROZEN[frozen])
    for run in (captured, eager):
        run.run_round(0)
    assert recorder.replays > 0
    assert all(torch.equal(before[name], after) for name, after in named(captured, FROZEN[frozen]).items())
    ours, theirs = captured.algorithm.full_weights(), eager.algorithm.full_weights()
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-6) for name in ours)


def test_frozen_parameters_stay_in_auxiliary_models(tiny: Build) -> None:
    target = f"auxiliary._target_={HERE}.HalfFrozenAuxiliary"
    for algorithm in ("cse_fsl", "fsl_sage"):
        run = own(tiny, f"algorithm={algorithm}", target)
        module = run.parts.models.auxiliary
        assert module is not None
        before = copy.deepcopy(module.state_dict())
        run.run_round(0)
        for after in run.algorithm.auxiliary_weights().values():
            assert after.keys() == {"1.weight", "1.bias"}
            assert not torch.equal(after["1.weight"], before["1.weight"])
        assert torch.equal(module.state_dict()["0.weight"], before["0.weight"])


class HalfFrozenAuxiliary(nn.Sequential):
    """Its first layer is not trained."""

    def __init__(self, *, smashed_shape: tuple[int, ...], num_classes: int) -> None:
        super().__init__(nn.Linear(smashed_shape[-1], 5), nn.Linear(5, num_classes))
        self[0].requires_grad_(False)

    def forward(self, z: Tensor) -> Tensor:
        logits: Tensor = self[1](self[0](z).flatten(2).mean(1).view(len(z), -1, 5).mean(1))
        return logits


def sgd(*modules: nn.Module) -> torch.optim.Optimizer:
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    parameters = parameters or [nn.Parameter(torch.zeros(1))]  # an optimizer of nothing is refused
    return torch.optim.SGD(parameters, lr=1e-2, momentum=0.9, weight_decay=0.1)


@pytest.mark.cover(1)
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("frozen", FROZEN)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_training_beside_frozen_parameters_is_that_of_a_plain_loop(
    tiny: Build, algorithm: str, frozen: str, engine: str
) -> None:
    engine = "sequential" if algorithm == "splitfed_v2" else engine
    run = own(
        tiny,
        f"algorithm={algorithm}",
        f"engine={engine}",
        *MOMENTUM,
        "optimizer.lr=0.01",
        frozen=FROZEN[frozen],
    )
    reference = PlainLoop(run, sgd)
    if algorithm == "cse_fsl":
        reference.auxiliary_steppers = [sgd(module) for module in reference.auxiliaries]
    run.run_round(0)
    getattr(reference, algorithm)(0)
    assert_close(whole_weights(run), reference.full_weights())


def assert_close(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=1e-9, msg=name)


def plain_fed_avg(run: Experiment) -> dict[str, Tensor]:
    """A round of FedAvg with the whole model as it was made: nothing is traced, cut or stacked."""
    whole, _ = build_whole_model(run.config, run.parts.data, run.parts.device)
    settings = run.config.plain()["model"]
    clients, counts = [], run.parts.sample_counts
    for client in range(len(counts)):
        options = {key: settings[key] for key in ("frozen", "hooks", "evaluating") if key in settings}
        model = Net(**run.parts.data.sizes, **options).double()
        model.load_state_dict(copy.deepcopy(whole.state_dict()))
        model.train()
        stepper = sgd(model)
        for _, x, y in run.parts.batches(client).round(0):
            stepper.zero_grad()
            F.cross_entropy(model(x), y).backward()
            stepper.step()
        clients.append(model)
    average_into(whole, clients, counts)
    return whole.state_dict()


KEPT = [
    *({"hooks": (name,)} for name in HOOKS),
    {"hooks": ("forward", "parameter"), "frozen": ("hidden",), "evaluating": ("norm",)},
    {"evaluating": ("norm",)},
    {"evaluating": ("hidden.1",)},
    {"evaluating": ("hidden", "norm"), "frozen": ("norm", "hidden.1")},
]
IN_EVERY_RUN = [{"hooks": (name,)} for name in ("with keywords", "backward", "parameter")] + KEPT[-4::3]
"""Options of each kind that a run trains with; every cut is tested with all options."""


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("options", long_but(IN_EVERY_RUN, KEPT), ids=str)
def test_hooks_and_modes_do_in_a_run_what_they_do_in_the_whole_model(
    tiny: Build, options: dict[str, Sequence[str]]
) -> None:
    run = own(tiny, "algorithm=fed_avg", *MOMENTUM, "optimizer.lr=0.01", "engine=auto", **options)
    assert isinstance(run.parts.engine, Sequential if "hooks" in options else Vectorized)
    expected = plain_fed_avg(run)
    run.run_round(0)
    assert_close(whole_weights(run), expected)


@pytest.mark.cover(1)
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("options", KEPT, ids=str)
@pytest.mark.parametrize("cut", ["conv", "norm", "pool", "hidden"])
def test_splitting_keeps_hooks_and_modes_at_every_cut(
    tiny: Build, cut: str, options: dict[str, Sequence[str]]
) -> None:
    together, split = (
        own(tiny, f"algorithm={algorithm}", *MOMENTUM, f"model.cut={cut}", "engine=sequential", **options)
        for algorithm in ("fed_avg", "splitfed_v1")
    )
    for run in (together, split):
        run.run_round(0)
    assert_close(whole_weights(together), whole_weights(split))
    whole, x = build_whole_model(together.config, together.parts.data, together.parts.device)
    whole.load_state_dict(whole_weights(together))
    halves = together.parts.models.halves
    for half in (halves.client, halves.server):
        half.load_state_dict({name: whole.state_dict()[name] for name in half.state_dict()})
    torch.testing.assert_close(halves.server.eval()(halves.client.eval()(x)), whole.eval()(x))


@pytest.mark.parametrize("algorithm", ["cse_fsl", "fsl_sage"])
def test_modes_are_kept_where_clients_are_stacked_with_auxiliary_models(tiny: Build, algorithm: str) -> None:
    runs = [
        own(tiny, f"algorithm={algorithm}", *MOMENTUM, f"engine={engine}", evaluating=("norm", "hidden"))
        for engine in ENGINES
    ]
    before = runs[0].algorithm.full_weights()
    for run in runs:
        run.run_round(0)
    ours, theirs = (whole_weights(run) for run in runs)
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-5) for name in ours)
    for name in ("norm.running_mean", "hidden.1.running_var", "norm.num_batches_tracked"):
        assert torch.equal(ours[name], before[name])


@pytest.mark.parametrize("hook", HOOKS)
def test_stacking_hooks_is_refused_where_it_is_asked_for(tiny: Build, hook: str) -> None:
    with pytest.raises(UserError, match=r"engine=vectorized: .* \(.* has hooks\)"):
        own(tiny, "algorithm=fed_avg", "engine=vectorized", hooks=(hook,))


def test_compiling_hooks_is_refused(tiny: Build) -> None:
    with pytest.raises(UserError, match=r"compile=True: must be false with this model: conv has hooks"):
        own(tiny, "engine=sequential", "compile=true", hooks=("forward",))


def test_steps_with_hooks_are_not_captured(tiny: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = EmulatedRecorder()
    monkeypatch.setattr("fedsplit.building.recorders.CudaRecorder", lambda device: recorder)
    run = own(tiny, "algorithm=fed_avg", "cuda_graphs=true", "local_epochs=3", hooks=("parameter",))
    before = named(run, ("conv",))["conv.weight"]
    run.run_round(0)
    after = named(run, ("conv",))["conv.weight"]
    assert recorder.captures == 0
    assert torch.allclose(before[1:], after[1:])
    assert not torch.allclose(before[:1], after[:1])
