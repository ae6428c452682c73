"""Codecs: from a tensor to bytes and back, with a stated error."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import ClassVar, Generic, TypeVar

import torch
from torch import Tensor
from typing_extensions import override

from fedsplit.quant.message import Corrupt, Message, expect

Form = TypeVar("Form")


class NonFiniteTensor(ValueError):
    """A tensor holds infinities or NaN, or values beyond float32."""


@dataclass(frozen=True)
class Transfer:
    """Result of a transfer: the decoded tensor, bytes of the payload, and the message if one was packed."""

    decoded: Tensor
    size: int
    message: Message | None = None


class Codec(ABC):
    """Codes finite tensors of any shape, also empty ones and single values; refuses a `NonFiniteTensor`."""

    lossless: ClassVar[bool] = False
    """True if every tensor is decoded exactly as it was."""

    @abstractmethod
    def encode(self, x: Tensor, *, seed: int = 0) -> Message:
        """Encode `x` into a message; random choices follow from `seed`."""

    @abstractmethod
    def decode(self, message: Message) -> Tensor:
        """Decode the tensor of a message, contiguous, on the CPU.

        Raises:
            Corrupt: the message was altered, or this codec did not make it.
        """

    @abstractmethod
    def simulate(self, x: Tensor, *, seed: int = 0) -> Transfer:
        """Compute `decode(encode(x))` on the device of `x`, and the payload's size; pack only if needed."""

    @abstractmethod
    def transmit(self, x: Tensor, *, seed: int = 0) -> Transfer:
        """Simulate a transfer as `simulate`, together with the message that `encode` makes."""

    @abstractmethod
    def largest(self, shape: Sequence[int], dtype: torch.dtype) -> int:
        """Most bytes that the payload of such a tensor can have."""

    @abstractmethod
    def error_bound(self, x: Tensor) -> Tensor:
        """Largest error of each value of `x`, float64, in the shape of `x`; for any seed."""


class Quantizer(Codec, Generic[Form]):
    """A codec made of four moves around a form of its own (codes, scales, ...), in float32.

    `quantize` and `dequantize` go between tensors and forms, `pack` and `unpack` between forms and
    bytes. Nothing is lost between the last two, so simulation without them is exact.

    All of them see tensors with at least one value; types and empty tensors are dealt with here.
    """

    @abstractmethod
    def quantize(self, x: Tensor, seed: int) -> Form:
        """Quantize `x`, float32 and contiguous, to the codec's form."""

    @abstractmethod
    def dequantize(self, form: Form, shape: Sequence[int]) -> Tensor:
        """Dequantize `form` to a float32 tensor of this shape."""

    @abstractmethod
    def pack(self, form: Form, shape: Sequence[int]) -> bytes:
        """Pack the form of a tensor of this shape into bytes."""

    @abstractmethod
    def unpack(self, payload: bytes, shape: Sequence[int]) -> Form:
        """Unpack the form of a tensor of this shape from bytes.

        Raises:
            Corrupt: no tensor of this shape is packed like that.
        """

    @abstractmethod
    def bound(self, x: Tensor) -> Tensor:
        """Largest error of each value of `x`, float32 as `quantize` gets it; float64, in its shape."""

    @abstractmethod
    def size(self, shape: Sequence[int]) -> int | None:
        """Bytes of the payload of any tensor of this shape; None where they depend on its values."""

    def codes(self, form: Form) -> Tensor | None:
        """Whole numbers that stand for values, whose entropy limits a lossless stage; None without."""
        return None

    def max_size(self, shape: Sequence[int]) -> int:
        """Most bytes that the payload of a tensor of this shape can have."""
        size = self.size(shape)
        assert size is not None, "a codec whose size depends on values says what the largest is"
        return size

    @override
    def encode(self, x: Tensor, *, seed: int = 0) -> Message:
        payload = self.pack(self.quantize(_float32(x), seed), x.shape) if x.numel() else b""
        return Message.seal(payload, tuple(x.shape), x.dtype)

    @override
    def decode(self, message: Message) -> Tensor:
        payload, shape = message.verified_payload(), message.shape
        if not message.dtype.is_floating_point:
            raise Corrupt(f"a tensor has type {message.dtype}, which this codec never sends")
        if prod(shape) == 0:
            expect(payload, 0)
            return torch.zeros(shape, dtype=message.dtype)
        return _as_type(self.dequantize(self.unpack(payload, shape), shape), message.dtype)

    @override
    def error_bound(self, x: Tensor) -> Tensor:
        """Largest error of each value: the codec's, and that of going through float32 to the type of `x`."""
        if not x.numel():
            return torch.zeros(x.shape, dtype=torch.float64)
        bound, limits = self.bound(_float32(x)), torch.finfo(x.dtype)
        relative = max(limits.eps, 2**-23) * (x.double().abs() + bound)
        return bound + relative + limits.smallest_normal * limits.eps + 2**-126

    @override
    def simulate(self, x: Tensor, *, seed: int = 0) -> Transfer:
        if not x.numel():
            return Transfer(x, 0)
        form = self.quantize(_float32(x), seed)
        size = self.size(x.shape)
        if size is None:
            size = len(self.pack(form, x.shape))
        return Transfer(_as_type(self.dequantize(form, x.shape), x.dtype), size)

    @override
    def transmit(self, x: Tensor, *, seed: int = 0) -> Transfer:
        if not x.numel():
            return Transfer(x, 0, Message.seal(b"", tuple(x.shape), x.dtype))
        form = self.quantize(_float32(x), seed)
        message = Message.seal(self.pack(form, x.shape), tuple(x.shape), x.dtype)
        decoded = _as_type(self.dequantize(form, x.shape), x.dtype)
        return Transfer(decoded, len(message.payload), message)

    @override
    def largest(self, shape: Sequence[int], dtype: torch.dtype) -> int:
        return self.max_size(shape) if prod(shape) else 0


def require_finite(x: Tensor) -> None:
    """Raise `NonFiniteTensor` where a value is no number; a GPU is not checked, as that would wait for it."""
    if x.device.type == "cpu" and not is_finite(x):
        raise NonFiniteTensor("values are not finite")


def is_finite(x: Tensor) -> bool:
    """True if every value is a finite number."""
    # A sum shows what is not finite in one pass; only where it overflows must each value be looked at.
    return bool(torch.isfinite(x.sum())) or bool(torch.isfinite(x).all())


def _float32(x: Tensor) -> Tensor:
    x = x.detach().to(torch.float32).contiguous()
    require_finite(x)
    return x


def _as_type(x: Tensor, dtype: torch.dtype) -> Tensor:
    if dtype in (torch.float16, torch.bfloat16):  # a value that is rounded up must not become infinite
        limits = torch.finfo(dtype)
        x = x.clamp(limits.min, limits.max)
    return x.to(dtype)
