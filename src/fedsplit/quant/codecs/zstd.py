"""Lossless last stage of a codec."""

from collections.abc import Sequence
from typing import Generic

import zstandard
from torch import Tensor
from typing_extensions import override

from fedsplit.quant.codec import Form, Quantizer
from fedsplit.quant.message import Corrupt, expect

_PLAIN, _COMPRESSED = b"\0", b"\1"


class Zstd(Quantizer[Form], Generic[Form]):
    """Another codec's payload, compressed by zstandard where that makes it smaller.

    Payload: one byte that says which, then the bytes. Error: that of the other codec.

    Source: RFC 8878.

    Args:
        level: level of zstandard; higher is smaller and slower.
    """

    def __init__(self, codec: Quantizer[Form], level: int) -> None:
        self.codec, self.level = codec, level

    @override
    def quantize(self, x: Tensor, seed: int) -> Form:
        return self.codec.quantize(x, seed)

    @override
    def dequantize(self, form: Form, shape: Sequence[int]) -> Tensor:
        return self.codec.dequantize(form, shape)

    @override
    def pack(self, form: Form, shape: Sequence[int]) -> bytes:
        plain = self.codec.pack(form, shape)
        compressed = zstandard.ZstdCompressor(level=self.level, write_checksum=False).compress(plain)
        if len(compressed) < len(plain):
            return _COMPRESSED + compressed
        return _PLAIN + plain

    @override
    def unpack(self, payload: bytes, shape: Sequence[int]) -> Form:
        kind, content = payload[:1], payload[1:]
        if kind == _PLAIN:
            return self.codec.unpack(content, shape)
        if kind != _COMPRESSED:
            raise Corrupt("the first byte must say that the rest is compressed or plain")
        return self.codec.unpack(self._decompress(content, self.codec.max_size(shape)), shape)

    def _decompress(self, content: bytes, limit: int) -> bytes:
        try:
            declared_size = zstandard.get_frame_parameters(content).content_size
            if declared_size > limit:  # also where nothing is declared
                raise Corrupt(f"{declared_size} bytes are declared, and at most {limit} are allowed")
            plain = zstandard.ZstdDecompressor().decompress(content, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise Corrupt(f"the content is not compressed by zstandard ({error})") from error
        expect(plain, declared_size)
        return plain

    @override
    def codes(self, form: Form) -> Tensor | None:
        return self.codec.codes(form)

    @override
    def size(self, shape: Sequence[int]) -> None:
        return None  # it depends on the values

    @override
    def max_size(self, shape: Sequence[int]) -> int:
        return 1 + self.codec.max_size(shape)

    @override
    def bound(self, x: Tensor) -> Tensor:
        return self.codec.bound(x)
