"""Pixels of more image files than memory holds: decoded as they are asked for."""

import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from fedsplit.data.decoding import Decoder

View: TypeAlias = Callable[[int, Tensor], Tensor]
"""A client's number and pixels of its images to those as it sees them."""

_NOBODY = -1


class DecodingAhead:
    """Threads that decode files, and what they decoded last.

    Args:
        side: height and width of all images.
        workers: threads.
        kept_bytes: bytes of pixels that stay decoded.
    """

    def __init__(self, decoder: Decoder, side: int, workers: int, kept_bytes: int) -> None:
        self._decoder, self._workers, self._kept_bytes = decoder, workers, kept_bytes
        self.shape = (side, side, decoder.channels)
        self.capacity = max(1, kept_bytes // (side * side * decoder.channels))
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
        self._started: OrderedDict[bytes, Future[np.ndarray]] = OrderedDict()
        self._lock = Lock()

    @override
    def __reduce__(self) -> tuple[type["DecodingAhead"], tuple[Decoder, int, int, int]]:
        """Recipe for another process of the same run, which decodes by threads of its own."""
        return DecodingAhead, (self._decoder, self.shape[0], self._workers, self._kept_bytes)

    def start(self, file: bytes) -> Future[np.ndarray]:
        """Pixels of a file, once they are decoded."""
        with self._lock:
            future = self._started.get(file)
            if future is None:
                path = Path(os.fsdecode(file))
                future = self._pool.submit(self._decoder.decode, path, self.shape[0])
                self._started[file] = future
            self._started.move_to_end(file)
            while len(self._started) > self.capacity:
                self._started.popitem(last=False)
            return future


@dataclass(frozen=True)
class FilePixels:
    """Stands where a tensor of pixels, uint8 `(n, h, w, c)`, would: indexing decodes the images asked for.

    Which threads do, and what stays decoded, changes no pixel.

    Args:
        files: paths, as bytes: a million of them take a fifth of what objects would.
        decoding: decoding of all files of a split, others than these included.
        device: device of the pixels that are returned.
        client_of: client of each image, where `view` is given.
    """

    files: np.ndarray
    decoding: DecodingAhead
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    client_of: Tensor | None = None
    view: View | None = None

    @property
    def shape(self) -> torch.Size:
        """Shape as of a tensor, `(n, h, w, c)`."""
        return torch.Size((len(self.files), *self.decoding.shape))

    def __len__(self) -> int:
        return len(self.files)

    def to(self, device: torch.device) -> "FilePixels":
        """The same files, for pixels on `device`."""
        return replace(self, device=device)

    def select(self, index: Tensor) -> "FilePixels":
        """Select some of the files, by index or mask."""
        clients = None if self.client_of is None else self.client_of[index]
        return replace(self, files=self.files[index.numpy()], client_of=clients)

    def seen_by(self, shards: Sequence[np.ndarray], view: View) -> "FilePixels":
        """The same files, with the images of each client as it sees them."""
        client_of = torch.full((len(self),), _NOBODY)
        for client, shard in enumerate(shards):
            client_of[torch.from_numpy(shard)] = client
        return replace(self, view=view, client_of=client_of)

    def prefetch(self, index: Tensor | slice) -> None:
        """Start to decode images that will soon be asked for; not so many that they push out each other."""
        for file in self.files[_numpy(index)][: self.decoding.capacity]:
            self.decoding.start(file)

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        where = _numpy(index)
        # All are started before the first is waited for, and held here: fewer may be kept.
        started = [self.decoding.start(file) for file in self.files[where]]
        pixels = torch.empty(len(started), *self.decoding.shape, dtype=torch.uint8)
        for place, each in zip(pixels.numpy(), started, strict=True):
            place[:] = each.result()
        pixels = pixels.to(self.device)
        return pixels if self.client_of is None else self._view(pixels, self.client_of[where])

    def _view(self, pixels: Tensor, clients: Tensor) -> Tensor:
        for client in sorted(set(clients.tolist()) - {_NOBODY}):
            if self.view is not None:
                own = (clients == client).to(self.device)
                pixels[own] = self.view(client, pixels[own])
        return pixels


def _numpy(index: Tensor | slice) -> np.ndarray | slice:
    return index if isinstance(index, slice) else index.cpu().numpy()
