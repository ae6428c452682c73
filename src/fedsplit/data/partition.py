"""Which samples each client has, without an object a client: pieces of one array, or draws."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import groupby
from typing import Self, overload

import numpy as np
from typing_extensions import override

from fedsplit.randomness import uniforms

_HASHED_AT_A_TIME = 1 << 16
"""Clients whose indices are hashed together, so that copies of them stay small."""


@dataclass(frozen=True)
class Block:
    """Clients that follow each other.

    Args:
        first: the first of them.
        sizes: samples of each, int64 `(k,)`.
        indices: indices of the samples, client after client, int64 `(sum of sizes,)`.
    """

    first: int
    sizes: np.ndarray
    indices: np.ndarray

    @property
    def clients(self) -> np.ndarray:
        """Client of each of the indices, counted from `first`."""
        return np.repeat(np.arange(len(self.sizes)), self.sizes)


class Partition(Sequence[np.ndarray], ABC):
    """Indices of each client's samples, int64 `(n,)`, by client."""

    @property
    @abstractmethod
    def sizes(self) -> np.ndarray:
        """Samples of each client, int64 `(clients,)`."""

    @abstractmethod
    def block(self, first: int, last: int) -> Block:
        """Clients from `first` to before `last`."""

    @property
    @abstractmethod
    def digest(self) -> str:
        """SHA-256 in hexadecimal digits: the same for the same samples at the same clients."""

    def blocks(self, clients: int) -> Iterator[Block]:
        """All clients in order, at most so many at a time."""
        for first in range(0, len(self), clients):
            yield self.block(first, min(first + clients, len(self)))

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice) -> list[np.ndarray]: ...
    @override
    def __getitem__(self, index: int | slice) -> np.ndarray | list[np.ndarray]:
        numbers = range(len(self))
        if isinstance(index, slice):
            return [self.block(client, client + 1).indices for client in numbers[index]]
        client = numbers[index]
        return self.block(client, client + 1).indices

    @override
    def __len__(self) -> int:
        return len(self.sizes)


class Pieces(Partition):
    """Pieces of one array, one client's after the other's.

    Args:
        indices: indices of all clients' samples.
        sizes: sizes of the pieces.
    """

    def __init__(self, indices: np.ndarray, sizes: np.ndarray) -> None:
        self.indices, self._sizes = np.asarray(indices, dtype=np.int64), np.asarray(sizes, dtype=np.int64)
        self._starts = np.concatenate([[0], np.cumsum(self._sizes)])

    @classmethod
    def of(cls, shards: Sequence[np.ndarray]) -> Self:
        """The same indices as one array a client holds."""
        sizes = np.fromiter(map(len, shards), np.int64, len(shards))
        return cls(np.concatenate(shards), sizes)

    @classmethod
    def group(cls, indices: np.ndarray, clients: np.ndarray, num_clients: int) -> Self:
        """Samples by the client that each is given; those of a client stay in their order.

        Args:
            indices: indices of samples, `(n,)`.
            clients: client of each sample, `(n,)`.
            num_clients: number of clients, of which some may have none.
        """
        order = np.argsort(clients, kind="stable")
        return cls(indices[order], np.bincount(clients, minlength=num_clients))

    @property
    @override
    def sizes(self) -> np.ndarray:
        return self._sizes

    @override
    def block(self, first: int, last: int) -> Block:
        indices = self.indices[self._starts[first] : self._starts[last]]
        return Block(first, self._sizes[first:last], indices)

    @property
    @override
    def digest(self) -> str:
        """SHA-256 of each client's number of samples, as a line of text, and of their indices after it."""
        division = sha256()
        for block in self.blocks(_HASHED_AT_A_TIME):
            start = 0
            for size, same in groupby(block.sizes.tolist()):  # clients of one size: lines and indices as rows
                count = sum(1 for _ in same)
                head = np.frombuffer(f"{size}\n".encode(), np.uint8)
                own = block.indices[start : start + count * size].reshape(count, size)
                rows = np.hstack([np.tile(head, (count, 1)), own.view(np.uint8).reshape(count, size * 8)])
                division.update(np.ascontiguousarray(rows).data)
                start += count * size
        return division.hexdigest()


class Draws(Partition):
    """Equally many samples for every client, drawn evenly and with replacement when they are asked for.

    A client's samples are a function of the seed and of its number: nothing is kept of them.

    Args:
        samples: samples to draw from.
        num_clients: number of clients that draw.
        each: samples of a client.
        seed: seed of the run.
    """

    def __init__(self, samples: int, *, num_clients: int, each: int, seed: int) -> None:
        self._samples, self._clients, self._each, self._seed = samples, num_clients, each, seed

    @property
    @override
    def sizes(self) -> np.ndarray:
        return np.full(self._clients, self._each)

    @override
    def block(self, first: int, last: int) -> Block:
        count = (last - first) * self._each
        drawn = uniforms(self._seed, "resampling", start=first * self._each, count=count)
        return Block(first, np.full(last - first, self._each), (drawn * self._samples).astype(np.int64))

    @property
    @override
    def digest(self) -> str:
        """SHA-256 of what the draws follow from, and not of the draws themselves."""
        message = f"drawn: {self._clients} of {self._each} of {self._samples} by {self._seed}"
        return sha256(message.encode()).hexdigest()

    @override
    def __len__(self) -> int:
        return self._clients
