from dataclasses import replace
from time import perf_counter
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fedsplit.quant.codec import Codec, Quantizer
from fedsplit.quant.codecs.affine import affine
from fedsplit.quant.codecs.bfloat16 import BFloat16
from fedsplit.quant.codecs.float8 import Float8
from fedsplit.quant.codecs.float16 import Float16
from fedsplit.quant.codecs.identity import Identity
from fedsplit.quant.codecs.randtopk import RandTopK
from fedsplit.quant.codecs.sign import Sign
from fedsplit.quant.codecs.topk import TopK
from fedsplit.quant.codecs.viewed import ReshapedSamples
from fedsplit.quant.codecs.zstd import Zstd
from fedsplit.quant.message import Corrupt, Message, expect
from tests.quant.drawn import DTYPES, Shape

CLOSED: dict[str, Quantizer[Any]] = {
    "float16": Float16(),
    "bfloat16": BFloat16(),
    "float8_tensor": Float8(),
    "float8_channel": Float8(granularity="channel", scale_type="float32"),
    "float8_block": Float8(granularity="block", block_size=5),
    "affine1": affine(bits=1, granularity="tensor"),
    "affine3_channel": affine(bits=3, granularity="channel", scale_type="float32"),
    "affine5_symmetric": affine(bits=5, granularity="block", block_size=5, symmetric=True),
    "affine8": affine(bits=8, granularity="channel", symmetric=True),
    "affine11": affine(bits=11, granularity="tensor", rounding="stochastic"),
    "affine16": affine(bits=16, granularity="block", block_size=3, scale_type="float32"),
    "sign": Sign(granularity="channel"),
    "topk": TopK(fraction=0.4),
    "randtopk": RandTopK(fraction=0.4),
    "viewed": ReshapedSamples(affine(bits=4, granularity="channel"), (3, 1)),
}
"""Codecs whose sizes follow from shapes."""
QUANTIZERS: dict[str, Quantizer[Any]] = {
    **CLOSED,
    "auto": affine(bits="auto", budget=6.0, granularity="channel"),
    "auto_block": affine(bits="auto", budget=4.0, granularity="block", block_size=5, symmetric=True),
    "zstd": Zstd(affine(bits=4, granularity="channel"), 3),
    "zstd_auto": Zstd(affine(bits="auto", budget=3.0, granularity="channel"), 3),
}
CODECS: dict[str, Codec] = {"identity": Identity(), **QUANTIZERS}

MESSAGE = Message.seal(b"payload", (2, 3), torch.float32)


def _x(rows: int = 4) -> Tensor:
    return torch.randn(rows, 3, generator=torch.Generator().manual_seed(3))


def _compressible() -> Tensor:
    """Long enough and plain enough that zstandard makes it smaller."""
    return torch.cat([_x(), torch.zeros(60, 3)])


def _messages(codec: Codec) -> list[Message]:
    return [codec.encode(x) for x in (_x(), _x().half(), _compressible())]


def _flipped(payload: bytes, bit: int) -> bytes:
    return (int.from_bytes(payload, "little") ^ 1 << bit).to_bytes(len(payload), "little")


def _check_decoded_or_refused(codec: Codec, message: Message) -> None:
    """Anything but `Corrupt` that is raised comes through."""
    try:
        decoded = codec.decode(message)
    except Corrupt:
        return
    assert (decoded.shape, decoded.dtype) == (message.shape, message.dtype)
    assert torch.isfinite(decoded).all()


def test_sealed_message_opens_to_its_payload() -> None:
    assert MESSAGE.verified_payload() == b"payload"


@pytest.mark.parametrize(
    "change",
    [
        {"payload": b"payloae"},
        {"payload": b"payloa"},
        {"payload": b"payload\0"},
        {"payload": b""},
        {"shape": (3, 2)},
        {"shape": (6,)},
        {"shape": (2, 3, 1)},
        {"dtype": torch.float64},
        {"dtype": torch.bfloat16},
        {"checksum": MESSAGE.checksum ^ 1},
        {"checksum": 0},
    ],
)
def test_sealed_message_is_refused_after_a_change_of_any_field(change: dict[str, Any]) -> None:
    with pytest.raises(Corrupt, match="altered"):
        replace(MESSAGE, **change).verified_payload()


def test_checksums_differ_for_shapes_of_the_same_digits() -> None:
    sealed = {Message.seal(b"", shape, torch.float32).checksum for shape in ((12,), (1, 2), (2, 1), (21,))}
    assert len(sealed) == 4


@pytest.mark.parametrize(("length", "size"), [(0, 1), (1, 0), (5, 4), (4, -1)])
def test_payload_of_another_length_than_expected_is_refused_with_both_lengths(length: int, size: int) -> None:
    with pytest.raises(Corrupt, match=f"a payload has {length} bytes, and {size} were expected"):
        expect(bytes(length), size)
    expect(bytes(length), length)


@pytest.mark.parametrize("name", CODECS)
def test_codec_refuses_a_message_with_any_flipped_bit(name: str) -> None:
    for message in _messages(CODECS[name]):
        CODECS[name].decode(message)
        for bit in range(8 * len(message.payload)):
            with pytest.raises(Corrupt):
                CODECS[name].decode(replace(message, payload=_flipped(message.payload, bit)))


