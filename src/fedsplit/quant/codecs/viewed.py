"""Smashed data that a model flattened, coded in the shape they had before."""

from collections.abc import Sequence
from math import prod
from typing import Generic

from torch import Tensor
from typing_extensions import override

from fedsplit.quant.codec import Form, Quantizer
from fedsplit.quant.message import Corrupt


class ReshapedSamples(Quantizer[Form], Generic[Form]):
    """Codec that codes each sample `(f,)` in another shape with as many values, such as `(c, h, w)`.

    Payload and error: those of the other codec.
    """

    def __init__(self, codec: Quantizer[Form], sample_shape: Sequence[int]) -> None:
        self.codec, self.sample_shape = codec, tuple(sample_shape)

    def _coded_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        return (shape[0], *self.sample_shape)

    @override
    def quantize(self, x: Tensor, seed: int) -> Form:
        return self.codec.quantize(x.view(self._coded_shape(x.shape)), seed)

    @override
    def dequantize(self, form: Form, shape: Sequence[int]) -> Tensor:
        return self.codec.dequantize(form, self._coded_shape(shape)).view(tuple(shape))

    @override
    def pack(self, form: Form, shape: Sequence[int]) -> bytes:
        return self.codec.pack(form, self._coded_shape(shape))

    @override
    def unpack(self, payload: bytes, shape: Sequence[int]) -> Form:
        if len(shape) == 0 or prod(shape[1:]) != prod(self.sample_shape):
            raise Corrupt(
                f"a tensor of shape {tuple(shape)} does not hold samples of shape {self.sample_shape}"
            )
        return self.codec.unpack(payload, self._coded_shape(shape))

    @override
    def codes(self, form: Form) -> Tensor | None:
        return self.codec.codes(form)

    @override
    def size(self, shape: Sequence[int]) -> int | None:
        return self.codec.size(self._coded_shape(shape))

    @override
    def max_size(self, shape: Sequence[int]) -> int:
        return self.codec.max_size(self._coded_shape(shape))

    @override
    def bound(self, x: Tensor) -> Tensor:
        return self.codec.bound(x.view(self._coded_shape(x.shape))).view(x.shape)
