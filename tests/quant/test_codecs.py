from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fedsplit.quant.codec import Codec, NonFiniteTensor, Quantizer
from fedsplit.quant.codecs.affine import affine
from fedsplit.quant.codecs.bfloat16 import BFloat16
from fedsplit.quant.codecs.float8 import Float8
from fedsplit.quant.codecs.float16 import Float16
from fedsplit.quant.codecs.identity import Identity
from fedsplit.quant.codecs.randtopk import RandTopK
from fedsplit.quant.codecs.sign import Sign
from fedsplit.quant.codecs.topk import TopK
from fedsplit.quant.codecs.zstd import Zstd
from tests.cases import long_but
from tests.quant.drawn import (
    CASES,
    DTYPES,
    EMPTY_SHAPES,
    LAYOUTS,
    affines,
    codecs_with_tensors,
    is_in_every_run,
    laid_out,
    tensors,
)

SEEDS = st.integers(0, 2**63 - 1)
LOSSY: dict[str, Quantizer[Any]] = {
    "float16": Float16(),
    "bfloat16": BFloat16(),
    **{f"float8_{name}": Float8(granularity=name) for name in ("tensor", "channel", "block")},
    **{f"affine4_{name}": affine(bits=4, granularity=name) for name in ("tensor", "channel", "block")},
    "affine12_mse": affine(bits=12, granularity="channel", range="mse", symmetric=True),
    "affine2_random": affine(bits=2, granularity="block", block_size=7, rounding="stochastic"),
    "auto": affine(bits="auto", budget=2.0, granularity="channel"),
    "sign": Sign(),
    "topk": TopK(fraction=0.3),
    "randtopk": RandTopK(fraction=0.3),
    "zstd": Zstd(affine(bits=3, granularity="tensor"), 1),
}
CODECS: dict[str, Codec] = {"identity": Identity(), **LOSSY}


def _check_error(codec: Codec, x: Tensor, seed: int) -> None:
    before = x.clone()
    decoded, bound = codec.decode(codec.encode(x, seed=seed)), codec.error_bound(x)
    assert torch.equal(x, before), "encoding wrote to the tensor"
    assert (decoded.shape, decoded.dtype, decoded.is_contiguous()) == (x.shape, x.dtype, True)
    assert (bound.shape, bound.dtype) == (x.shape, torch.float64)
    assert torch.isfinite(bound).all()
    assert torch.isfinite(decoded).all()
    excess = (decoded.double() - x.double()).abs() - bound
    assert (excess <= 0).all(), f"beyond the bound by up to {excess.max():.3g}"


def _check_simulation(codec: Codec, x: Tensor, seed: int) -> None:
    message, simulated = codec.encode(x, seed=seed), codec.simulate(x, seed=seed)
    decoded = codec.decode(message)
    assert (simulated.decoded.shape, simulated.decoded.dtype) == (decoded.shape, decoded.dtype)
    assert torch.equal(simulated.decoded, decoded)
    assert torch.equal(simulated.decoded.signbit(), decoded.signbit())  # also of zeros
    assert simulated.size == len(message.payload)
    if isinstance(codec, Quantizer):
        size = codec.size(x.shape)
        assert size is None or size == len(message.payload)
        assert len(message.payload) <= codec.max_size(x.shape)


@pytest.mark.parametrize(("name", "wrapper"), long_but(is_in_every_run, CASES))
@given(data=st.data(), seed=SEEDS)
def test_codec_error_of_each_value_is_within_its_bound(
    name: str, wrapper: str, data: st.DataObject, seed: int
) -> None:
    codec, x = data.draw(codecs_with_tensors(name, wrapper))
    _check_error(codec, x, seed)


@pytest.mark.parametrize(("name", "wrapper"), long_but(is_in_every_run, CASES))
@given(data=st.data(), seed=SEEDS)
def test_codec_simulation_gives_the_values_and_size_of_the_message(
    name: str, wrapper: str, data: st.DataObject, seed: int
) -> None:
    codec, x = data.draw(codecs_with_tensors(name, wrapper))
    _check_simulation(codec, x, seed)


@pytest.mark.parametrize("bits", long_but([1, 2, 3, 5, 8, 16], range(1, 17)))
@given(data=st.data(), x=tensors(), seed=SEEDS)
def test_affine_error_is_within_its_bound_and_simulation_is_exact_with_any_bits(
    bits: int, data: st.DataObject, x: Tensor, seed: int
) -> None:
    codec = data.draw(affines(st.just(bits)))
    _check_error(codec, x, seed)
    _check_simulation(codec, x, seed)


@pytest.mark.parametrize("name", CODECS)
@given(values=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=9))
def test_codec_bounds_and_simulation_hold_for_arbitrary_float32_values(
    name: str, values: list[float]
) -> None:
    x = torch.tensor([values])
    for dtype in (torch.float32, torch.float64):
        _check_error(CODECS[name], x.to(dtype), 0)
        _check_simulation(CODECS[name], x.to(dtype), 0)


