"""Every model choice, at every cut (of the deep ones, some): the halves are the whole."""

from collections.abc import Iterable, Iterator

import pytest
import torch
from torch import Tensor, nn

from fedsplit.models.splitting.cuts import Cut, Cuts, resolve_cut
from fedsplit.models.splitting.split import SplitModel, divide, split
from tests.cases import long_but
from tests.models.zoo import CHOICES, EVERY_RUN, built, settings_of, side_of

_SAMPLES = 3
_CUTS = 3
"""Number of cuts of a model; those with more are cut at about so many evenly spread places, and at stages."""
_WITH_ALL_KINDS = ("resnet18", "resnet50", "resnet20")
_ALIKE = {name for name in CHOICES if name.startswith("resnet") and name not in _WITH_ALL_KINDS} | {
    "efficientnet_v2_s"
}
"""Models cut only at a stage and within a block: their blocks are those of a shallower model."""


def _sampled(cuts: Cuts, names: Iterable[str], most: int) -> list[Cut]:
    """Different ones: stages first, then evenly spread, and some where several tensors cross."""
    possible = list({cut.end: cut for cut in cuts.possible}.values())
    if len(possible) <= most:
        return possible
    several = [cut for cut in possible if len(cut.crossing) > 1]
    stages = [cuts[name] for name in names]
    if most == 2:
        return [stages[len(stages) // 2], several[len(several) // 2]]
    spread = [*possible[:: len(possible) // most + 1], *several[:: len(several) // 3 + 1]]
    return list({cut.end: cut for cut in (*stages, *spread)}.values())


def _pass(module: nn.Module | SplitModel, x: Tensor) -> tuple[Tensor, Tensor]:
    """Smashed data (the outputs, of the whole) and outputs, and gradients as training makes them."""
    torch.manual_seed(1)
    if isinstance(module, nn.Module):
        outputs = module(x)
        outputs.square().sum().backward()
        return outputs, outputs
    sent = module.client(x)
    z = sent.detach().clone().requires_grad_()
    outputs = module.server(z)
    outputs.square().sum().backward()
    sent.backward(z.grad)
    return sent, outputs


def _close(one: Tensor, other: Tensor, *, exactly: bool, least: float = 0.0) -> bool:
    """To the bit, or to a millionth of the largest value, or to `least`."""
    if exactly or not one.is_floating_point():
        return torch.equal(one, other)
    one, other = one.detach(), other.detach()
    return float((one - other).abs().max()) <= max(1e-6 * float(other.abs().max()), least)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("choice", long_but([*EVERY_RUN[:4]], CHOICES))
def test_halves_of_a_choice_compute_what_the_whole_computes_at_every_cut(choice: str) -> None:
    side = side_of(choice)
    whole, x = built(choice, image_size=side), torch.randn(_SAMPLES, 3, side, side)
    cuts = Cuts(whole, x)
    settings = settings_of(choice)
    default = resolve_cut(cuts, settings["cut"], settings["stages"])
    stages = settings["stages"] or [default]
    assert all(cuts[name].obstacle is None for name in (default, *stages))
    sampled = _sampled(cuts, stages, 2 if choice in _ALIKE else _CUTS)
    names = sorted(whole.state_dict())
    before = {name: tensor.clone() for name, tensor in whole.state_dict().items()}
    for training in (True,) if choice in _ALIKE else (True, False):
        whole.train(training)
        whole.zero_grad()
        whole.load_state_dict(before)
        _, expected = _pass(whole, x)
        gradients = {name: p.grad for name, p in whole.named_parameters()}
        noise = 1e-12 * max(float(each.abs().max()) for each in gradients.values())  # biases before BatchNorm
        moved = {name: tensor.clone() for name, tensor in whole.state_dict().items()}
        for cut in sampled:
            exactly = len(cut.crossing) == 1
            whole.zero_grad()
            whole.load_state_dict(before)
            halves = divide(cuts, cut)  # holds the very tensors of the whole
            for half in (halves.client, halves.server):
                half.train(training)
            sent, outputs = _pass(halves, x)
            shape = cut.shapes[0] if exactly else (sum(map(_size, cut.shapes)),)
            assert sent.shape == (_SAMPLES, *shape)
            held = [list(half.state_dict()) for half in (halves.client, halves.server)]
            assert sorted(held[0] + held[1]) == names
            assert all(any(True for _ in half.parameters()) for half in (halves.client, halves.server))
            assert _close(outputs, expected, exactly=exactly), cut.name
            for name, parameter in whole.named_parameters():
                assert _close(parameter.grad, gradients[name], exactly=exactly, least=noise), (cut.name, name)
            for name, tensor in whole.state_dict().items():
                assert _close(tensor, moved[name], exactly=exactly, least=1e-12), (cut.name, name)


def _size(shape: tuple[int, ...]) -> int:
    return torch.Size(shape).numel()


@pytest.mark.parametrize("choice", long_but(EVERY_RUN, [name for name in CHOICES if name not in _ALIKE]))
def test_split_of_a_choice_shares_no_memory_with_the_original_and_leaves_it_unchanged(choice: str) -> None:
    side = side_of(choice)
    whole, x = built(choice, image_size=side), torch.randn(_SAMPLES, 3, side, side)
    before = {name: tensor.clone() for name, tensor in whole.state_dict().items()}
    settings = settings_of(choice)
    halves = split(whole, resolve_cut(Cuts(whole, x), settings["cut"], settings["stages"]), x)
    own = {tensor.data_ptr() for tensor in _tensors(whole)}
    for half in (halves.client, halves.server):
        assert half.training
        assert own.isdisjoint(tensor.data_ptr() for tensor in _tensors(half) if tensor.numel())
        for name, tensor in half.state_dict().items():
            assert torch.equal(tensor, before[name]), name
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()
