from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fedsplit.quant.message import Corrupt
from fedsplit.quant.scales import (
    LARGEST,
    SMALLEST,
    ScaleType,
    pack_values,
    round_to_nearest,
    round_up,
    scale_bytes,
    unpack_scales,
    unpack_values,
)
from tests.oracles.codecs import bfloat16, floats_in

SCALE_TYPES: tuple[ScaleType, ...] = ("bfloat16", "float32")
positive = st.lists(st.floats(SMALLEST, float(np.float32(LARGEST)), width=32), min_size=1, max_size=9)
within = st.lists(
    st.floats(-float(np.float32(LARGEST)), float(np.float32(LARGEST)), width=32), min_size=1, max_size=9
)


@given(scales=positive)
def test_scale_is_rounded_up_to_the_next_bfloat16(scales: list[float]) -> None:
    rounded = round_up(torch.tensor(scales), "bfloat16")
    assert rounded.tolist() == bfloat16(np.array(scales), up=True).tolist()


@given(scales=positive)
def test_scale_of_type_float32_is_not_rounded(scales: list[float]) -> None:
    assert round_up(torch.tensor(scales), "float32").tolist() == torch.tensor(scales).tolist()


@pytest.mark.parametrize("scale_type", SCALE_TYPES)
@pytest.mark.parametrize(("scale", "expected"), [(0.0, SMALLEST), (1e-40, SMALLEST), (torch.inf, LARGEST)])
def test_scale_is_clamped_to_where_it_and_its_inverse_are_finite(
    scale: float, expected: float, scale_type: ScaleType
) -> None:
    rounded = round_up(torch.tensor([scale]), scale_type)
    assert float(rounded) == pytest.approx(expected, rel=2**-7)
    assert torch.isfinite(rounded).all()
    assert torch.isfinite(1 / rounded).all()


@given(values=within)
def test_nearest_bfloat16_value_is_that_of_the_reference(values: list[float]) -> None:
    assert round_to_nearest(torch.tensor(values), "bfloat16").tolist() == bfloat16(np.array(values)).tolist()


@pytest.mark.parametrize("scale_type", SCALE_TYPES)
@pytest.mark.parametrize("value", [3.4e38, torch.inf])
def test_nearest_value_of_too_large_a_magnitude_is_the_largest_of_the_type(
    value: float, scale_type: ScaleType
) -> None:
    for sign in (1, -1):
        assert float(round_to_nearest(torch.tensor([sign * value]), scale_type)) == pytest.approx(
            sign * LARGEST, rel=2**-8
        )


@pytest.mark.parametrize("scale_type", SCALE_TYPES)
@given(values=within)
def test_rounded_values_and_scales_are_unpacked_exactly_as_packed(
    scale_type: ScaleType, values: list[float]
) -> None:
    rounded = round_to_nearest(torch.tensor(values), scale_type)
    payload = pack_values(rounded, scale_type)
    assert len(payload) == len(values) * scale_bytes(scale_type)
    assert floats_in(payload, scale_type).tolist() == rounded.tolist()
    assert torch.equal(unpack_values(payload, scale_type), rounded)
    scales = round_up(rounded.abs(), scale_type)
    assert torch.equal(unpack_scales(pack_values(scales, scale_type), scale_type), scales)


@pytest.mark.parametrize(("scale_type", "size"), [("bfloat16", 2), ("float32", 4)])
def test_packed_scale_takes_two_bytes_as_bfloat16_and_four_as_float32(
    scale_type: ScaleType, size: int
) -> None:
    assert scale_bytes(scale_type) == len(pack_values(torch.ones(1), scale_type)) == size


@pytest.mark.parametrize("scale_type", SCALE_TYPES)
def test_unpacking_no_bytes_gives_no_values(scale_type: ScaleType) -> None:
    assert unpack_values(b"", scale_type).tolist() == []


@pytest.mark.parametrize("scale_type", SCALE_TYPES)
@pytest.mark.parametrize("unpack", [unpack_values, unpack_scales])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_unpacking_refuses_values_and_scales_that_are_not_finite(
    unpack: Callable[[bytes, ScaleType], Tensor], value: float, scale_type: ScaleType
) -> None:
    with pytest.raises(Corrupt):
        unpack(pack_values(torch.tensor([1.0, value]), scale_type), scale_type)


@pytest.mark.parametrize("scale_type", SCALE_TYPES)
@pytest.mark.parametrize("value", [0.0, -0.0, -1.0])
def test_unpacking_refuses_scales_that_are_not_above_zero(value: float, scale_type: ScaleType) -> None:
    with pytest.raises(Corrupt):
        unpack_scales(pack_values(torch.tensor([1.0, value]), scale_type), scale_type)
