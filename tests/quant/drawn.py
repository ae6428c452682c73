"""What the tests of codecs draw: tensors of every form and kind, and codecs with every option."""

from collections.abc import Callable
from math import prod
from typing import Any, TypeAlias

import torch
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

Shape: TypeAlias = tuple[int, ...]
Draw: TypeAlias = Callable[[int, float, float, torch.Generator], Tensor]

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
LAYOUTS = ("contiguous", "transposed", "channels_last", "strided", "cut", "expanded")
EMPTY_SHAPES = ((0,), (3, 0), (0, 4), (2, 0, 3), (0, 2, 3, 1))


def _normal(count: int, generator: torch.Generator) -> Tensor:
    return torch.randn(count, generator=generator, dtype=torch.float64)


def _exponents(count: int, least: float, largest: float, generator: torch.Generator) -> Tensor:
    low, high = torch.tensor([least, largest], dtype=torch.float64).log2()
    powers = low + (high - low) * torch.rand(count, generator=generator, dtype=torch.float64)
    values: Tensor = powers.exp2() * _normal(count, generator).sign()
    return values


def _outlier(count: int, generator: torch.Generator) -> Tensor:
    values = 1e-3 * _normal(count, generator)
    values[int(torch.randint(count, (), generator=generator))] = 1e3
    return values


KINDS: dict[str, Draw] = {
    "normal": lambda count, least, largest, generator: _normal(count, generator),
    "heavy_tailed": lambda count, least, largest, generator: _normal(count, generator) ** 5,
    "zero": lambda count, least, largest, generator: torch.zeros(count),
    "negative_zero": lambda count, least, largest, generator: torch.full((count,), -0.0),
    "constant": lambda count, least, largest, generator: _normal(1, generator).repeat(count),
    "largest": lambda count, least, largest, generator: largest * _normal(count, generator).sign(),
    "huge": lambda count, least, largest, generator: largest * _normal(count, generator),
    "tiny": lambda count, least, largest, generator: least * (4 * _normal(count, generator)).round(),
    "exponents": _exponents,
    "outlier": lambda count, least, largest, generator: _outlier(count, generator),
    "negative": lambda count, least, largest, generator: -_normal(count, generator).abs(),
    "positive": lambda count, least, largest, generator: _normal(count, generator).abs(),
    "ties": lambda count, least, largest, generator: _normal(count, generator).round() * 0.7,
    "mostly_zero": lambda count, least, largest, generator: _normal(count, generator).clamp_min(1) - 1,
}
"""Values, given their number, the least positive one and the largest, and a generator."""

shapes: st.SearchStrategy[Shape] = st.one_of(
    st.lists(st.integers(1, 6), max_size=4).map(tuple),
    st.tuples(st.integers(1, 300)),
    st.tuples(st.integers(1, 8), st.integers(1, 80)),
)
"""Shapes from single values to four dimensions; none is empty."""


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    """Tensors of any floating-point type, layout and kind of values, all of which float32 holds."""
    dtype, layout = draw(st.sampled_from(DTYPES)), draw(st.sampled_from(LAYOUTS))
    kind, shape = draw(st.sampled_from(sorted(KINDS))), draw(shapes)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    limits = torch.finfo(dtype if dtype.itemsize < 8 else torch.float32)
    values = KINDS[kind](prod(shape), limits.smallest_normal * limits.eps, limits.max, generator)
    return laid_out(values.clamp(limits.min, limits.max).to(dtype).view(shape), layout)


def laid_out(x: Tensor, layout: str) -> Tensor:
    """The values of `x` in another memory (`expanded`: those of its first index, repeated)."""
    match layout:
        case "transposed":
            backwards = tuple(reversed(range(x.dim())))
            return x.permute(backwards).contiguous().permute(backwards)
        case "channels_last" if x.dim() == 4:
            return x.contiguous(memory_format=torch.channels_last)
        case "strided" if x.dim() > 0:
            return x.repeat_interleave(3, -1)[..., 1::3]
        case "cut" if x.dim() > 0:
            return torch.cat([x, x.new_full((2, *x.shape[1:]), torch.nan)])[: len(x)]
        case "expanded" if x.dim() > 0:
            return x[:1].expand(x.shape)
    return x


_scale_type = st.sampled_from(("bfloat16", "float32"))
_granular: dict[str, st.SearchStrategy[Any]] = {
    "granularity": st.sampled_from(("tensor", "channel", "block", "token")),
    "block_size": st.sampled_from((1, 2, 3, 7, 8, 13, 64)),
    "channel_dim": st.one_of(st.just("auto"), st.integers(-1, 3)),
    "scale_type": _scale_type,
}


def affines(bits: st.SearchStrategy[Any], **options: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """`affine` with any other option."""
    return st.builds(
        affine,
        bits=bits,
        symmetric=st.booleans(),
        rounding=st.sampled_from(("nearest", "stochastic")),
        range=st.sampled_from(("minmax", "percentile", "mse")),
        percentile=st.sampled_from((0.1, 50.0, 95.0, 99.9, 100.0)),
        **_granular,
        **options,
    )


_fraction = st.sampled_from((0.001, 0.1, 0.34, 0.5, 0.99, 1.0))
QUANTIZERS: dict[str, st.SearchStrategy[Quantizer[Any]]] = {
    "float16": st.builds(Float16),
    "bfloat16": st.builds(BFloat16),
    "float8": st.builds(Float8, **_granular),
    "affine": affines(st.integers(1, 16)),
    "auto": affines(st.just("auto"), budget=st.sampled_from((0.01, 0.5, 1.0, 2.3, 5.0, 9.0, 1e6))),
    "sign": st.builds(Sign, **_granular),
    "topk": st.builds(TopK, fraction=_fraction),
    "randtopk": st.builds(RandTopK, fraction=_fraction, alpha=st.sampled_from((0.0, 0.1, 0.7, 1.0))),
}
WRAPPERS = ("bare", "zstd", "viewed", "zstd_viewed")
CASES = [("identity", "bare"), *((name, wrapper) for name in QUANTIZERS for wrapper in WRAPPERS)]
"""Codecs by name, and the wrapper around each."""
WRAPPED = ("affine", "topk", "sign")
"""Codecs that every run wraps: one of fixed size, one of rows, one of bits."""


def is_in_every_run(case: tuple[str, str]) -> bool:
    """Whether a case is bare, or of a codec of each kind of payload: wrappers look at nothing else."""
    return case[1] == "bare" or case[0] in WRAPPED


def wrapped(codec: Quantizer[Any], wrapper: str, sample_shape: Shape) -> Quantizer[Any]:
    """The codec for samples that were flattened, where it is `viewed`, from this shape."""
    if "viewed" in wrapper:
        codec = ReshapedSamples(codec, sample_shape)
    return Zstd(codec, 1) if "zstd" in wrapper else codec


@st.composite
def codecs_with_tensors(draw: st.DrawFn, name: str, wrapper: str) -> tuple[Codec, Tensor]:
    """A codec of `CASES` and a tensor for it."""
    if name == "identity":
        return Identity(), draw(tensors())
    codec = draw(QUANTIZERS[name])
    if "viewed" not in wrapper:
        return wrapped(codec, wrapper, ()), draw(tensors())
    x = draw(tensors().filter(lambda x: x.dim() > 0))
    flat = laid_out(x.reshape(len(x), -1), draw(st.sampled_from(LAYOUTS)))
    return wrapped(codec, wrapper, tuple(x.shape[1:])), flat
