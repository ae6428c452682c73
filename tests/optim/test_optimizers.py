from collections.abc import Callable
from functools import partial
from math import sqrt
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fedsplit.computing.model_state import ModelState
from fedsplit.config.component import Component
from fedsplit.errors import UserError
from fedsplit.optim.optimizers import Adam, AdamW, Optimizer, Sgd

LR = 0.1
ADAM: dict[str, Any] = {"lr": LR, "betas": [0.8, 0.9], "eps": 1e-3, "weight_decay": 0.0, "amsgrad": False}
SGD: dict[str, Any] = {
    "lr": LR,
    "momentum": 0.0,
    "dampening": 0.0,
    "weight_decay": 0.0,
    "nesterov": False,
}


def _values_after_steps(optimizer: Optimizer, gradients: list[float], start: float = 2.0) -> list[float]:
    """Values of one float64 parameter after each step along given gradients."""
    parameter = torch.tensor([start], dtype=torch.float64, requires_grad=True)
    stepped = optimizer.build([parameter])
    values = []
    for gradient in gradients:
        parameter.grad = torch.tensor([gradient], dtype=torch.float64)
        stepped.step()
        values.append(float(parameter.detach()))
    return values


def test_sgd_steps_against_the_gradient_plus_weight_decay() -> None:
    assert _values_after_steps(Sgd(**SGD), [0.5]) == pytest.approx([2.0 - LR * 0.5])
    assert _values_after_steps(Sgd(**{**SGD, "weight_decay": 0.3}), [0.5]) == pytest.approx(
        [2.0 - LR * (0.5 + 0.3 * 2.0)]
    )


def test_sgd_with_momentum_and_dampening_keeps_a_dampened_sum_of_gradients() -> None:
    first = 0.5  # the buffer starts as the first gradient
    second = 0.9 * first + (1 - 0.4) * 0.7
    values = _values_after_steps(Sgd(**{**SGD, "momentum": 0.9, "dampening": 0.4}), [0.5, 0.7])
    assert values == pytest.approx([2.0 - LR * first, 2.0 - LR * (first + second)])


def test_sgd_with_nesterov_looks_ahead_along_the_momentum() -> None:
    buffers = [0.5, 0.9 * 0.5 + 0.7]
    moves = [0.5 + 0.9 * buffers[0], 0.7 + 0.9 * buffers[1]]
    values = _values_after_steps(Sgd(**{**SGD, "momentum": 0.9, "nesterov": True}), [0.5, 0.7])
    assert values == pytest.approx([2.0 - LR * moves[0], 2.0 - LR * sum(moves)])


@pytest.mark.parametrize("changes", [{"momentum": 0.0}, {"momentum": 0.9, "dampening": 0.1}])
def test_nesterov_without_plain_momentum_is_refused(changes: dict[str, float]) -> None:
    with pytest.raises(UserError, match=r"^nesterov=True") as caught:
        Sgd(**{**SGD, "nesterov": True, **changes})
    assert (caught.value.key, caught.value.value) == ("nesterov", True)


@pytest.mark.parametrize("path", ["optimizer", "client_optimizer", "auxiliary.optimizer"])
def test_refused_optimizer_argument_is_named_by_its_place_in_the_configuration(path: str) -> None:
    node: dict[str, Any] = {"_target_": "fedsplit.optim.optimizers.Sgd", **SGD, "nesterov": True}
    with pytest.raises(UserError) as caught:
        Component.of(path, node).build(Optimizer)
    assert (caught.value.key, caught.value.value) == (f"{path}.nesterov", True)
    node["momentum"] = 0.9
    assert Component.of(path, node).build(Optimizer) == Sgd(**{**SGD, "nesterov": True, "momentum": 0.9})


def _adam_by_hand(gradients: list[float], *, decay: float, decoupled: bool, amsgrad: bool) -> list[float]:
    b1, b2 = ADAM["betas"]
    value, m, v, largest, values = 2.0, 0.0, 0.0, 0.0, []
    for t, given in enumerate(gradients, start=1):
        if decoupled:
            value -= LR * decay * value
        gradient = given if decoupled else given + decay * value
        m = b1 * m + (1 - b1) * gradient
        v = b2 * v + (1 - b2) * gradient**2
        largest = max(largest, v)
        second = (largest if amsgrad else v) / (1 - b2**t)
        value -= LR * m / (1 - b1**t) / (sqrt(second) + ADAM["eps"])
        values.append(value)
    return values