@pytest.mark.parametrize("name", CODECS)
def test_codec_refuses_cut_and_lengthened_payloads_even_with_a_matching_checksum(name: str) -> None:
    for message in _messages(CODECS[name]):
        payload = message.payload
        others = [payload[:length] for length in range(len(payload))]
        others += [payload + more for more in (b"\0", b"\1", b"\xff", bytes(8), payload)]
        for other in others:
            for altered in (replace(message, payload=other), _resealed(message, payload=other)):
                with pytest.raises(Corrupt):
                    CODECS[name].decode(altered)


@pytest.mark.parametrize("name", CODECS)
def test_flipped_bits_with_a_matching_checksum_are_refused_or_decoded_to_finite_values(name: str) -> None:
    for message in _messages(CODECS[name]):
        for bit in range(0, 8 * len(message.payload), 3):  # each place in a byte, of every third byte
            altered = _resealed(message, payload=_flipped(message.payload, bit))
            _check_decoded_or_refused(CODECS[name], altered)


@pytest.mark.parametrize("name", CODECS)
@given(data=st.data())
def test_arbitrary_bytes_with_a_matching_checksum_are_refused_or_decoded_to_finite_values(
    name: str, data: st.DataObject
) -> None:
    dtype = data.draw(st.sampled_from(DTYPES))
    size = len(CODECS[name].encode(_x().to(dtype)).payload)
    payload = data.draw(st.one_of(st.binary(min_size=size, max_size=size), st.binary(max_size=60)))
    _check_decoded_or_refused(CODECS[name], Message.seal(payload, (4, 3), dtype))


SHAPES = st.lists(st.integers(0, 7), max_size=5).map(tuple)


@pytest.mark.parametrize("name", CODECS)
@given(shape=SHAPES, dtype=st.sampled_from(DTYPES))
def test_other_shape_or_type_with_a_matching_checksum_is_refused_or_decoded_as_declared(
    name: str, shape: Shape, dtype: torch.dtype
) -> None:
    for x in (_x(), _compressible()):
        message = CODECS[name].encode(x)
        _check_decoded_or_refused(CODECS[name], _resealed(message, shape=shape))
        _check_decoded_or_refused(CODECS[name], _resealed(message, shape=shape, dtype=dtype))


@pytest.mark.cover(1)
@pytest.mark.parametrize("name", QUANTIZERS)
@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool, torch.complex64])
def test_quantizers_refuse_messages_of_types_that_are_not_floating_point(
    name: str, dtype: torch.dtype
) -> None:
    for message in (QUANTIZERS[name].encode(_x()), Message.seal(b"", (0, 3), torch.float32)):
        with pytest.raises(Corrupt):
            QUANTIZERS[name].decode(_resealed(message, dtype=dtype))


@pytest.mark.parametrize("name", CODECS)
def test_payload_for_an_empty_tensor_is_refused_unless_empty(name: str) -> None:
    for shape in ((0,), (0, 3), (2, 0, 3)):
        for payload in (b"\0", b"\1", bytes(40)):
            with pytest.raises(Corrupt):
                CODECS[name].decode(Message.seal(payload, shape, torch.float32))


@pytest.mark.parametrize("name", CODECS)
def test_codec_refuses_shapes_that_no_tensor_can_have(name: str) -> None:
    for shape in ((-1,), (-4, 3), (-4, -3), (4, -1, -3), (0, -3), (0, 2**70)):
        for payload in (CODECS[name].encode(_x()).payload, b""):
            with pytest.raises(Corrupt):
                CODECS[name].decode(Message.seal(payload, shape, torch.float32))


@pytest.mark.cover(1)
@pytest.mark.parametrize("name", ["identity", *CLOSED])
@pytest.mark.parametrize("shape", [(10**18,), (10**6, 10**6, 10**6), (10**9, 3, 1), (3, 10**30)])
def test_codec_refuses_huge_shapes_of_short_payloads_before_allocating_memory(
    name: str, shape: Shape
) -> None:
    """Memory of this size cannot be had, so that it was asked for would show as another error."""
    begun = perf_counter()
    for payload in (b"", b"\1", CODECS[name].encode(_x()).payload):
        with pytest.raises(Corrupt):
            CODECS[name].decode(Message.seal(payload, shape, torch.float32))
    assert perf_counter() - begun < 1


@pytest.mark.parametrize("name", QUANTIZERS)
def test_decoded_values_near_the_limits_of_a_16_bit_type_stay_finite(name: str) -> None:
    """A sender's float16 values are in its range; after coding they are still."""
    for dtype in (torch.float16, torch.bfloat16):
        limits = torch.finfo(dtype)
        x = torch.tensor([[limits.max], [limits.min], [0.9 * limits.max], [1.0]], dtype=dtype).expand(4, 3)
        assert torch.isfinite(CODECS[name].decode(CODECS[name].encode(x))).all()


def _resealed(message: Message, **changes: Any) -> Message:
    """Another message with a checksum that fits it."""
    other = replace(message, **changes)
    return Message.seal(other.payload, other.shape, other.dtype)
