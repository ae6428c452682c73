"""Devices that are processes of this machine, with nothing between them and the server half."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from fedsplit.building.client_model import ClientArchitecture
from fedsplit.inference.codes import DeviceCodes
from fedsplit.inference.device import Device, Footprint
from fedsplit.inference.process import ClientHalf
from fedsplit.inference.request import Request
from fedsplit.inference.server_half import ServerHalf
from fedsplit.inference.subject import Batches


class LocalDevice(Device):
    """A process that runs the client half; its smashed data are handed to the server half as they are.

    Args:
        number: see `Device`.
        precision: see `Device`.
        half: the process that runs the client half.
        server: that answers.
        batches: of images.
    """

    def __init__(
        self,
        number: int,
        precision: str,
        half: ClientHalf,
        server: ServerHalf,
        batches: Batches,
    ) -> None:
        self.number, self.precision = number, precision
        self._half, self._server, self._batches, self._codes = half, server, batches, DeviceCodes()
        self.footprint = Footprint(half.file_bytes, half.memory_before)

    def request(self, number: int, batch: int, *, warm_up: bool) -> Request:
        """See `Device.request`."""
        x, labels = self._batches[batch]
        ran = self._half.run(x)
        message = self._codes.encode(ran.smashed)
        answered = self._server.answer(message)
        return Request(
            device=self.number,
            precision=self.precision,
            number=number,
            warm_up=warm_up,
            samples=len(x),
            correct=int((answered.logits.argmax(1) == labels).sum()),
            client_seconds=ran.seconds,
            server_seconds=answered.seconds,
            wire_seconds=0.0,
            bytes_up=len(message.payload),
            bytes_down=answered.size,
            peak_memory=ran.peak_memory,
            logits_crc32=answered.checksum,
        )


@contextmanager
def local_devices(
    deployed: Mapping[str, Path],
    architecture: ClientArchitecture,
    server: ServerHalf,
    batches: Batches,
    threads: int,
) -> Iterator[list[Device]]:
    """While there is a device for each precision, each a fresh process.

    Args:
        deployed: directories of the client halves, by precision.
        architecture: of the client half.
        server: that answers.
        batches: of images.
        threads: of each process.

    Raises:
        RunFailed: a process ended.
    """
    with ExitStack() as processes:
        yield [
            LocalDevice(
                number,
                precision,
                processes.enter_context(ClientHalf(directory, architecture, threads)),
                server,
                batches,
            )
            for number, (precision, directory) in enumerate(deployed.items())
        ]
