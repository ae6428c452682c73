from typing import Any

import pytest
import torch
from torch import Tensor

from fedsplit.quant.codec import Quantizer
from fedsplit.quant.codecs.affine import affine
from fedsplit.quant.codecs.sign import Sign
from fedsplit.quant.codecs.topk import TopK
from fedsplit.quant.codecs.viewed import ReshapedSamples
from fedsplit.quant.codecs.zstd import Zstd
from fedsplit.quant.message import Corrupt, Message

SAMPLE = (3, 4, 5)
INNER: dict[str, Quantizer[Any]] = {
    "channel": affine(bits=4, granularity="channel"),
    "auto": affine(bits="auto", budget=2.0, granularity="channel"),
    "sign": Sign(granularity="channel", channel_dim=2),
    "topk": TopK(fraction=0.1),
    "zstd": Zstd(affine(bits=2, granularity="channel"), 3),
}


def _x(samples: int = 6) -> Tensor:
    return torch.randn(samples, 60, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", INNER)
def test_viewed_codes_flattened_samples_in_the_shape_they_had(name: str) -> None:
    inner, codec = INNER[name], ReshapedSamples(INNER[name], SAMPLE)
    flat, whole = _x(), _x().view(6, *SAMPLE)
    assert codec.encode(flat).payload == inner.encode(whole).payload
    assert codec.encode(flat).shape == (6, 60)
    assert torch.equal(codec.decode(codec.encode(flat)), inner.decode(inner.encode(whole)).view(6, 60))
    assert torch.equal(codec.error_bound(flat), inner.error_bound(whole).view(6, 60))
    assert codec.size(flat.shape) == inner.size(whole.shape)
    assert codec.max_size(flat.shape) == inner.max_size(whole.shape)


def test_viewed_channels_are_those_of_the_samples_not_of_the_flat_tensor() -> None:
    x = _x()
    x[:, :20] *= 1000  # one channel
    bare, viewed = (
        codec.simulate(x) for codec in (INNER["channel"], ReshapedSamples(INNER["channel"], SAMPLE))
    )
    assert bare.size == 60 * 2 + 30 + 180
    assert viewed.size == 3 * 2 + 2 + 180


@pytest.mark.parametrize("name", INNER)
def test_viewed_bounds_do_not_depend_on_the_memory_layout_of_the_samples(name: str) -> None:
    x = _x().T.contiguous().T
    assert not x.is_contiguous()
    codec = ReshapedSamples(INNER[name], SAMPLE)
    assert torch.equal(codec.error_bound(x), codec.error_bound(_x()))


@pytest.mark.parametrize("name", INNER)
def test_viewed_decoder_refuses_shapes_that_hold_no_such_samples(name: str) -> None:
    codec = ReshapedSamples(INNER[name], SAMPLE)
    for shape in ((), (6,), (360,), (6, 59), (6, 61), (6, 30), (12, 30), (6, 1, 59)):
        for payload in (codec.encode(_x()).payload, b"", bytes(10)):
            with pytest.raises(Corrupt):
                codec.decode(Message.seal(payload, shape, torch.float32))


def test_viewed_decoder_refuses_a_shape_without_dimensions() -> None:
    codec: ReshapedSamples[Any] = ReshapedSamples(
        affine(bits=8, granularity="tensor", symmetric=True), (1, 1)
    )
    payload = codec.encode(torch.ones(1, 1)).payload
    with pytest.raises(Corrupt):
        codec.decode(Message.seal(payload, (), torch.float32))
