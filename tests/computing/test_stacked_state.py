"""Stacked passes and steps against one client after the other."""

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedsplit.computing.local_response_norm import LocalResponseNorm
from fedsplit.computing.model_state import ModelState
from fedsplit.computing.stacked_state import StackedState, rows_of
from fedsplit.optim.optimizers import Adam, AdamW, RowOptimizer, Sgd

CLIENTS, BATCH = 3, 4


class Residual(nn.Module):
    """Functions and methods between modules, in place and not, and a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4, momentum=0.3)
        self.scale = nn.Parameter(torch.rand(4, 1, 1))
        self.register_buffer("shift", torch.rand(4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm(self.conv(x))) * self.scale + self.shift
        y += x
        y = torch.cat([y, x.relu()], 1).mean((2, 3), keepdim=True)
        return y.view(y.size(0), -1) * 2 + 1


class Shaped(nn.Module):
    """A forward that asks for shapes, and flattens by function."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.avg_pool2d(x.reshape(x.shape[0], 2, 4, -1), 2)
        return F.log_softmax(self.fc(torch.flatten(torch.cat([x, x], 1), 1)), dim=-1)


IMAGES = (BATCH, 4, 6, 6)
MODULES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(7, 3), (BATCH, 7)),
    "linear without bias": (lambda: nn.Linear(7, 3, bias=False), (BATCH, 7)),
    "linear on sequences": (lambda: nn.Linear(7, 3), (BATCH, 5, 7)),
    "conv": (lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1, dilation=2), IMAGES),
    "grouped conv": (lambda: nn.Conv2d(4, 6, 3, groups=2, bias=False), IMAGES),
    "conv same": (lambda: nn.Conv2d(4, 6, 3, padding="same"), IMAGES),
    "conv reflect": (lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), IMAGES),
    "conv, norm, pool, fc": (
        lambda: nn.Sequential(
            *(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(24, 9), nn.BatchNorm1d(9), nn.GELU(), nn.Dropout(0.4), nn.Linear(9, 5)),
        ),
        IMAGES,
    ),
    "norm without statistics": (lambda: nn.BatchNorm2d(4, track_running_stats=False), IMAGES),
    "norm without parameters": (
        lambda: nn.Sequential(nn.BatchNorm2d(4, affine=False), nn.Conv2d(4, 2, 1)),
        IMAGES,
    ),
    "norm of sequences": (lambda: nn.BatchNorm1d(5), (BATCH, 5, 7)),
    "layer norm": (lambda: nn.LayerNorm(7), (BATCH, 7)),
    "group norm": (lambda: nn.GroupNorm(2, 4), IMAGES),
    "local response norm": (
        lambda: nn.Sequential(nn.Conv2d(4, 4, 1), LocalResponseNorm(4, size=3, alpha=0.5, k=1.0)),
        IMAGES,
    ),
    "dropout of images": (
        lambda: nn.Sequential(nn.Dropout(0.3), nn.Conv2d(4, 2, 1), nn.Dropout(0.3)),
        IMAGES,
    ),
    "adaptive pool": (
        lambda: nn.Sequential(nn.Conv2d(4, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        IMAGES,
    ),
    "residual": (Residual, IMAGES),
    "shaped": (lambda: nn.Sequential(nn.Conv2d(4, 2, 3), Shaped()), IMAGES),
}


def _lone_clients(module: nn.Module, optimizer: RowOptimizer) -> list[ModelState]:
    clients = []
    for client in range(CLIENTS):
        state = ModelState(module, optimizer)
        draw = torch.Generator().manual_seed(client)
        state.load(
            {n: t + torch.rand(t.shape, generator=draw).to(t.dtype) for n, t in state.weights().items()}
        )
        clients.append(state)
    return clients


def _stack(module: nn.Module, optimizer: RowOptimizer, clients: list[ModelState]) -> StackedState:
    stack = StackedState(module, CLIENTS, optimizer)
    for row, client in enumerate(clients):
        stack.load_row_state(row, client.state())
    return stack


def _assert_rows_equal(stack: StackedState, clients: list[ModelState], tolerance: float) -> None:
    for row, client in enumerate(clients):
        theirs, ours = client.state(), stack.row_state(row)
        assert ours["weights"].keys() == theirs["weights"].keys()
        for name, tensor in theirs["weights"].items():
            torch.testing.assert_close(
                ours["weights"][name], tensor, rtol=0, atol=tolerance, check_dtype=True
            )
        for name, slots in theirs["optimizer"].items():
            kept = {key: value for key, value in slots.items() if value is not None}
            assert ours["optimizer"][name].keys() == kept.keys()
            for key, value in kept.items():
                torch.testing.assert_close(ours["optimizer"][name][key], value, rtol=0, atol=tolerance)


SGD = Sgd(lr=0.1, weight_decay=0, momentum=0.9, dampening=0, nesterov=False)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("rows", [[0, 1, 2], [1, 2], [2, 0], [1]], ids=str)
@pytest.mark.parametrize("name", MODULES)
def test_stacked_state_passes_and_steps_of_rows_are_those_of_each_client(name: str, rows: list[int]) -> None:
    make, shape = MODULES[name]
    torch.manual_seed(0)
    module = make().to(torch.float64)
    has_parameters = bool(list(module.parameters()))
    clients = _lone_clients(module, SGD)
    stack = _stack(module, SGD, clients)
    for step in range(2):
        x = torch.rand(CLIENTS, *shape, dtype=torch.float64)
        ours = stack.rows(rows_of(rows))
        leaf = x[rows].clone().requires_grad_()
        out = ours.forward(leaf, seed=[10 * step + row for row in rows])
        through, *gradients = torch.autograd.grad(out.square().sum(), [leaf, *ours.parameters.values()])
        for place, row in enumerate(rows):
            alone = x[row].clone().requires_grad_()
            expected = clients[row].forward(alone, seed=10 * step + row)
            torch.testing.assert_close(out[place], expected, rtol=0, atol=1e-12)
            back, *own = torch.autograd.grad(
                expected.square().sum(), [alone, *clients[row].parameters.values()]
            )
            torch.testing.assert_close(through[place], back, rtol=0, atol=1e-10)
            clients[row].descend([each / 100 for each in own], 0.5)
        if has_parameters:
            ours.descend([each / 100 for each in gradients], 0.5)
    _assert_rows_equal(stack, clients, 1e-10)


@pytest.mark.usefixtures("float64")
def test_stacked_state_pass_with_frozen_buffers_leaves_the_statistics_unchanged() -> None:
    module = nn.BatchNorm2d(4).to(torch.float64)
    stack = StackedState(module, CLIENTS, SGD)
    before = {name: tensor.clone() for name, tensor in stack.tensors().items()}
    some = stack.rows(slice(0, 2))
    buffers = some.frozen_buffers()
    some.forward(torch.rand(2, *IMAGES, dtype=torch.float64), seed=[], buffers=buffers)
    assert all(torch.equal(tensor, before[name]) for name, tensor in stack.tensors().items())
    some.move_buffers(buffers)
    moved = stack.buffers["running_mean"]
    assert not torch.equal(moved[:2], before["running_mean"][:2])
    assert torch.equal(moved[2], before["running_mean"][2])
    assert stack.buffers["num_batches_tracked"].tolist() == [1, 1, 0]


ADAM = {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-6}
STEPPERS: list[RowOptimizer] = [
    *(Sgd(lr=0.1, weight_decay=w, momentum=0, dampening=0, nesterov=False) for w in (0, 0.1)),
    *(Sgd(lr=0.1, weight_decay=0.1, momentum=0.9, dampening=d, nesterov=False) for d in (0, 0.3)),
    Sgd(lr=0.1, weight_decay=0, momentum=0.9, dampening=0, nesterov=True),
    *(Adam(**ADAM, weight_decay=w, amsgrad=a) for w in (0, 0.1) for a in (False, True)),  # type: ignore[arg-type]
    *(AdamW(**ADAM, weight_decay=w, amsgrad=a) for w in (0, 0.1) for a in (False, True)),  # type: ignore[arg-type]
]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("optimizer", STEPPERS, ids=str)
def test_stacked_state_rows_are_stepped_as_by_torch_at_counts_of_their_own(optimizer: RowOptimizer) -> None:
    module = nn.Linear(5, 4).to(torch.float64)
    clients = _lone_clients(module, optimizer)
    stack = _stack(module, optimizer, clients)
    for rows in ([0, 1, 2], [0, 1], [0], [2, 0], [0, 1, 2], [1, 2]):
        gradients = [torch.randn(len(rows), *p.shape, dtype=torch.float64) for p in module.parameters()]
        stack.rows(rows_of(rows)).descend(gradients, 0.7)
        for place, row in enumerate(rows):
            clients[row].descend([each[place].clone() for each in gradients], 0.7)
    _assert_rows_equal(stack, clients, 1e-13)
    again = StackedState(module, CLIENTS, optimizer)
    for row in range(CLIENTS):
        again.load_row_state(row, stack.row_state(row))
    everything = slice(0, CLIENTS)
    gradients = [torch.randn(CLIENTS, *p.shape, dtype=torch.float64) for p in module.parameters()]
    for state in (stack, again):
        state.rows(everything).descend(copy.deepcopy(gradients), 1.0)
    assert all(torch.equal(tensor, again.tensors()[name]) for name, tensor in stack.tensors().items())


@pytest.mark.parametrize("clients", [1, 2])
def test_stacked_state_shares_no_memory_with_the_module(clients: int) -> None:
    module = nn.Linear(2, 2)
    before = module.weight.detach().clone()
    StackedState(module, clients).load_all({"weight": torch.zeros(2, 2), "bias": torch.zeros(2)})
    assert torch.equal(module.weight, before)


@pytest.mark.parametrize("rows", [[0, 1], [2, 0]], ids=str)
def test_what_is_kept_beside_parameters_moves_with_its_rows_and_is_part_of_their_state(
    rows: list[int],
) -> None:
    module = nn.Linear(2, 3)
    stack, lone = (
        StackedState(module, CLIENTS, SGD, keeps=["total"]),
        ModelState(module, SGD, keeps=["total"]),
    )
    some = stack.rows(rows_of(rows))
    for tensor in some.rule_tensors["total"].values():
        tensor.add_(torch.tensor([1.0, 2.0]).view(-1, *[1] * (tensor.ndim - 1)))
    some.descend([torch.zeros_like(each) for each in some.trainable.values()], 1.0)
    for row in range(CLIENTS):
        lone.load_state(stack.row_state(row))
        added = float(rows.index(row) + 1) if row in rows else 0.0
        assert all(bool((each == added).all()) for each in lone.rule_tensors["total"].values())
    stack.load_row_state(rows[1], lone.state())
    assert all(
        torch.equal(each[rows[1]], lone.rule_tensors["total"][name])
        for name, each in stack.rule_tensors["total"].items()
    )
