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
        payload: what the codec wrote.
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
        """Payload of the message; raises as `verify`."""
        self.verify()
        return bytes(self.payload)

    def verify(self) -> None:
        """Raise where this message cannot be meant.

        Raises:
            Corrupt: the checksum is not that of the content, or no tensor has this shape.
        """
        if self.dtype.is_complex or (self.dtype.is_floating_point and self.dtype.itemsize < 2):
            raise Corrupt(f"no message is of {self.dtype}")
        if min(self.shape, default=0) < 0 or max(self.shape, default=0) >= 2**63:
            raise Corrupt(f"no tensor has the shape {self.shape}")
        if _checksum(self.payload, self.shape, self.dtype) != self.checksum:
            raise Corrupt("the checksum does not fit: the message was altered on its way")


def expect(payload: Payload, size: int) -> None:
    """Raise `Corrupt` where a payload, or a part, has another length: before anything is made of it."""
    if len(payload) != size:
        raise Corrupt(f"{len(payload)} bytes came, {size} were expected")


def _checksum(payload: Payload, shape: tuple[int, ...], dtype: torch.dtype) -> int:
    return zlib.crc32(payload, zlib.crc32(f"{shape} {dtype}".encode()))
