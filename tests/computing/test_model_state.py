import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedsplit.computing.model_state import ModelState, compute_format
from fedsplit.optim.optimizers import Adam, AdamW, Optimizer, Sgd

_ADAM: dict[str, Any] = {"lr": 0.05, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.01}
_SGD: dict[str, Any] = {"lr": 0.05, "dampening": 0.0, "weight_decay": 0.01}
OPTIMIZERS = [
    pytest.param(Adam(**_ADAM, amsgrad=False), id="adam"),
    pytest.param(AdamW(**_ADAM, amsgrad=True), id="adamw-amsgrad"),
    pytest.param(Sgd(**_SGD, momentum=0.0, nesterov=False), id="sgd"),
    pytest.param(Sgd(**_SGD, momentum=0.9, nesterov=True), id="sgd-nesterov"),
]
ADAM = Adam(**_ADAM, amsgrad=False)


def _module(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(24, 5),
    )


def _batch(step: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(step)
    return torch.randn(6, 3, 4, 4, generator=draw), torch.randint(5, (6,), generator=draw)


def _train(model: ModelState, steps: range, factor: float = 1.0) -> list[float]:
    losses = []
    for step in steps:
        x, y = _batch(step)
        loss = F.cross_entropy(model.forward(x, seed=step), y)
        model.descend(torch.autograd.grad(loss, list(model.parameters.values())), factor)
        losses.append(float(loss.detach()))
    return losses


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, dict):
        return set(left) == set(right) and all(_same(left[key], right[key]) for key in left)
    return torch.equal(left, right) if isinstance(left, Tensor) else bool(left == right)


def _plain(state: Any) -> Any:
    """What a checkpoint makes of a state: contiguous copies."""
    if isinstance(state, dict):
        return {key: _plain(value) for key, value in state.items()}
    return state.detach().clone(memory_format=torch.contiguous_format) if isinstance(state, Tensor) else state


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("steps_before", [0, 1, 4])
def test_model_state_loaded_from_another_continues_bit_for_bit(
    optimizer: Optimizer, steps_before: int
) -> None:
    model = ModelState(_module(), optimizer)
    _train(model, range(steps_before))
    other = ModelState(_module(seed=1), optimizer)
    other.load_state(_plain(model.state()))
    assert _same(other.state(), model.state())
    after = range(steps_before, steps_before + 4)
    assert _train(other, after) == _train(model, after)
    assert _same(other.state(), model.state())


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("steps_before", [0, 2])
def test_model_state_loaded_into_a_trained_one_replaces_it_whole(
    optimizer: Optimizer, steps_before: int
) -> None:
    model, used = ModelState(_module(), optimizer), ModelState(_module(seed=1), optimizer)
    _train(model, range(steps_before))
    _train(used, range(10, 13))
    used.load_state(_plain(model.state()))
    assert _train(used, range(5, 8)) == _train(model, range(5, 8))
    assert _same(used.state(), model.state())


def test_loaded_model_state_shares_no_memory_with_its_origin() -> None:
    model, other = ModelState(_module(), ADAM), ModelState(_module(), ADAM)
    _train(model, range(2))
    state = _plain(model.state())
    other.load_state(state)
    before = copy.deepcopy(state)
    _train(other, range(2, 4))
    assert _same(state, before)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_model_state_steps_are_those_of_the_module_with_the_optimizer_of_torch(optimizer: Optimizer) -> None:
    model, module = ModelState(_module(), optimizer), _module()
    built = optimizer.build(list(module.parameters()))
    for group in built.param_groups:
        group["lr"] = 0.5 * optimizer.lr
    expected = []
    for step in range(4):
        x, y = _batch(step)
        torch.manual_seed(step)
        loss = F.cross_entropy(module(x), y)
        built.zero_grad()
        loss.backward()
        built.step()
        expected.append(float(loss.detach()))
    assert _train(model, range(4), factor=0.5) == pytest.approx(expected, rel=1e-4)
    assert optimizer.lr == 0.05
    for name, value in module.state_dict().items():
        torch.testing.assert_close(model.weights()[name], value, rtol=1e-3, atol=1e-4)


def test_model_states_that_share_a_module_train_independently() -> None:
    module = _module()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    first, second = ModelState(module, ADAM), ModelState(module, ADAM)
    _train(first, range(3))
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(torch.equal(value, before[name]) for name, value in second.weights().items())
    assert _train(second, range(3)) == _train(ModelState(_module(), ADAM), range(3))


