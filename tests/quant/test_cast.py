import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fedsplit.quant.codecs.bfloat16 import BFloat16
from fedsplit.quant.codecs.cast import Cast
from fedsplit.quant.codecs.float16 import Float16
from fedsplit.quant.message import Corrupt, Message
from tests.oracles.codecs import bfloat16, floats_in
from tests.quant.drawn import tensors

CODECS = {"float16": Float16(), "bfloat16": BFloat16()}
finite = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=9)


@given(values=finite)
def test_float16_payload_is_the_nearest_values_clamped_to_its_range(values: list[float]) -> None:
    x = torch.tensor(values)
    expected = np.clip(np.array(values), -65504, 65504).astype(np.float16)
    message = Float16().encode(x)
    assert message.payload == expected.astype("<f2").tobytes()
    assert Float16().decode(message).tolist() == expected.astype(np.float32).tolist()


@given(values=finite)
def test_bfloat16_payload_is_the_nearest_values_clamped_to_its_range(values: list[float]) -> None:
    largest = 255 * 2.0**120
    expected = np.clip(bfloat16(np.array(values)), -largest, largest)
    message = BFloat16().encode(torch.tensor(values))
    assert floats_in(message.payload, "bfloat16").tolist() == expected.tolist()
    assert BFloat16().decode(message).tolist() == expected.tolist()


@pytest.mark.parametrize("name", CODECS)
@given(x=tensors())
def test_cast_takes_two_bytes_a_value(name: str, x: Tensor) -> None:
    assert CODECS[name].size(x.shape) == len(CODECS[name].encode(x).payload) == 2 * x.numel()


def test_cast_errors_are_at_most_the_documented_ones() -> None:
    draw = np.random.default_rng(0)
    x = torch.from_numpy(draw.choice([-1, 1], 5000) * 2 ** draw.uniform(-14, 15.9, 5000)).to(torch.float32)
    for codec, relative in ((Float16(), 2**-11), (BFloat16(), 2**-8)):
        error = (codec.simulate(x).decoded.double() - x.double()).abs()
        assert (error <= relative * x.double().abs()).all()
        assert error.max() > 0
    small = torch.from_numpy(draw.uniform(-(2**-14), 2**-14, 5000)).to(torch.float32)
    assert ((Float16().simulate(small).decoded - small).abs() <= 2**-25).all()


def test_cast_error_of_float64_values_too_small_for_float32_is_within_the_bound() -> None:
    x = torch.tensor([2.0**-134 + 2.0**-151, -(2.0**-134) - 2.0**-151, 2.0**-150], dtype=torch.float64)
    for codec in CODECS.values():
        assert ((codec.decode(codec.encode(x)) - x).abs() <= codec.error_bound(x)).all()


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_cast_decoder_refuses_values_that_are_not_finite(value: float, name: str) -> None:
    cast: Cast = CODECS[name]
    payload = torch.tensor([1.0, value], dtype=cast.dtype).view(torch.uint8).numpy().tobytes()
    with pytest.raises(Corrupt):
        cast.decode(Message.seal(payload, (2,), torch.float32))
