"""A coded tensor on its way, and what a receiver checks before it believes it."""

import zlib
from dataclasses import dataclass
from typing import TypeAlias

import torch

Payload: TypeAlias = bytes | memoryview


class Corrupt(ValueError):
    """A message that no sender made: cut short, altered, or not what its codec writes."""


@dataclass(frozen=True)
class Message:
    """A tensor as bytes.

    Only `payload` counts as communication load: it is all that decoding needs beside the shape and
    type that the receiver expects anyway. The rest is framing.

    Args:
        payload: bytes that the codec wrote.
        checksum: CRC-32 of payload, shape and type.
    """

    payload: Payload
    shape: tuple[int, ...]
    dtype: torch.dtype
    checksum: int

    @classmethod
    def seal(cls, payload: bytes, shape: tuple[int, ...], dtype: torch.dtype) -> "Message":
        """Make a message of a payload, with its checksum."""
        return cls(payload, shape, dtype, _checksum(payload, shape, dtype))

    def verified_payload(self) -> bytes:
        """Payload of the message, once `verify` has checked it."""
        self.verify()
        return bytes(self.payload)

    def verify(self) -> None:
        """Check that a sender can have made this message.

        Raises:
            Corrupt: the checksum is not that of the content, or no tensor has this shape.
        """
        if self.dtype.is_complex or (self.dtype.is_floating_point and self.dtype.itemsize < 2):
            raise Corrupt(f"a message has type {self.dtype}, which no tensor is sent in")
        if min(self.shape, default=0) < 0 or max(self.shape, default=0) >= 2**63:
            raise Corrupt(f"a message has shape {self.shape}, and no tensor can have it")
        if _checksum(self.payload, self.shape, self.dtype) != self.checksum:
            raise Corrupt("the checksum does not match the content: the message was altered on its way")


def expect(payload: Payload, size: int) -> None:
    """Raise `Corrupt` where a payload, or a part, has another length, before anything uses its content."""
    if len(payload) != size:
        raise Corrupt(f"a payload has {len(payload)} bytes, and {size} were expected")


def _checksum(payload: Payload, shape: tuple[int, ...], dtype: torch.dtype) -> int:
    return zlib.crc32(payload, zlib.crc32(f"{shape} {dtype}".encode()))
