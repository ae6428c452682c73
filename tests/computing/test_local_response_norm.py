from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from fedsplit.computing.local_response_norm import LocalResponseNorm

ARGUMENTS = {"alpha": 0.7, "k": 1.3}  # large enough that the windows matter
SHAPES = [(1, 1), (3, 2), (5, 4), (6, 5), (8, 3), (4, 9)]
DTYPES = [(torch.float32, 1e-6), (torch.float64, 1e-10)]


def _input(channels: int, dtype: torch.dtype, memory_format: torch.memory_format) -> Tensor:
    x = torch.randn(3, channels, 4, 5, generator=torch.Generator().manual_seed(channels), dtype=dtype)
    return x.to(memory_format=memory_format)


def _gradient(module: nn.Module | Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.detach().requires_grad_()
    y = module(x)
    direction = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    (dx,) = torch.autograd.grad(y, x, direction)
    return y.detach(), dx


@pytest.mark.parametrize(("channels", "size"), SHAPES)
@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_local_response_norm_has_the_outputs_and_gradients_of_torch(
    channels: int, size: int, dtype: torch.dtype, tolerance: float, memory_format: torch.memory_format
) -> None:
    x = _input(channels, dtype, memory_format)
    ours = LocalResponseNorm(channels, size=size, **ARGUMENTS).to(dtype)
    theirs = nn.LocalResponseNorm(size, beta=0.75, **ARGUMENTS)
    for found, expected in zip(_gradient(ours, x), _gradient(theirs, x), strict=True):
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
        assert found.dtype == dtype


def test_local_response_norm_computes_the_formula_of_the_paper() -> None:
    channels, size = 6, 4
    x = _input(channels, torch.float64, torch.contiguous_format)
    expected = torch.empty_like(x)
    for i in range(channels):
        window = x[:, max(0, i - size // 2) : i + (size - 1) // 2 + 1]
        expected[:, i] = x[:, i] / (1.3 + 0.7 / size * window.square().sum(1)) ** 0.75
    found = LocalResponseNorm(channels, size=size, **ARGUMENTS).double()(x)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("channels", "size"), [(5, 4), (3, 2)])
def test_local_response_norm_gradient_is_that_of_finite_differences(channels: int, size: int) -> None:
    module = LocalResponseNorm(channels, size=size, **ARGUMENTS).double()
    x = _input(channels, torch.float64, torch.channels_last)[:, :, :2, :2].requires_grad_()
    assert torch.autograd.gradcheck(module, (x,))


@pytest.mark.parametrize("wanted", ["input", "weights before it"])
def test_local_response_norm_refuses_a_second_differentiation(wanted: str) -> None:
    before = nn.Conv2d(3, 4, 1, bias=False).double()
    module = LocalResponseNorm(4, size=3, **ARGUMENTS).double()
    x = _input(3, torch.float64, torch.contiguous_format).requires_grad_()
    (dx,) = torch.autograd.grad(module(before(x)).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match=r"once|twice"):
        torch.autograd.grad(dx.square().sum(), x if wanted == "input" else before.weight)


def test_local_response_norm_under_vmap_has_the_outputs_and_gradients_of_each_client() -> None:
    module = LocalResponseNorm(5, size=4, **ARGUMENTS).double()
    x = torch.stack([_input(5, torch.float64, torch.contiguous_format) + i for i in range(3)])
    mapped = vmap(lambda each: functional_call(module, {}, (each,)))
    found = _gradient(mapped, x)
    one_by_one = [module(each) for each in x]
    torch.testing.assert_close(found[0], torch.stack(one_by_one), rtol=1e-13, atol=1e-13)
    theirs = nn.LocalResponseNorm(4, beta=0.75, **ARGUMENTS)
    expected = _gradient(lambda each: theirs(each.flatten(0, 1)).view_as(each), x)
    torch.testing.assert_close(found[1], expected[1], rtol=1e-10, atol=1e-10)


def test_local_response_norm_gradients_taken_inside_vmap_are_those_of_each_client() -> None:
    module = LocalResponseNorm(5, size=4, **ARGUMENTS).double()
    x = torch.stack([_input(5, torch.float64, torch.contiguous_format) + i for i in range(3)])
    inside = vmap(torch.func.grad(lambda each: module(each).square().sum()))(x)
    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(sum(module(each).square().sum() for each in leaf), leaf)
    torch.testing.assert_close(inside, expected, rtol=1e-12, atol=1e-12)


def test_local_response_norm_leaves_its_input_unchanged_and_has_no_state() -> None:
    module = LocalResponseNorm(5, size=4, **ARGUMENTS)
    x = _input(5, torch.float32, torch.channels_last)
    before = x.clone()
    module(x)
    assert torch.equal(x, before)
    assert not module.state_dict()
