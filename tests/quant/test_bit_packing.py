from math import ceil

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fedsplit.quant.bit_packing import from_bytes, pack, packed_size, to_bytes, unpack
from fedsplit.quant.message import Corrupt
from tests.oracles.codecs import numbers_in, stream
from tests.quant.drawn import DTYPES, tensors

WHOLE = (torch.uint8, torch.int16, torch.int32, torch.int64)


def _numbers(bits: int, count: int = 0) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(0, 2**bits - 1), min_size=max(count, 1), max_size=count or 70)


@pytest.mark.parametrize("bits", range(1, 41))
@given(data=st.data())
def test_packed_numbers_are_the_documented_bytes_and_are_unpacked_unchanged(
    bits: int, data: st.DataObject
) -> None:
    numbers = data.draw(_numbers(bits))
    dtype = data.draw(st.sampled_from([dtype for dtype in WHOLE if torch.iinfo(dtype).max >= 2**bits - 1]))
    payload = pack(torch.tensor(numbers, dtype=dtype), bits)
    assert payload == stream(numbers, bits)
    assert len(payload) == packed_size(len(numbers), bits) == ceil(len(numbers) * bits / 8)
    assert unpack(payload, len(numbers), bits).tolist() == numbers


@pytest.mark.parametrize("bits", range(1, 17))
@given(data=st.data(), count=st.integers(1, 40))
def test_unpacking_any_bytes_without_surplus_bits_gives_numbers_that_pack_to_them(
    bits: int, data: st.DataObject, count: int
) -> None:
    size = packed_size(count, bits)
    payload = data.draw(st.binary(min_size=size, max_size=size))
    if count * bits % 8:
        payload = payload[:-1] + bytes([payload[-1] & (1 << count * bits % 8) - 1])
    numbers = unpack(payload, count, bits)
    assert numbers.tolist() == numbers_in(payload, count, bits)
    assert pack(numbers, bits) == payload


@pytest.mark.parametrize("bits", range(1, 17))
def test_packed_extreme_numbers_are_unpacked_unchanged_at_counts_around_whole_words(bits: int) -> None:
    for count in (*range(1, 18), 63, 64, 65, 1000):
        for number in (0, 1, 2**bits - 1, 2 ** (bits - 1)):
            assert unpack(pack(torch.full((count,), number), bits), count, bits).eq(number).all()


@pytest.mark.parametrize("bits", range(1, 20))
def test_packing_no_numbers_takes_no_bytes(bits: int) -> None:
    assert pack(torch.zeros(0, dtype=torch.int32), bits) == b""
    assert unpack(b"", 0, bits).tolist() == []


def test_packing_takes_numbers_that_are_not_contiguous_in_memory() -> None:
    assert pack(torch.arange(8)[::2], 3) == stream([0, 2, 4, 6], 3)


@pytest.mark.cover(1)
@pytest.mark.parametrize("bits", range(1, 17))
@pytest.mark.parametrize("count", [1, 3, 8, 13])
def test_unpacking_refuses_payloads_of_another_length(bits: int, count: int) -> None:
    size = packed_size(count, bits)
    for length in {0, size - 1, size + 1, 2 * size} - {size}:
        with pytest.raises(Corrupt):
            unpack(bytes(length), count, bits)


@pytest.mark.cover(1)
@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6, 7, 9, 11, 15])
@pytest.mark.parametrize("count", [1, 3, 5, 7, 9])
def test_unpacking_refuses_each_set_bit_beyond_the_last_number(bits: int, count: int) -> None:
    payload = pack(torch.full((count,), 2**bits - 1), bits)
    used = count * (bits - 8 if bits > 8 else bits) % 8
    for bit in range(used, 8) if used else ():
        with pytest.raises(Corrupt):
            unpack(payload[:-1] + bytes([payload[-1] | 1 << bit]), count, bits)


@given(x=tensors())
def test_bytes_of_a_tensor_of_any_layout_give_its_values_back(x: Tensor) -> None:
    payload = to_bytes(x)
    assert len(payload) == x.numel() * x.element_size()
    assert torch.equal(from_bytes(payload, x.dtype), x.reshape(-1))


@pytest.mark.parametrize("dtype", [*DTYPES, *WHOLE, torch.bool])
def test_bytes_of_an_empty_tensor_and_of_a_scalar_give_their_values_back(dtype: torch.dtype) -> None:
    assert from_bytes(to_bytes(torch.zeros(2, 0, dtype=dtype)), dtype).shape == (0,)
    assert torch.equal(from_bytes(to_bytes(torch.ones((), dtype=dtype)), dtype), torch.ones(1, dtype=dtype))


def test_bytes_of_a_tensor_are_little_endian() -> None:
    assert to_bytes(torch.tensor([1, 256], dtype=torch.int16)) == b"\1\0\0\1"
    assert to_bytes(torch.tensor([1.0], dtype=torch.bfloat16)) == b"\x80\x3f"


@pytest.mark.parametrize("dtype", [dtype for dtype in (*DTYPES, *WHOLE) if dtype.itemsize > 1])
def test_reading_values_refuses_bytes_that_are_no_whole_number_of_them(dtype: torch.dtype) -> None:
    for length in (1, dtype.itemsize - 1, dtype.itemsize + 1):
        with pytest.raises(Corrupt):
            from_bytes(bytes(length), dtype)


def test_tensor_read_from_bytes_can_be_written_to() -> None:
    values = from_bytes(bytes(8), torch.float32)
    values += 1
    assert values.tolist() == [1, 1]
