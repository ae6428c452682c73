"""Models that cannot be trained here are refused before a run, in one line that says why."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fedsplit.errors import UserError
from fedsplit.models.splitting.checks import check_output, check_tensors
from fedsplit.models.splitting.split import split
from fedsplit.models.splitting.tied import copy_without_ties
from fedsplit.objectives.classification import Classification
from tests.conftest import Build

X, Y = torch.randn(2, 1, 4, 4), torch.arange(2)


class Net(nn.Module):
    """`a` and `b` are linear layers; what becomes of their logits is up to the test."""

    def __init__(self, change: Callable[[Tensor], Any] = lambda logits: logits) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(16, 4), nn.Linear(4, 3)
        self.change = change

    def forward(self, x: Tensor) -> Any:
        return self.change(self.b(self.a(x.flatten(1))))


def test_model_of_logits_is_left_alone_by_the_checks() -> None:
    net = Net()
    net.register_buffer("constants", torch.arange(3.0).double())
    net.register_parameter("counts", nn.Parameter(torch.arange(3), requires_grad=False))
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    check_tensors(net)
    check_output(net, Classification(3), X, Y)
    assert net.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda logits: {"logits": logits},
            r"its output is no tensor but a dict; it must be logits",
        ),
        (lambda logits: (logits, logits), "its output is no tensor but a tuple"),
        (lambda logits: None, "its output is no tensor but a NoneType"),
        (lambda logits: logits[:, :2], r"its output is \(2, 2\) for 2 images, must be logits \(n, 3\)"),
        (lambda logits: logits[..., None], r"its output is \(2, 3, 1\) for 2 images"),
        (lambda logits: logits.mean(0), r"its output is \(3,\) for 2 images"),
        (lambda logits: logits.mean(), r"its output is \(\) for 2 images"),
        (lambda logits: logits.argmax(1), r"its output is \(2,\) for 2 images"),
        (lambda logits: logits.round().int(), "its output is int32, must be floating-point"),
        (lambda logits: logits > 0, "its output is bool, must be floating-point"),
        (lambda logits: torch.complex(logits, logits), "its output is complex64, must be floating-point"),
        (lambda logits: logits @ logits, r"does not fit images \(1, 4, 4\) \(mat1 and mat2"),
        (lambda logits: logits.no_such, r"its forward fails on images \(1, 4, 4\) \(AttributeError: "),
    ],
)
def test_outputs_that_are_no_logits_are_refused(change: Callable[[Tensor], Any], told: str) -> None:
    with pytest.raises(UserError, match=f"^model=Net: {told}"):
        check_output(Net(change), Classification(3), X, Y)


@pytest.mark.parametrize(
    ("b", "told"),
    [
        (nn.LazyLinear(3), "b.weight is lazy, without a shape"),
        (nn.Sequential(nn.LazyBatchNorm1d()), "b.0.weight is lazy"),
        (nn.Sequential(nn.LazyBatchNorm1d(affine=False)), "b.0.running_mean is lazy"),
        (nn.Linear(4, 3, dtype=torch.complex64), "b.weight is complex64, must be float32"),
        (nn.Linear(4, 3).half(), "b.weight is float16, must be float32"),
        (nn.Linear(4, 3).bfloat16(), "b.weight is bfloat16, must be float32"),
        (nn.Linear(4, 3).double(), "b.weight is float64, must be float32"),
        (nn.Linear(4, 3).double().requires_grad_(False), "b.weight is float64, must be float32"),
    ],
)
def test_parameters_of_another_kind_are_refused(b: nn.Module, told: str) -> None:
    net = Net()
    net.b = b
    with pytest.raises(UserError, match=f"^model=Net: {told}"):
        check_tensors(net)


def test_complex_buffer_is_refused() -> None:
    net = Net()
    net.register_buffer("waves", torch.zeros(2, dtype=torch.complex64))
    with pytest.raises(UserError, match="model=Net: waves is complex64, must be float32"):
        check_tensors(net)


def locked(net: Net) -> None:
    net.lock = threading.Lock()


def derived(net: Net) -> None:
    net.scaled = 2 * net.a.weight


@pytest.mark.parametrize("break_it", [locked, derived])
@pytest.mark.parametrize("use", [lambda net: split(net, "a", X), copy_without_ties])
def test_model_that_cannot_be_copied_is_refused(
    break_it: Callable[[Net], None], use: Callable[[Net], object]
) -> None:
    net = Net()
    break_it(net)
    with pytest.raises(UserError, match=r"^model=Net: cannot be deep-copied \((TypeError|RuntimeError): "):
        use(net)


def whole(*, num_classes: int, channels: int, image_size: int, fault: str) -> nn.Module:
    size = channels * image_size**2
    first = nn.Linear(size, 5).half() if fault == "half" else nn.LazyLinear(5)
    classes = num_classes + 1 if fault == "classes" else num_classes
    layers = nn.Linear(size, 5) if fault == "classes" else first, nn.Linear(5, classes)
    return nn.Sequential(nn.Flatten(), *layers)


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("half", "1.weight is float16"),
        ("lazy", "1.weight is lazy"),
        ("classes", r"its output is \(2, 11\) for 2 images"),
    ],
)
def test_run_is_refused_when_its_model_is(tiny: Build, fault: str, told: str) -> None:
    with pytest.raises(UserError, match=f"^model=Sequential: {told}"):
        tiny("model._target_=tests.models.test_checks.whole", "model.cut=1", f"+model.fault={fault}")
