import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import grpc
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedsplit.quant.codecs.identity import Identity
from fedsplit.quant.message import Corrupt, Message
from fedsplit.transport.grpc.protocol import federation_pb2 as pb
from fedsplit.transport.grpc.protocol.frames import (
    CHUNK,
    OPTIONS,
    Assembler,
    ExpectedTensor,
    Parcel,
    announcement,
    check,
    decode_tensors,
    one_line,
)

IDENTITY = pb.Identity(run=b"r" * 16, client=3, round=4, attempt=1, number=2, step=5)
SIZES = (0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 17)


def _parcel(sizes: Sequence[int]) -> Parcel[pb.FromServer]:
    payloads = [(bytes(range(256)) * (size // 256 + 1))[:size] for size in sizes]
    tensors = [pb.Tensor(name=str(place), size=size) for place, size in enumerate(sizes)]
    return Parcel(pb.FromServer(identity=IDENTITY, tensors=tensors, install=pb.Install()), payloads)


def _assembled(frames: Sequence[Any], *, wanted: bool = True) -> list[Parcel[Any]]:
    assembler: Assembler[Any] = Assembler(lambda frame: wanted)
    whole = [assembler.add(type(frame).FromString(frame.SerializeToString())) for frame in frames]
    assert assembler.received_bytes == 0
    return [parcel for parcel in whole if parcel is not None]


def _same(parcel: Parcel[Any], other: Parcel[Any]) -> bool:
    return parcel.head == other.head and list(map(bytes, parcel.payloads)) == list(map(bytes, other.payloads))


@pytest.mark.parametrize("size", SIZES)
def test_payload_of_any_size_is_assembled_as_it_was_sent(size: int) -> None:
    sent = _parcel([size])
    (arrived,) = _assembled(list(sent.frames()))
    assert _same(arrived, sent)
    assert arrived.size == size


@given(st.lists(st.sampled_from((*SIZES[:5], 3, 1000)), min_size=1, max_size=6))
def test_payloads_of_any_sizes_share_full_chunks(sizes: list[int]) -> None:
    sent = _parcel(sizes)
    head, *chunks = list(sent.frames())
    assert head == sent.head
    lengths = [len(frame.chunk.content) for frame in chunks]
    assert all(length == CHUNK for length in lengths[:-1])
    assert len(chunks) == -(-sum(sizes) // CHUNK)
    (arrived,) = _assembled([head, *chunks])
    assert _same(arrived, sent)


def test_many_small_payloads_go_in_one_chunk() -> None:
    sent = _parcel([3, 0, 5, 1, 0] * 100)
    frames = list(sent.frames())
    assert len(frames) == 2
    assert _same(_assembled(frames)[0], sent)


def test_assembler_takes_messages_one_after_the_other() -> None:
    sent = [
        _parcel([10, 20]),
        Parcel(pb.FromServer(begin=pb.Begin())),
        _parcel([]),
        _parcel([0]),
        _parcel([CHUNK]),
    ]
    arrived = _assembled([frame for parcel in sent for frame in parcel.frames()])
    assert len(arrived) == len(sent)
    assert all(map(_same, arrived, sent))


def test_assembler_passes_over_what_is_not_wanted_without_memory() -> None:
    assembler: Assembler[Any] = Assembler(lambda frame: False)
    for frame in _parcel([CHUNK, 0, CHUNK]).frames():
        assert assembler.add(frame) is None
        assert assembler.received_bytes == 0
        assert assembler._payloads is None
    (after,) = [assembler.add(frame) for frame in Parcel(pb.FromServer(begin=pb.Begin())).frames()]
    assert after is not None


def test_assembler_counts_the_bytes_of_a_message_that_is_not_whole() -> None:
    assembler: Assembler[Any] = Assembler(lambda frame: True)
    for frame in list(_parcel([CHUNK + 5]).frames())[:2]:
        assembler.add(frame)
    assert assembler.received_bytes == CHUNK


def _chunk(content: bytes, **identity: int) -> pb.FromServer:
    kept = pb.Identity()
    kept.CopyFrom(IDENTITY)
    for name, value in identity.items():
        setattr(kept, name, value)
    return pb.FromServer(identity=kept, chunk=pb.Chunk(content=content))


@pytest.mark.parametrize(
    "frames",
    [
        [pb.FromServer()],
        [pb.FromServer.FromString(b"\xa2\x06\x00")],  # a content of a later version
        [_chunk(b"abc")],
        [_parcel([3]).head, _chunk(b"")],
        [_parcel([3]).head, _chunk(b"abcd")],
        [_parcel([3]).head, _chunk(b"ab"), _chunk(b"cd")],
        [_parcel([3]).head, _chunk(b"abc"), _chunk(b"d")],
        [_parcel([3]).head, _chunk(b"abc", round=5)],
        [_parcel([3]).head, _chunk(b"abc", step=6)],
        [_parcel([3]).head, _parcel([3]).head],
        [_parcel([3]).head, pb.FromServer(identity=IDENTITY, begin=pb.Begin())],
        [
            _parcel([3]).head,
            pb.FromServer(identity=IDENTITY, tensors=[pb.Tensor()], chunk=pb.Chunk(content=b"abc")),
        ],
        [pb.FromServer(identity=IDENTITY, tensors=[pb.Tensor(size=3)], chunk=pb.Chunk(content=b"abc"))],
    ],
)
@pytest.mark.parametrize("wanted", [True, False])
def test_assembler_refuses_frames_out_of_order(frames: list[pb.FromServer], wanted: bool) -> None:
    assembler: Assembler[Any] = Assembler(lambda frame: wanted)
    for frame in frames[:-1]:
        assembler.add(frame)
    with pytest.raises(Corrupt):
        assembler.add(frames[-1])


VALUES = torch.arange(12.0).view(3, 4)
MESSAGE = Identity().encode(VALUES)
EXPECTED = ExpectedTensor("z", pb.EXACT, Identity(), (3, 4), torch.float32)


def test_announcement_of_a_tensor_describes_its_message() -> None:
    tensor = announcement("z", pb.EXACT, MESSAGE, signal=2.5, noise=0.5)
    assert (tensor.size, list(tensor.shape), tensor.values) == (48, [3, 4], 12)
    assert tensor.checksum == zlib.crc32(MESSAGE.payload, zlib.crc32(b"(3, 4) torch.float32"))
    assert (tensor.signal, tensor.noise) == (2.5, 0.5)
    check([tensor], [EXPECTED])


@pytest.mark.parametrize(
    "change",
    [
        {"name": "y"},
        {"codec": pb.HALF},
        {"codec": 99},
        {"data_type": pb.FLOAT64},
        {"data_type": 0},
        {"data_type": 77},
        {"shape": [4, 3]},
        {"shape": [12]},
        {"shape": [-3, -4]},
        {"shape": [2**62, 2**62]},
        {"shape": [1] * 1000},
        {"size": 49},
        {"size": 2**64 - 1},
        {"values": 11},
        {"signal": float("nan")},
        {"signal": float("inf")},
        {"noise": -1.0},
        {"noise": 1e200},  # its sum with others would not be finite
    ],
)
def test_announcement_of_another_tensor_is_corrupt(change: dict[str, Any]) -> None:
    tensor = announcement("z", pb.EXACT, MESSAGE)
    for field, value in change.items():
        tensor.ClearField(field)  # type: ignore[arg-type]
        if field == "shape":
            tensor.shape.extend(value)
        else:
            setattr(tensor, field, value)
    with pytest.raises(Corrupt):
        check([tensor], [EXPECTED])


def test_announcement_of_too_many_or_too_few_tensors_is_corrupt() -> None:
    tensor = announcement("z", pb.EXACT, MESSAGE)
    for tensors in ([], [tensor, tensor]):
        with pytest.raises(Corrupt):
            check(tensors, [EXPECTED])


def _head(message: Message) -> pb.FromClient:
    return pb.FromClient(tensors=[announcement("z", pb.EXACT, message)], upload=pb.Upload())


def test_parcel_is_decoded_and_damage_to_its_payload_is_noticed() -> None:
    arrived = decode_tensors(Parcel(_head(MESSAGE), [MESSAGE.payload]), [EXPECTED])
    assert torch.equal(arrived["z"], VALUES)
    altered = bytes([MESSAGE.payload[0] ^ 1]) + MESSAGE.payload[1:]
    for message, payload in (
        (MESSAGE, altered),
        (MESSAGE, MESSAGE.payload[:-1]),
        (replace(MESSAGE, checksum=MESSAGE.checksum ^ 1), MESSAGE.payload),
    ):
        with pytest.raises(Corrupt):
            decode_tensors(Parcel(_head(message), [payload]), [EXPECTED])


def test_decoded_tensor_shares_no_memory_with_what_arrived() -> None:
    payload = bytearray(MESSAGE.payload)
    arrived = decode_tensors(Parcel(_head(MESSAGE), [memoryview(payload)]), [EXPECTED])["z"]
    payload[:] = bytes(len(payload))
    assert torch.equal(arrived, VALUES)


def test_one_line_removes_line_breaks_and_shortens() -> None:
    assert one_line("no\nsuch\r\nfile\x1b[31m") == "no such  file [31m"
    assert len(one_line("x" * 10**6)) < 300


class _Echo(grpc.GenericRpcHandler):
    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        def echo(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
            yield from requests

        return grpc.stream_stream_rpc_method_handler(echo)


def test_parcel_far_larger_than_grpcs_limit_passes_a_real_server() -> None:
    """Through a real server, with the options that federations have."""
    sent = _parcel([5, 12 * CHUNK + 3, 0, 7])
    with ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool, options=OPTIONS)
        server.add_generic_rpc_handlers((_Echo(),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            with grpc.insecure_channel(f"127.0.0.1:{port}", OPTIONS) as channel:
                call = channel.stream_stream("/any/method")
                written = [frame.SerializeToString() for frame in sent.frames()]
                assert max(map(len, written)) < 2 * CHUNK
                echoed = [pb.FromServer.FromString(each) for each in call(iter(written), timeout=300)]
        finally:
            server.stop(None).wait()
    assert _same(_assembled(echoed)[0], sent)
