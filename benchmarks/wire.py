"""How fast tensors go over the wire, without a network: on one core, in GB/s of payload.

    python benchmarks/wire.py

fp32 tensors are encoded, announced, cut into chunks and serialized; then parsed, put together, checked and
decoded. Beside it, in turns, a plain copy of the same tensors: what memory allows, and the baseline of the
ratio. `--help` lists the options.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from fedsplit.computing.memory import reuse_freed_memory
from fedsplit.quant.codecs.identity import Identity
from fedsplit.quant.coded import SentTensor
from fedsplit.transport.grpc.protocol import federation_pb2 as pb
from fedsplit.transport.grpc.protocol.frames import Assembler, ExpectedTensor, Parcel, check, decode_tensors
from fedsplit.transport.grpc.protocol.packing import pack

CODEC = Identity()


def sent(tensors: list[Tensor]) -> list[bytes]:
    """What gRPC is given to send."""
    packed = [pack(str(n), pb.EXACT, SentTensor(x, CODEC.transmit(x))) for n, x in enumerate(tensors)]
    head = pb.FromServer(tensors=[tensor for tensor, _ in packed], install=pb.Install(part=pb.CLIENT))
    parcel = Parcel(head, [payload for _, payload in packed])
    return [frame.SerializeToString() for frame in parcel.frames()]


def received(frames: list[bytes], expected: list[ExpectedTensor]) -> dict[str, Tensor]:
    """What is made of what gRPC received."""

    def admit(frame: pb.FromServer) -> bool:
        check(frame.tensors, expected)
        return True

    assembler: Assembler[pb.FromServer] = Assembler(admit)
    whole = [assembler.add(pb.FromServer.FromString(frame)) for frame in frames]
    (parcel,) = [each for each in whole if each is not None]
    return decode_tensors(parcel, expected)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--mb", type=int, default=64, help="of all tensors")
    parser.add_argument("--tensors", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    reuse_freed_memory()  # as runs do
    count = options.mb * 10**6 // 4 // options.tensors
    tensors = [torch.randn(count) for _ in range(options.tensors)]
    expected = [
        ExpectedTensor(str(n), pb.EXACT, CODEC, (count,), torch.float32) for n in range(options.tensors)
    ]
    frames = sent(tensors)
    for x, arrived in zip(tensors, received(frames, expected).values(), strict=True):
        assert torch.equal(x, arrived)
    stages: dict[str, Callable[[], object]] = {
        "a copy": lambda: [x.clone() for x in tensors],
        "encode to serialize": lambda: sent(tensors),
        "parse to decode": lambda: received(frames, expected),
        "both": lambda: received(sent(tensors), expected),
    }
    seconds: dict[str, list[float]] = {stage: [] for stage in stages}
    for _ in range(options.repeats):
        for stage, work in stages.items():
            start = time.process_time()
            work()
            seconds[stage].append(time.process_time() - start)
    table = Table(
        title=f"{options.mb} MB of fp32 in {options.tensors} tensors, one thread, medians of CPU time",
        title_justify="left",
    )
    for column in ("", "GB/s", "times a copy"):
        table.add_column(column, no_wrap=True, justify="left" if not column else "right")
    copy = median(seconds["a copy"])
    for stage, each in seconds.items():
        ratio = median(took / base for took, base in zip(each, seconds["a copy"], strict=True))
        table.add_row(stage, f"{options.mb / 1e3 / median(each):.2f}", f"{ratio:.1f}" if copy else "")
    Console().print(table)


if __name__ == "__main__":
    main()