def test_forward_pass_updates_running_statistics_as_the_module_does() -> None:
    model, module = ModelState(_module()), _module()
    x, _ = _batch(0)
    model.forward(x, seed=0)
    module(x)
    assert set(model.buffers) == {f"1.{n}" for n in ("running_mean", "running_var", "num_batches_tracked")}
    for name, buffer in model.buffers.items():
        torch.testing.assert_close(buffer, module.get_buffer(name), rtol=1e-5, atol=1e-6)
        assert not torch.equal(buffer, _module().get_buffer(name))


def test_forward_pass_with_frozen_buffers_changes_no_weights_and_gives_the_same_output() -> None:
    model = ModelState(_module(), ADAM)
    before = copy.deepcopy(model.weights())
    frozen = model.frozen_buffers()
    output = model.forward(_batch(0)[0], seed=4, buffers=frozen)
    assert _same(model.weights(), before)
    assert not torch.equal(frozen["1.running_mean"], before["1.running_mean"])
    assert torch.equal(model.forward(_batch(0)[0], seed=4), output)
    assert not torch.equal(model.forward(_batch(0)[0], seed=5), output)  # other dropout


def test_loaded_parameters_are_channels_last_and_messages_contiguous() -> None:
    model, other = ModelState(_module(), ADAM), ModelState(_module(seed=1), ADAM)
    _train(model, range(1))
    for load, value in ((other.load, model.weights()), (other.load_state, _plain(model.state()))):
        load(value)
        for parameter in other.parameters.values():
            assert parameter.is_contiguous(memory_format=torch.channels_last) or parameter.dim() != 4
            assert parameter.requires_grad
    slot = other.state()["optimizer"]["3.weight"]
    assert slot["exp_avg"].stride() == other.parameters["3.weight"].stride()
    assert slot["exp_avg_sq"].stride() != slot["exp_avg_sq"].contiguous().stride()
    assert all(value.is_contiguous() for value in other.weights().values())
    assert list(other.weights()) == [n for n, _ in _module().named_parameters()] + list(other.buffers)


def test_forward_pass_does_not_depend_on_the_memory_format_of_its_input() -> None:
    x, _ = _batch(0)
    outputs = [
        ModelState(_module()).forward(x.contiguous(memory_format=memory_format), seed=0)
        for memory_format in (torch.contiguous_format, torch.channels_last)
    ]
    assert torch.equal(*outputs)


def test_loading_weights_leaves_the_optimizer_state_unchanged() -> None:
    model = ModelState(_module(), ADAM)
    _train(model, range(2))
    slots = copy.deepcopy(model.state()["optimizer"])
    model.load(ModelState(_module(seed=1)).weights())
    assert _same(model.state()["optimizer"], slots)
    assert _same(model.weights(), ModelState(_module(seed=1)).weights())


def test_weights_given_as_a_message_are_copies() -> None:
    model = ModelState(_module(), ADAM)
    weights = model.weights()
    before = copy.deepcopy(weights)
    _train(model, range(1))
    assert _same(weights, before)
    assert not any(value.requires_grad for value in weights.values())


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 3, 4), (2, 3, 4, 5)])
def test_compute_format_is_channels_last_for_images_only(shape: tuple[int, ...]) -> None:
    tensor = torch.randn(shape).movedim(0, -1) if shape else torch.randn(())
    found = compute_format(tensor)
    assert torch.equal(found, tensor)
    memory_format = torch.channels_last if len(shape) == 4 else torch.contiguous_format
    assert found.is_contiguous(memory_format=memory_format)


def test_dropout_follows_from_the_seed_of_the_pass_alone() -> None:
    x, _ = _batch(0)

    def output(seed: int, around: int) -> Tensor:
        torch.manual_seed(around)
        return ModelState(_module()).forward(x, seed=seed)

    assert torch.equal(output(4, around=1), output(4, around=2))
    assert not torch.equal(output(4, around=1), output(5, around=1))


@pytest.mark.parametrize("frozen", [False, True])
def test_forward_pass_without_a_seed_is_refused(frozen: bool) -> None:
    model = ModelState(_module())
    before = model.weights()
    with pytest.raises(TypeError, match="seed"):
        model.forward(_batch(0)[0], buffers=model.frozen_buffers() if frozen else None)  # type: ignore[call-arg]
    assert _same(model.weights(), before)