EMPTY = [torch.zeros(shape, dtype=dtype) for shape in EMPTY_SHAPES for dtype in DTYPES]


@pytest.mark.parametrize("name", CODECS)
def test_empty_tensors_have_an_empty_payload(name: str) -> None:
    for x in EMPTY:
        assert CODECS[name].encode(x).payload == b""
        _check_simulation(CODECS[name], x, 0)


@pytest.mark.parametrize("name", CODECS)
def test_empty_tensors_decode_to_their_shape_and_have_empty_bounds(name: str) -> None:
    for x in EMPTY:
        _check_error(CODECS[name], x, 0)


@pytest.mark.parametrize("name", CODECS)
def test_scalar_tensors_are_coded_within_the_bound_and_as_simulated(name: str) -> None:
    for dtype in DTYPES:
        _check_error(CODECS[name], torch.tensor(1.5, dtype=dtype), 0)
        _check_simulation(CODECS[name], torch.tensor(1.5, dtype=dtype), 0)


@pytest.mark.cover(1)
@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("size", [(1, 5), (5, 1)])
def test_vectors_cut_out_of_matrices_are_coded_within_the_bound_and_as_simulated(
    name: str, size: tuple[int, int]
) -> None:
    """Where a dimension has one index, its stride may be anything in memory that counts as contiguous."""
    x = torch.arange(25.0).view(5, 5)[: size[1], : size[0]].T
    assert x.shape == size
    _check_error(CODECS[name], x, 0)
    _check_simulation(CODECS[name], x, 0)


@pytest.mark.cover(1)
@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_message_does_not_depend_on_the_memory_layout_of_the_tensor(name: str, layout: str) -> None:
    x = torch.randn(3, 4, 5, 2, generator=torch.Generator().manual_seed(0))
    x = x[:1].expand(x.shape).contiguous()  # so that every layout can be had, `expanded` too
    assert CODECS[name].encode(laid_out(x, layout)) == CODECS[name].encode(x)


@pytest.mark.cover(2)
@pytest.mark.parametrize("name", LOSSY)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_lossy_codecs_refuse_values_that_are_not_finite(name: str, dtype: torch.dtype, value: float) -> None:
    for place in (0, 17, 34):
        x = torch.ones(35, dtype=dtype)
        x[place] = value
        _check_refused(CODECS[name], x.view(5, 7))
        _check_refused(CODECS[name], x.view(7, 5).T)
    _check_refused(CODECS[name], torch.tensor(value, dtype=dtype))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_identity_refuses_values_that_are_not_finite(value: float) -> None:
    for dtype in DTYPES:
        _check_refused(Identity(), torch.tensor([1.0, value, 2.0], dtype=dtype))


@pytest.mark.parametrize("name", CODECS)
def test_codecs_refuse_infinities_that_cancel(name: str) -> None:
    _check_refused(CODECS[name], torch.tensor([[torch.inf, 1.0], [-torch.inf, 2.0]]))


@pytest.mark.cover(1)
@pytest.mark.parametrize("name", LOSSY)
@pytest.mark.parametrize("value", [3.5e38, -1e39, 1e300])
def test_lossy_codecs_refuse_float64_values_beyond_float32(name: str, value: float) -> None:
    _check_refused(LOSSY[name], torch.tensor([[1.0, value], [0.0, 2.0]], dtype=torch.float64))


def test_identity_takes_float64_values_beyond_float32() -> None:
    x = torch.tensor([[1.0, 1e300], [0.0, -1e-300]], dtype=torch.float64)
    assert torch.equal(Identity().decode(Identity().encode(x)), x)


def _check_refused(codec: Codec, x: Tensor) -> None:
    with pytest.raises(NonFiniteTensor):
        codec.encode(x)
    with pytest.raises(NonFiniteTensor):
        codec.simulate(x)


@pytest.mark.parametrize("name", CODECS)
def test_equal_seeds_give_equal_messages_and_other_seeds_change_only_those_of_random_codecs(
    name: str,
) -> None:
    codec, x = CODECS[name], torch.randn(6, 40, generator=torch.Generator().manual_seed(1))
    first, again, other = (codec.encode(x, seed=seed) for seed in (11, 11, 12))
    assert first == again
    assert (first != other) == (name in ("affine2_random", "randtopk"))


@pytest.mark.parametrize("name", CODECS)
def test_codec_is_lossless_only_if_it_is_the_identity(name: str) -> None:
    assert CODECS[name].lossless == (name == "identity")


@pytest.mark.parametrize("name", CODECS)
def test_tensor_that_requires_grad_is_coded_as_its_values_and_decoded_without_grad(name: str) -> None:
    x = torch.linspace(-1, 2, 24).view(4, 6)
    assert CODECS[name].encode(x.clone().requires_grad_()) == CODECS[name].encode(x)
    assert not CODECS[name].decode(CODECS[name].encode(x.clone().requires_grad_())).requires_grad
