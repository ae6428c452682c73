"""What cannot be stacked is told by a trial, and where stacking is possible it is right."""

from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune, weight_norm

from fedsplit.computing.computation import call
from fedsplit.computing.stacked_module import StackedModule, obstacle_to_stacking
from fedsplit.errors import UserError
from fedsplit.parties.sequential import Sequential
from fedsplit.parties.vectorized import Vectorized
from tests.conftest import Build

HERE = "tests.models.test_obstacles"


class Attention(nn.Module):
    """Over rows of pixels."""

    def __init__(self, *, weights: bool = False, dropout: float = 0.0) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True, dropout=dropout)
        self.weights = weights

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(1, 2)
        output: Tensor = self.attend(rows, rows, rows, need_weights=self.weights)[0]
        return output.flatten(1)


class Scaled(nn.Module):
    """Scalar parameters, on images and on features."""

    def __init__(self, *, by_keyword: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, padding=1)
        self.factor, self.shift = nn.Parameter(torch.tensor(2.0)), nn.Parameter(torch.tensor(0.5))
        self.by_keyword = by_keyword

    def forward(self, x: Tensor) -> Tensor:
        x = self.factor * self.conv(x) * self.shift
        return torch.add(x.flatten(1), other=self.shift) if self.by_keyword else x.flatten(1) + self.shift


class OwnVector(nn.Module):
    """A vector as long as a batch, added by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.vector = nn.Linear(64, 5), nn.Parameter(torch.arange(5.0))

    def forward(self, x: Tensor) -> Tensor:
        return torch.add(self.fc(x.flatten(1)), other=self.vector)


class Doubling(nn.Linear):
    """A kind of linear layer with a forward of its own, which is not looked into."""

    is_one_operation = True

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class Rounded(torch.autograd.Function):
    """Goes forward in a stack; fails there on its way back."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Nothing is kept."""

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        raise ValueError("no way back")


class Backless(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(64, 5)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, Rounded.apply(self.fc(x.flatten(1))))  # type: ignore[no-untyped-call]


class Squared(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight.square()


def flat(layer: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Flatten(), layer)


def squared() -> nn.Module:
    layer = nn.Linear(64, 5)
    parametrize.register_parametrization(layer, "weight", Squared())
    return flat(layer)


def with_a_buffer() -> nn.Module:
    layer = nn.Linear(64, 5)
    layer.register_buffer("mask", torch.ones(5))
    return flat(layer)


def in_evaluation() -> nn.Module:
    norm = nn.BatchNorm2d(1)
    norm.running_mean = torch.tensor([0.5])
    norm.running_var = torch.tensor([4.0])
    return nn.Sequential(norm.eval(), nn.Dropout(0.5).eval(), flat(nn.Linear(64, 5)))


STACKED: dict[str, Callable[[], nn.Module]] = {
    "attention with weights": lambda: Attention(weights=True),
    "scalars": Scaled,
    "scalars by keyword": lambda: Scaled(by_keyword=True),
    "a vector by keyword": OwnVector,
    "a subclass": lambda: flat(Doubling(64, 5)),
    "squared weights": squared,
    "weights with a norm": lambda: flat(parametrizations.weight_norm(nn.Linear(64, 5))),
    "normed convolution": lambda: nn.Sequential(
        parametrizations.weight_norm(nn.Conv2d(1, 2, 3)), nn.BatchNorm2d(2), nn.Flatten()
    ),
    "a buffer of its own": with_a_buffer,
    "parts in evaluation": in_evaluation,
    "frozen": lambda: flat(nn.Linear(64, 5).requires_grad_(False)),
}
NOT_STACKED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "attention without weights": (Attention, "NoneType"),
    "attention that draws": (lambda: Attention(weights=True, dropout=0.5), "random"),
    "spectral norm": (lambda: flat(parametrizations.spectral_norm(nn.Linear(64, 5))), ""),
    "pruned": (lambda: flat(prune.random_unstructured(nn.Linear(64, 5), "weight", 0.5)), "has hooks"),
    "no way back": (Backless, "no way back"),
}


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")  # of weight_norm in a stack
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("kind", STACKED)
def test_what_can_be_stacked_gives_outputs_and_gradients_of_clients_alone(kind: str) -> None:
    torch.manual_seed(0)
    module, x = STACKED[kind]().double(), torch.randn(5, 5, 1, 8, 8)  # as many clients as samples
    assert obstacle_to_stacking(module, x[0]) is None
    stacks = {
        name: torch.stack([p.detach() * (1 + k) for k in range(5)]).requires_grad_(p.requires_grad)
        for name, p in module.named_parameters()
    }
    buffers = {name: torch.stack([b.clone() for _ in range(5)]) for name, b in module.named_buffers()}
    alone = torch.stack(
        [
            call(
                module,
                {name: p[k] for name, p in stacks.items()},
                {name: b[k].clone() for name, b in buffers.items()},
                x[k],
            )
            for k in range(5)
        ]
    )
    together = StackedModule(module)(stacks, buffers, x, [0] * 5)
    torch.testing.assert_close(together, alone)
    trained = [p for p in stacks.values() if p.requires_grad]
    if trained:
        ours = torch.autograd.grad(together.square().sum(), trained)
        theirs = torch.autograd.grad(alone.square().sum(), trained)
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("kind", NOT_STACKED)
def test_trial_of_stacking_may_fail_in_any_way_and_says_in_which(kind: str) -> None:
    make, told = NOT_STACKED[kind]
    reason = obstacle_to_stacking(make(), torch.randn(2, 1, 8, 8))
    assert reason
    assert "\n" not in reason
    assert told in reason


