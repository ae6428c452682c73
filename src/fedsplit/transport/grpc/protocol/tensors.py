"""Tensors on the wire: announced, checked against what is expected, and decoded."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Protocol

import torch
from torch import Tensor

from fedsplit.quant.message import Corrupt, Message
from fedsplit.transport.grpc.protocol import federation_pb2 as pb
from fedsplit.transport.grpc.protocol.frames import Frame, Parcel

TYPES = {
    pb.FLOAT32: torch.float32,
    pb.FLOAT64: torch.float64,
    pb.FLOAT16: torch.float16,
    pb.BFLOAT16: torch.bfloat16,
    pb.INT64: torch.int64,
    pb.INT32: torch.int32,
    pb.INT16: torch.int16,
    pb.INT8: torch.int8,
    pb.UINT8: torch.uint8,
    pb.BOOL: torch.bool,
}
_NUMBERS = {dtype: number for number, dtype in TYPES.items()}
_LARGEST = torch.finfo(torch.float32).max
"""Nothing that is rounded on its way is larger."""


class Decodes(Protocol):
    """What a receiver asks of a codec."""

    def decode(self, message: Message) -> Tensor:
        """See `Codec.decode`."""

    def largest(self, shape: Sequence[int], dtype: torch.dtype) -> int:
        """See `Codec.largest`."""


@dataclass(frozen=True)
class Expected:
    """A tensor that may come: how it is coded, and what it is.

    Args:
        number: of its codec in the protocol.
    """

    name: str
    number: pb.Codec
    codec: Decodes
    shape: tuple[int, ...]
    dtype: torch.dtype

    def check(self, tensor: pb.Tensor) -> None:
        """Raise `Corrupt` where what is announced is not this tensor."""
        if tensor.name != self.name or tensor.codec != self.number:
            raise Corrupt(f"{tensor.name[:80]!r}, codec {tensor.codec}, came in place of {self.name!r}")
        if tuple(tensor.shape) != self.shape or TYPES.get(tensor.data_type) is not self.dtype:
            raise Corrupt(f"{self.name!r} is of shape {self.shape} and {self.dtype}, and not what came")
        if tensor.values != prod(self.shape):
            raise Corrupt(f"{self.name!r} has {prod(self.shape)} values, not {tensor.values}")
        if tensor.size > self.codec.largest(self.shape, self.dtype):
            raise Corrupt(f"{tensor.size} bytes are more than {self.name!r} can take")
        most = 4.0 * tensor.values * _LARGEST**2  # of a difference; sums of such energies stay finite too
        if not all(0 <= energy <= most for energy in (tensor.signal, tensor.noise)):
            raise Corrupt(f"the energies of {self.name!r} are no energies")


def check(tensors: Sequence[pb.Tensor], expected: Sequence[Expected]) -> None:
    """Raise `Corrupt` where what is announced is not what is expected, in this order."""
    if len(tensors) != len(expected):
        raise Corrupt(f"{len(tensors)} tensors came, {len(expected)} were expected")
    for tensor, wanted in zip(tensors, expected, strict=True):
        wanted.check(tensor)


def decoded(parcel: Parcel[Frame], expected: Sequence[Expected]) -> dict[str, Tensor]:
    """The tensors of a message, contiguous, on the CPU.

    Raises:
        Corrupt: they are not what is expected, or their payloads are damaged.
    """
    check(parcel.head.tensors, expected)
    tensors = {}
    for announced, payload, wanted in zip(parcel.head.tensors, parcel.payloads, expected, strict=True):
        message = Message(payload, wanted.shape, wanted.dtype, announced.checksum)
        tensors[wanted.name] = wanted.codec.decode(message)
    return tensors


def announced(
    name: str, number: pb.Codec, message: Message, *, signal: float = 0.0, noise: float = 0.0
) -> pb.Tensor:
    """What goes before the payload of a tensor."""
    return pb.Tensor(
        name=name,
        codec=number,
        data_type=_NUMBERS[message.dtype],
        shape=message.shape,
        size=len(message.payload),
        checksum=message.checksum,
        values=prod(message.shape),
        signal=signal,
        noise=noise,
    )
