"""Messages on the wire: sent in chunks and put together again, with tensors that are checked and decoded."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from fedsplit.quant.message import Corrupt, Message, Payload
from fedsplit.transport.grpc.protocol import federation_pb2 as pb

CHUNK = 1 << 20
"""Bytes of a chunk: far below gRPC's limit of 4 MiB a message, and so large that framing costs nothing."""
VERSION = 1
"""Version of the protocol, on which both sides must agree."""
OPTIONS = (
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 4_000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.http2.lookahead_bytes", 4 << 20),
    ("grpc.max_receive_message_length", 2 * CHUNK),
    ("grpc.max_send_message_length", 2 * CHUNK),
)
"""Options of channels and servers: a peer that is silent for 15 seconds is gone."""

_MOST_TOLD = 200

# for bytes that are no message it would print a traceback, where only the stream is to end
logging.getLogger("grpc._common").setLevel(logging.CRITICAL)

Frame = TypeVar("Frame", pb.FromServer, pb.FromClient)


@dataclass(frozen=True)
class Parcel(Generic[Frame]):
    """A message and the payloads of the tensors that it announces."""

    head: Frame
    payloads: Sequence[Payload] = ()

    @property
    def size(self) -> int:
        """Number of bytes of all payloads."""
        return sum(map(len, self.payloads))

    def frames(self) -> Iterator[Frame]:
        """Frames of the parcel: the message, then chunks."""
        yield self.head
        for content in _chunks(self.payloads):
            frame = type(self.head)(identity=self.head.identity)
            frame.chunk.content = content  # a chunk that is given to the constructor is copied once more
            yield frame


def _chunks(payloads: Iterable[Payload]) -> Iterator[bytes]:
    parts: list[memoryview] = []
    room = CHUNK
    for payload in payloads:
        rest = memoryview(payload)
        while rest:
            parts.append(rest[:room])
            rest, room = rest[room:], room - len(parts[-1])
            if not room:
                yield b"".join(parts)
                parts, room = [], CHUNK
    if parts:
        yield b"".join(parts)


class Assembler(Generic[Frame]):
    """Puts messages together again from their frames, in the order in which they come.

    Args:
        admit: looks at a message that announces tensors, raises `Corrupt` if they cannot be meant, and
            says whether they are wanted; only then is memory taken for them.
    """

    def __init__(self, admit: Callable[[Frame], bool]) -> None:
        self._admit: Callable[[Frame], bool] = admit
        self._head: Frame | None = None
        self._payloads: list[memoryview] | None = None
        self._size = self._filled = self._room = 0

    @property
    def received_bytes(self) -> int:
        """Bytes of payload that have come of a wanted message that is not whole yet."""
        return self._filled if self._payloads is not None else 0

    def add(self, frame: Frame) -> Parcel[Frame] | None:
        """The message that this frame makes whole, if it does; `Corrupt` where no sender sends it here."""
        if self._head is not None:
            return self._continue(self._head, frame)
        if frame.WhichOneof("content") in (None, "chunk"):
            raise Corrupt("the frame is neither a message nor a chunk of one that was announced")
        if not frame.tensors:
            return Parcel(frame)
        wanted = self._admit(frame)
        self._size = sum(tensor.size for tensor in frame.tensors)
        if not self._size:
            return Parcel(frame, [b""] * len(frame.tensors)) if wanted else None
        self._head, self._payloads, self._filled, self._room = frame, [] if wanted else None, 0, 0
        return None

    def _continue(self, head: Frame, frame: Frame) -> Parcel[Frame] | None:
        if frame.WhichOneof("content") != "chunk" or frame.identity != head.identity or frame.tensors:
            raise Corrupt("a message began before the one before it was whole")
        content = frame.chunk.content
        end = self._filled + len(content)
        if not content or end > self._size:
            raise Corrupt("a chunk is empty, or holds more bytes than were announced")
        if self._payloads is not None:
            self._store(head, self._payloads, memoryview(content))
        self._filled = end
        if end < self._size:
            return None
        payloads, self._head, self._payloads = self._payloads, None, None
        if payloads is None:
            return None
        payloads += [memoryview(b"")] * (len(head.tensors) - len(payloads))
        return Parcel(head, payloads)

    def _store(self, head: Frame, payloads: list[memoryview], content: memoryview) -> None:
        """Memory is taken a tensor at a time: one that is reused costs less than new memory for all."""
        while content:
            if not self._room:
                self._room = head.tensors[len(payloads)].size
                payloads.append(memoryview(bytearray(self._room)))
                continue
            part, start = content[: self._room], len(payloads[-1]) - self._room
            payloads[-1][start : start + len(part)] = part
            content, self._room = content[len(part) :], self._room - len(part)


def one_line(text: str) -> str:
    """Text from the other end, fit for a line of a log or a terminal."""
    shown = "".join(each if each.isprintable() else " " for each in text[:_MOST_TOLD])
    return shown + ("..." if len(text) > _MOST_TOLD else "")


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
"""Largest magnitude of a value that is rounded on its way."""


class Decodes(Protocol):
    """Part of a codec that a receiver needs."""

    def decode(self, message: Message) -> Tensor:
        """Tensor of a message; see `Codec.decode`."""

    def largest(self, shape: Sequence[int], dtype: torch.dtype) -> int:
        """Largest payload of such a tensor; see `Codec.largest`."""


@dataclass(frozen=True)
class ExpectedTensor:
    """A tensor that may come: how it is coded, by which number of the protocol, and what it is."""

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
            raise Corrupt(
                f"{self.name!r} must have shape {self.shape} and type {self.dtype}, and another came"
            )
        if tensor.values != prod(self.shape):
            raise Corrupt(f"{self.name!r} must have {prod(self.shape)} values, and {tensor.values} came")
        if tensor.size > self.codec.largest(self.shape, self.dtype):
            raise Corrupt(f"{self.name!r} came with {tensor.size} bytes, which is more than it can have")
        most = 4.0 * tensor.values * _LARGEST**2  # a difference's energy; sums of these stay finite too
        if not all(0 <= energy <= most for energy in (tensor.signal, tensor.noise)):
            raise Corrupt(f"the energies of {self.name!r} must be finite and not below 0")


def check(tensors: Sequence[pb.Tensor], expected: Sequence[ExpectedTensor]) -> None:
    """Raise `Corrupt` where what is announced is not what is expected, in this order."""
    if len(tensors) != len(expected):
        raise Corrupt(f"{len(tensors)} tensors came, and {len(expected)} were expected")
    for tensor, wanted in zip(tensors, expected, strict=True):
        wanted.check(tensor)


def decode_tensors(parcel: Parcel[Frame], expected: Sequence[ExpectedTensor]) -> dict[str, Tensor]:
    """Decode the tensors of a message, on the CPU; `Corrupt` where they are unexpected or damaged."""
    check(parcel.head.tensors, expected)
    tensors = {}
    for announced, payload, wanted in zip(parcel.head.tensors, parcel.payloads, expected, strict=True):
        message = Message(payload, wanted.shape, wanted.dtype, announced.checksum)
        tensors[wanted.name] = wanted.codec.decode(message)
    return tensors


def announcement(
    name: str, number: pb.Codec, message: Message, *, signal: float = 0.0, noise: float = 0.0
) -> pb.Tensor:
    """Announcement that goes before the payload of a tensor."""
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
