"""Smashed data that a model flattened, coded in the shape they had before."""

from collections.abc import Sequence
from math import prod
from typing import Generic

from torch import Tensor
from typing_extensions import override

from fedsplit.quant.codec import Form, Quantizer
from fedsplit.quant.message import Corrupt


class Viewed(Quantizer[Form], Generic[Form]):
    """Codes each sample `(f,)` in another shape with as many values, such as `(c, h, w)`.

    Payload and error: those of the other codec.
    """

    def __init__(self, codec: Quantizer[Form], sample_shape: Sequence[int]) -> None:
        self.codec, self.sample_shape = codec, tuple(sample_shape)

    def _viewed(self, shape: Sequence[int]) -> tuple[int, ...]:
        return (shape[0], *self.sample_shape)

    @override
    def quantize(self, x: Tensor, seed: int) -> Form:
        return self.codec.quantize(x.view(self._viewed(x.shape)), seed)

    @override
    def dequantize(self, form: Form, shape: Sequence[int]) -> Tensor:
        return self.codec.dequantize(form, self._viewed(shape)).view(tuple(shape))

    @override
    def pack(self, form: Form, shape: Sequence[int]) -> bytes:
        return self.codec.pack(form, self._viewed(shape))

    @override
    def unpack(self, payload: bytes, shape: Sequence[int]) -> Form:
        if len(shape) == 0 or prod(shape[1:]) != prod(self.sample_shape):
            raise Corrupt(f"no samples of {self.sample_shape} are in a tensor of {tuple(shape)}")
        return self.codec.unpack(payload, self._viewed(shape))

    @override
    def codes(self, form: Form) -> Tensor | None:
        return self.codec.codes(form)

    @override
    def size(self, shape: Sequence[int]) -> int | None:
        return self.codec.size(self._viewed(shape))

    @override
    def max_size(self, shape: Sequence[int]) -> int:
        return self.codec.max_size(self._viewed(shape))

    @override
    def bound(self, x: Tensor) -> Tensor:
        return self.codec.bound(x.view(self._viewed(x.shape))).view(x.shape)
