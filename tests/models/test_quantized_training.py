"""Client models that round: what of them, under which names, and against whole numbers in numpy."""

from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

from fedsplit.computing.model_state import ModelState
from fedsplit.errors import UserError
from fedsplit.models.rounding.fake_quantization import FakeQuantizedActivations, weights_of
from fedsplit.models.rounding.quantized_training import (
    RANGES,
    FakeQuantization,
    as_floats,
    build_fake_quantized,
)
from fedsplit.models.splitting.split import split
from fedsplit.models.zoo.cifar_resnet import cifar_resnet
from fedsplit.models.zoo.digits_cnn import digits_cnn
from tests.quant.test_weight_grid import drawn

INT8 = FakeQuantization(weight_bits=8, activations=True)


def digits_client() -> nn.Module:
    torch.manual_seed(0)
    whole = digits_cnn(num_classes=10, channels=1, image_size=8).train()
    return split(whole, "flatten", drawn(2, 1, 8, 8)).client


def places_of_rounding(client: nn.Module) -> list[str]:
    return [
        name.removeprefix(f"{RANGES}.")
        for name, each in client.named_modules()
        if type(each) is FakeQuantizedActivations
    ]


def test_fake_quantized_model_keeps_parameter_names_and_leaves_the_original_unchanged() -> None:
    client = digits_client()
    before = {name: tensor.clone() for name, tensor in client.state_dict().items()}
    made = build_fake_quantized(client, drawn(2, 1, 8, 8), INT8)
    kept = {name: tensor for name, tensor in made.state_dict().items() if not name.startswith(RANGES)}
    assert list(kept) == list(before) == list(client.state_dict())
    assert all(torch.equal(before[name], tensor) for name, tensor in kept.items())
    assert list(dict(made.named_parameters())) == list(dict(client.named_parameters()))
    assert type(client.get_submodule("conv1")) is nn.Conv2d
    extra = sum(t.numel() * t.element_size() for name, t in made.state_dict().items() if name not in kept)
    assert extra == 16 * len(places_of_rounding(made)) == 16 * 3


def test_fake_quantized_model_without_activations_has_no_ranges() -> None:
    client = digits_client()
    made = build_fake_quantized(client, drawn(2, 1, 8, 8), FakeQuantization(weight_bits=2, activations=False))
    assert list(made.state_dict()) == list(client.state_dict())
    assert len(torch.unique(weights_of(made.get_submodule("conv2")).values[0])) <= 3


def test_fake_quantized_model_does_not_round_between_fused_operations() -> None:
    whole = cifar_resnet(num_classes=10, channels=3, image_size=8, depth=20).train()
    client = split(whole, "layer1", drawn(2, 3, 8, 8)).client
    names = places_of_rounding(build_fake_quantized(client, drawn(2, 3, 8, 8), INT8))
    # the input, the stem behind its activation, and of each block the first activation, the branch, the sum
    assert len(names) == 2 + 3 * 3
    assert not any("conv" in name for name in names)


def test_fake_quantized_pass_gives_the_codes_of_integer_arithmetic() -> None:
    made = build_fake_quantized(digits_client(), drawn(2, 1, 8, 8), INT8)
    for _ in range(3):
        made(torch.randn(16, 1, 8, 8))
    made.eval()
    x = drawn(5, 1, 8, 8)
    ranges = made.get_submodule(RANGES)
    grids = {name: [float(v) for v in each.grid()] for name, each in ranges.named_children()}
    names = list(grids)
    scale, zero = grids[names[0]]
    codes = np.clip(np.rint(x.numpy() / np.float32(scale)) + zero, 0, 255).astype(np.int64)
    for layer, name in (("conv1", names[1]), ("conv2", names[2])):
        weights, bias = weights_of(made.get_submodule(layer)), made.get_parameter(f"{layer}.bias")
        sums = convolved(codes - int(zero), weights.codes.numpy().astype(np.int64))
        steps = (scale * weights.scale.double().numpy())[None, :, None, None]
        values = np.maximum(sums * steps + bias.detach().double().numpy()[None, :, None, None], 0)
        scale, zero = grids[name]
        codes = np.clip(np.rint(values / scale) + zero, 0, 255).astype(np.int64)
    pooled = codes.reshape(5, 16, 4, 2, 4, 2).max((3, 5)).reshape(5, -1)
    with torch.no_grad():
        found = made(x).numpy() / scale + zero
    assert np.abs(found - np.rint(found)).max() < 1e-3
    apart = np.abs(np.rint(found) - pooled)
    assert apart.max() <= 1  # values that float32 puts on the other side of a half
    assert (apart > 0).mean() < 0.002
    assert len(np.unique(pooled)) > 50


def convolved(codes: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """A 3x3 convolution, padded by one, of whole numbers."""
    n, _, h, w = codes.shape
    padded = np.pad(codes, ((0, 0), (0, 0), (1, 1), (1, 1)))
    out = np.zeros((n, len(weights), h, w), dtype=np.int64)
    for i in range(3):
        for j in range(3):
            out += np.einsum("nchw,oc->nohw", padded[:, :, i : i + h, j : j + w], weights[:, :, i, j])
    return out


def test_fake_quantized_pass_with_frozen_buffers_updates_no_ranges() -> None:
    state = ModelState(build_fake_quantized(digits_client(), drawn(2, 1, 8, 8), INT8))
    before = state.weights()
    frozen = state.frozen_buffers()
    z = state.forward(drawn(3, 1, 8, 8), seed=0, buffers=frozen)
    assert all(torch.equal(before[name], tensor) for name, tensor in state.weights().items())
    assert torch.equal(z, state.forward(drawn(3, 1, 8, 8), seed=0))
    assert all(torch.equal(frozen[name], state.buffers[name]) for name in frozen)
    assert all(each == 1 for name, each in frozen.items() if name.endswith("num_batches_tracked"))


def test_as_floats_gives_an_ordinary_model_with_the_rounded_weights() -> None:
    client, x = digits_client(), drawn(3, 1, 8, 8)
    before = {name: tensor.clone() for name, tensor in client.state_dict().items()}
    rounding = FakeQuantization(weight_bits=2, activations=False)
    for chosen in (rounding, FakeQuantization(weight_bits=2, activations=True)):
        floats = as_floats(build_fake_quantized(client, x, chosen))
        assert list(floats.state_dict()) == list(before)
        assert {type(each).__module__.partition(".")[0] for each in floats.children()} == {"torch"}
        assert torch.equal(floats(x), build_fake_quantized(client, x, rounding)(x))
        assert not torch.equal(floats(x), client(x))
    assert all(torch.equal(before[name], tensor) for name, tensor in client.state_dict().items())


def test_fake_quantization_of_a_client_model_without_layers_to_round_is_refused() -> None:
    layers = OrderedDict(norm=nn.BatchNorm2d(1), flatten=nn.Flatten(), fc=nn.Linear(64, 10))
    client = split(nn.Sequential(layers).train(), "flatten", drawn(2, 1, 8, 8)).client
    with pytest.raises(UserError, match="weight_bits=4: the client model has no convolution"):
        build_fake_quantized(client, drawn(2, 1, 8, 8), FakeQuantization(weight_bits=4, activations=False))