@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize(("kind", "decoupled"), [(Adam, False), (AdamW, True)])
def test_adam_and_adamw_step_as_in_their_papers(kind: type[Adam], decoupled: bool, amsgrad: bool) -> None:
    gradients = [0.5, -3.0, 0.01, 0.02]
    values = _values_after_steps(kind(**{**ADAM, "weight_decay": 0.3, "amsgrad": amsgrad}), gradients)
    expected = _adam_by_hand(gradients, decay=0.3, decoupled=decoupled, amsgrad=amsgrad)
    assert values == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    "optimizer", [Adam(**{**ADAM, "amsgrad": True}), AdamW(**ADAM), Sgd(**{**SGD, "momentum": 0.9})]
)
def test_optimizer_step_of_a_parameter_depends_on_no_other_parameter(optimizer: Optimizer) -> None:
    draw = torch.Generator().manual_seed(0)
    starts = [torch.randn(shape, generator=draw) for shape in [(3, 2), (4,), (2, 3, 2, 2)]]
    gradients = [[torch.randn(s.shape, generator=draw) for s in starts] for _ in range(3)]

    def stepped(which: list[int]) -> list[Tensor]:
        parameters = [starts[i].clone().requires_grad_() for i in which]
        built = optimizer.build(parameters)
        for each in gradients:
            for parameter, i in zip(parameters, which, strict=True):
                parameter.grad = each[i].clone()
            built.step()
        return [parameter.detach() for parameter in parameters]

    together = stepped([0, 1, 2])
    for i, value in enumerate(together):
        assert torch.equal(value, stepped([i])[0])
        assert not torch.equal(value, starts[i])


@pytest.mark.parametrize("optimizer", [Adam(**ADAM), AdamW(**ADAM), Sgd(**{**SGD, "momentum": 0.9})])
def test_optimizer_step_does_not_depend_on_the_strides_of_a_gradient(optimizer: Optimizer) -> None:
    draw = torch.Generator().manual_seed(1)
    module = nn.Conv2d(3, 4, 2, bias=False).to(memory_format=torch.channels_last)
    gradient = torch.randn(4, 3, 2, 2, generator=draw)
    results = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        state = ModelState(module, optimizer)
        state.descend([gradient.clone(memory_format=memory_format)], 1.0)
        results.append(state.weights()["weight"])
    assert torch.equal(*results)
    parameter = module.weight.detach().clone(memory_format=torch.contiguous_format).requires_grad_()
    parameter.grad = gradient.clone()
    optimizer.build([parameter]).step()
    torch.testing.assert_close(results[0], parameter.detach(), rtol=0, atol=1e-7)


OWN_AND_TORCHS = {
    "adam": (Adam(**ADAM), partial(torch.optim.Adam, **ADAM, fused=True)),
    "amsgrad": (
        Adam(**{**ADAM, "amsgrad": True, "weight_decay": 0.1}),
        partial(torch.optim.Adam, **{**ADAM, "amsgrad": True, "weight_decay": 0.1}, fused=True),
    ),
    "adamw": (
        AdamW(**{**ADAM, "weight_decay": 0.1}),
        partial(torch.optim.AdamW, **{**ADAM, "weight_decay": 0.1}, fused=True),
    ),
    "sgd": (Sgd(**SGD), partial(torch.optim.SGD, **SGD)),
    "momentum": (
        Sgd(**{**SGD, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
        partial(torch.optim.SGD, **{**SGD, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    ),
}


@pytest.mark.parametrize(("own", "torchs"), OWN_AND_TORCHS.values(), ids=OWN_AND_TORCHS)
def test_optimizer_steps_to_the_bit_as_the_class_of_torch_with_its_wrappers_does(
    own: Optimizer, torchs: Callable[[list[Tensor]], torch.optim.Optimizer]
) -> None:
    draw = torch.Generator().manual_seed(0)
    start = [torch.randn(shape, generator=draw) for shape in ((3, 4), (5,))]
    sides = []
    for build in (own.build, torchs):
        weights = [each.clone().requires_grad_() for each in start]
        optimizer = build(weights)
        draw.manual_seed(1)
        for step in range(4):
            for group in optimizer.param_groups:
                group["lr"] = LR / (1 + step)
            for each in weights:
                each.grad = torch.randn(each.shape, generator=draw)
            optimizer.step()
        slots = [value for each in weights for value in optimizer.state[each].values() if value is not None]
        sides.append([*weights, *slots])
    assert len(sides[0]) == len(sides[1])
    assert all(map(torch.equal, *sides))
