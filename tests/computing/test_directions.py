import pytest
import torch
from torch import Tensor, nn

from fedsplit.computing.directions import gradients_along


def test_gradients_along_directions_are_those_of_autograd_to_the_bit() -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)).to(
        memory_format=torch.channels_last  # type: ignore[call-overload]
    )
    x, weights = torch.randn(5, 3, 9, 9), list(module.parameters())
    along = torch.randn(5, 4, 5, 5)

    def outputs() -> tuple[Tensor, Tensor]:
        z = module(x)
        return z, z.square().sum()

    z, loss = outputs()
    expected = torch.autograd.grad([z, loss], weights, [along, None])
    z, loss = outputs()
    found = gradients_along([(z, along), (loss, None)], weights)
    assert all(map(torch.equal, found, expected))
    assert [each.stride() for each in found] == [each.stride() for each in expected]


def test_gradient_of_an_output_itself_is_the_direction() -> None:
    z, along = torch.randn(3, 2, requires_grad=True), torch.randn(3, 2)
    (found,) = gradients_along([(z * 1, along)], [z])
    assert torch.equal(found, along)


def test_direction_of_another_shape_is_an_error() -> None:
    z = torch.randn(3, 2, requires_grad=True)
    with pytest.raises(AssertionError):
        gradients_along([(z * 1, torch.randn(2, 3))], [z])