def model(*, num_classes: int, channels: int, image_size: int, kind: str) -> nn.Module:
    make = STACKED[kind] if kind in STACKED else NOT_STACKED[kind][0]
    first = make()
    size = first(torch.randn(2, channels, image_size, image_size)).shape[1]
    return nn.Sequential(first, nn.Linear(size, num_classes))


@pytest.mark.parametrize("kind", ["attention without weights", "spectral norm", "pruned", "squared weights"])
def test_auto_computes_one_after_the_other_what_cannot_be_stacked_and_a_wish_is_refused(
    tiny: Build, kind: str
) -> None:
    settings = (
        f"model._target_={HERE}.model",
        f"+model.kind={kind}",
        "model.cut='0'",
        "dataset.max_train=40",
    )
    run = tiny(*settings, "algorithm=splitfed_v1")
    assert isinstance(run.parts.engine, Vectorized if kind in STACKED else Sequential)
    before = run.algorithm.full_weights()
    run.run_round(0)
    after = run.algorithm.full_weights()
    assert any(not torch.equal(before[name], after[name]) for name in before if name.startswith("0."))
    if kind in NOT_STACKED:
        with pytest.raises(UserError, match=r"^engine=vectorized: .*computed for many at once \(.+\)$"):
            tiny(*settings, "engine=vectorized")


def old_weight_norm(*, num_classes: int, channels: int, image_size: int) -> nn.Module:
    layer = weight_norm(nn.Linear(channels * image_size**2, 5))
    return nn.Sequential(nn.Flatten(), layer, nn.Linear(5, num_classes))


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")
def test_old_weight_norm_a_hook_is_trained_one_client_after_the_other(tiny: Build) -> None:
    run = tiny(f"model._target_={HERE}.old_weight_norm", "model.cut='1'", "dataset.max_train=40")
    assert isinstance(run.parts.engine, Sequential)
    before = run.algorithm.full_weights()
    run.run_round(0)
    after = run.algorithm.full_weights()
    assert {"1.weight_g", "1.weight_v"} <= before.keys()
    assert all(not torch.equal(before[name], after[name]) for name in before)
