"""Tensors without values: what only needs shapes runs, and what needs values fails."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fedsplit.models.splitting.unknown import Unknown, ValuesElsewhere

HERE = torch.device("cpu")


def unknown(*shape: int) -> Unknown:
    return Unknown.of(shape or (2, 3), torch.float32, HERE)


def test_shape_type_and_device_of_a_tensor_without_values_are_known() -> None:
    u = unknown(2, 3)
    assert (u.shape, u.dtype, u.device, u.size(0), len(u), u.numel()) == (
        (2, 3),
        torch.float32,
        HERE,
        2,
        2,
        6,
    )
    assert u.is_floating_point()


@pytest.mark.parametrize(
    "compute",
    [
        lambda u: u + 1,
        lambda u: torch.ones(2, 3) - u,
        lambda u: torch.stack([torch.ones(2, 3), u]),
        lambda u: F.linear(u, torch.randn(4, 3, requires_grad=True)),
        lambda u: F.dropout(u, 0.5),
        lambda u: u.to("cpu").to(torch.float64).to(HERE).cpu(),
        lambda u: u[:, 0],
        lambda u: torch.max(u, 1)[1],
        lambda u: u.split(1)[1],
        lambda u: torch.ones(2, 3).masked_fill(u > 0, 1.0),
        lambda u: torch.ones(2, 3).clamp(min=u[0, 0]),
        lambda u: u.add_(1),
        torch.as_tensor,
        lambda u: next(iter(u)),
    ],
)
def test_what_is_computed_of_a_tensor_without_values_has_none(compute: Callable[[Tensor], Tensor]) -> None:
    result = compute(unknown())
    assert isinstance(result, Unknown)
    assert result.device == HERE


@pytest.mark.parametrize(
    "make",
    [torch.zeros_like, torch.ones_like, lambda u: u.new_zeros(2, 3), lambda u: torch.full_like(u, 2.0)],
)
def test_tensors_made_of_no_more_than_a_shape_have_values(make: Callable[[Tensor], Tensor]) -> None:
    made = make(unknown())
    assert type(made) is Tensor
    assert made.shape == (2, 3)
    assert float(made.sum()) in (0.0, 6.0, 12.0)


def assigned(u: Tensor) -> None:
    torch.zeros(2, 3)[0] = u[0]


def added(u: Tensor) -> None:
    total = torch.zeros(2, 3)
    total += u


@pytest.mark.parametrize(
    "needing",
    [
        lambda u: bool(u.sum() > 0),
        lambda u: u.sum().item(),
        lambda u: int(u.sum()),
        lambda u: float(u[0, 0]),
        lambda u: range(u.sum().long()),
        lambda u: u.tolist(),
        lambda u: u.numpy(),
        lambda u: u.nonzero(),
        lambda u: u[u > 0],
        lambda u: torch.ones(2, 3)[u > 0],
        lambda u: torch.equal(u, torch.ones(2, 3)),
        lambda u: torch.allclose(u, u),
        torch.unique,
        lambda u: torch.masked_select(u, u > 0),
        lambda u: torch.ones(2, 3).repeat_interleave(u[0].long(), dim=1),
        lambda u: torch.tensor([u[0, 0], 1.0]),
        lambda u: torch.zeros(u.sum().long()),
        lambda u: 3 in u,
        lambda u: torch.ones(2, 3).add_(u),
        lambda u: torch.ones(2, 3).copy_(u),
        lambda u: torch.ones(2, 3).scatter_(1, torch.zeros(2, 3).long(), u),
        lambda u: torch.add(u, 1, out=torch.ones(2, 3)),
        assigned,
        added,
    ],
)
def test_what_needs_values_or_writes_them_down_fails(needing: Callable[[Tensor], object]) -> None:
    with pytest.raises(ValuesElsewhere, match="what only the client has"):
        needing(unknown())
