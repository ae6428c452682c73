import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fedsplit.computing.multiply_adds import attention_in_products, multiply_adds


def attention() -> nn.Module:
    return nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=True).eval()


MODULES = {
    "convolutions": (nn.Sequential(nn.Conv2d(3, 8, 3, groups=1), nn.BatchNorm2d(8), nn.ReLU()), (2, 3, 9, 9)),
    "grouped": (nn.Conv2d(8, 8, 3, stride=2, groups=4), (2, 8, 9, 9)),
    "linear": (nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 3)), (4, 12)),
    "attention": (attention(), (2, 7, 16)),
}


@pytest.mark.parametrize(("module", "shape"), MODULES.values(), ids=MODULES)
def test_multiply_adds_of_forward_passes_are_those_counted_by_torch(
    module: nn.Module, shape: tuple[int, ...]
) -> None:
    x = torch.randn(shape)
    with torch.no_grad():
        found = multiply_adds(lambda: module(x))
        with attention_in_products(), FlopCounterMode(display=False) as counter:
            module(x)
    assert found == counter.get_total_flops() // 2 > 0


def test_multiply_adds_of_convolution_linear_layer_and_relu_are_the_closed_forms() -> None:
    x = torch.randn(5, 3, 8, 8)
    assert multiply_adds(lambda: nn.Conv2d(3, 4, 3, padding=1)(x)) == 5 * 64 * 4 * 3 * 9
    assert multiply_adds(lambda: nn.Linear(7, 11)(torch.randn(5, 7))) == 5 * 7 * 11
    assert multiply_adds(lambda: x.relu() + 1) == 0


def test_multiply_adds_of_a_backward_pass_are_twice_the_forward_pass_or_once_for_inputs_alone() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 10))
    x = torch.randn(5, 3, 8, 8, requires_grad=True)
    forward = multiply_adds(lambda: module(x))
    assert (
        multiply_adds(lambda: torch.autograd.grad(module(x).sum(), [x, *module.parameters()])) == 3 * forward
    )
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    assert multiply_adds(lambda: torch.autograd.grad(module(x).sum(), x)) == 2 * forward
