import struct

import pytest
import torch
from torch import Tensor

from fedsplit.deployment.backends.backend import SmashedData
from fedsplit.inference.codes import DeviceCodes
from fedsplit.quant.codec import NonFiniteTensor
from fedsplit.quant.message import Corrupt, Message

CODES = DeviceCodes()
SHAPE = (3, 2, 5, 5)


def codes(dtype: torch.dtype) -> Tensor:
    limits = torch.iinfo(dtype)
    return torch.randint(limits.min, limits.max + 1, SHAPE, generator=torch.Generator().manual_seed(1)).to(
        dtype
    )


@pytest.mark.parametrize(("dtype", "zero_point"), [(torch.uint8, 131), (torch.int8, -7)])
def test_device_codes_send_bytes_unchanged_and_decode_them_with_scale_and_zero_point(
    dtype: torch.dtype, zero_point: int
) -> None:
    values, scale = codes(dtype), 0.0123456789
    message = CODES.encode(SmashedData(values, scale, zero_point))
    assert message.payload == struct.pack("<di", scale, zero_point) + values.numpy().tobytes()
    wanted = (values.numpy().astype("float32") - zero_point) * torch.tensor(scale).numpy()
    assert torch.equal(CODES.decode(message), torch.from_numpy(wanted))
    assert CODES.largest(SHAPE, dtype) == len(message.payload) == 150 + 12


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_device_codes_bring_floats_exactly_whatever_their_memory_format(dtype: torch.dtype) -> None:
    values = torch.randn(SHAPE).to(dtype).contiguous(memory_format=torch.channels_last)
    decoded = CODES.decode(CODES.encode(SmashedData(values)))
    assert torch.equal(decoded, values.float())
    assert decoded.is_contiguous()
    assert CODES.largest(SHAPE, dtype) == 150 * dtype.itemsize


def test_device_codes_of_int8_take_at_most_0_27_of_the_bytes_of_float32() -> None:
    shape = (1, 128, 8, 8)
    assert CODES.largest(shape, torch.uint8) <= 0.27 * CODES.largest(shape, torch.float32)


def test_device_codes_do_not_encode_what_is_not_finite() -> None:
    with pytest.raises(NonFiniteTensor):
        CODES.encode(SmashedData(torch.tensor([[float("nan")]])))


LENGTHS = torch.tensor([2, 4, 1])
REAL = torch.arange(4) < LENGTHS[:, None]


def padded_texts(dtype: torch.dtype) -> Tensor:
    return torch.arange(1, 61).reshape(3, 4, 5).to(dtype)


@pytest.mark.parametrize(("context", "size"), [(4, 1), (300, 2)])
def test_device_codes_of_padded_texts_send_real_positions_and_the_lengths_of_texts(
    context: int, size: int
) -> None:
    of_texts, values = DeviceCodes(context, padding=float("nan")), padded_texts(torch.float32)
    values[~REAL] = float("inf")  # which is not looked at
    message = of_texts.encode(SmashedData(values), LENGTHS)
    assert len(message.payload) == 3 * size + 7 * 5 * 4
    assert message.shape == (3, 4, 5)
    decoded = of_texts.decode(message)
    assert torch.equal(decoded[REAL], values[REAL])
    assert decoded[~REAL].isnan().all()
    assert torch.equal(of_texts.lengths(message), LENGTHS)
    assert of_texts.largest((3, 4, 5), torch.float32) == 3 * size + 3 * 4 * 5 * 4


def test_device_codes_of_padded_texts_bring_codes_behind_scale_zero_point_and_lengths() -> None:
    of_texts, values = DeviceCodes(4), padded_texts(torch.uint8)
    message = of_texts.encode(SmashedData(values, 0.5, 3), LENGTHS)
    assert message.payload == struct.pack("<di3B", 0.5, 3, 2, 4, 1) + values[REAL].numpy().tobytes()
    assert torch.equal(of_texts.decode(message), ((values.float() - 3) * 0.5) * REAL[..., None])


@pytest.mark.parametrize("lengths", [(2, 4, 0), (2, 5, 1), (2, 3, 1)])
def test_device_codes_refuse_lengths_that_no_batch_of_this_shape_has(lengths: tuple[int, ...]) -> None:
    payload = bytes(lengths) + bytes(4 * 5 * sum(lengths))
    with pytest.raises(Corrupt, match="from 1 to 4 positions, and the longest must have 4"):
        DeviceCodes(8).decode(Message.seal(payload, (3, 4, 5), torch.float32))
    with pytest.raises(Corrupt, match="have no positions"):
        DeviceCodes(8).decode(Message.seal(bytes(24), (3, 2), torch.float32))
    with pytest.raises(Corrupt, match="a payload has 2 bytes, and 3 were expected"):
        DeviceCodes(8).decode(Message.seal(bytes(2), (3, 4, 5), torch.float32))


def sealed(scale: float, zero_point: int, dtype: torch.dtype = torch.uint8, more: bytes = b"") -> Message:
    payload = struct.pack("<di", scale, zero_point) + bytes(150) + more
    return Message.seal(payload, SHAPE, dtype)


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), 0.0, -1.0, 1e38])
def test_device_codes_refuse_a_message_whose_scale_gives_no_finite_numbers(scale: float) -> None:
    with pytest.raises(Corrupt, match=r"codes have scale .* which no sender writes"):
        CODES.decode(sealed(scale, 0))


@pytest.mark.parametrize(("dtype", "zero_point"), [(torch.uint8, -1), (torch.uint8, 256), (torch.int8, 128)])
def test_device_codes_refuse_a_message_whose_zero_point_is_no_code(
    dtype: torch.dtype, zero_point: int
) -> None:
    with pytest.raises(Corrupt, match=r"codes have scale .* which no sender writes"):
        CODES.decode(sealed(0.1, zero_point, dtype))


def test_device_codes_refuse_messages_of_another_length_or_type_and_altered_ones() -> None:
    with pytest.raises(Corrupt, match="a payload has 163 bytes, and 162 were expected"):
        CODES.decode(sealed(0.1, 0, more=b"x"))
    with pytest.raises(Corrupt, match=r"smashed data have type torch\.int64"):
        CODES.decode(Message.seal(bytes(8), (1,), torch.int64))
    whole = sealed(0.1, 0)
    altered = Message(bytes([*whole.payload[:-1], 1]), whole.shape, whole.dtype, whole.checksum)
    with pytest.raises(Corrupt, match="checksum"):
        CODES.decode(altered)
    nan = Message.seal(struct.pack("<f", float("nan")), (1,), torch.float32)
    with pytest.raises(Corrupt, match="not finite"):
        CODES.decode(nan)
