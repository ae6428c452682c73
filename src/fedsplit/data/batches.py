"""A client's batches: drawn by (client, round, epoch, step)."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from fedsplit.data.samples import Samples
from fedsplit.randomness import generator, seed_of


@dataclass
class SampleCount:
    """Number of training samples that local steps have read so far; another thread may look at it."""

    read: int = 0


def batch_slices(samples: int, batch_size: int) -> list[slice]:
    """Consecutive batches of `samples`; a last batch of one sample joins the batch before it.

    Batch normalisation cannot train on one sample.
    """
    starts = list(range(0, samples, batch_size))
    if batch_size > 1 and len(starts) > 1 and samples - starts[-1] == 1:
        starts.pop()
    return [slice(start, stop) for start, stop in zip(starts, [*starts[1:], samples], strict=True)]


class ClientBatches:
    """The shard of one client as batches of `(x, y)`, see `Samples`: of images `x (b, c, h, w)`, `y (b,)`.

    Local steps count from 0 through all local epochs of a round.

    Args:
        pool: samples of all clients.
        indices: indices of the client's own samples.
        count: count of samples that were read, for progress.
    """

    def __init__(
        self,
        pool: Samples,
        indices: Tensor,
        *,
        batch_size: int,
        local_epochs: int,
        client: int,
        seed: int,
        count: SampleCount | None = None,
    ) -> None:
        self.pool, self.indices = pool, indices
        self.count = count or SampleCount()
        self.samples = len(indices)
        self._slices = batch_slices(len(indices), batch_size)
        self._local_epochs, self._client, self._seed = local_epochs, client, seed
        self._last_order: tuple[int, int, Tensor] | None = None

    @property
    def steps(self) -> int:
        """Local steps in a round."""
        return self.steps_of_epoch * self._local_epochs

    @property
    def steps_of_epoch(self) -> int:
        """Local steps in a local epoch."""
        return len(self._slices)

    def _permutation(self, round: int, epoch: int, draw: torch.Generator) -> Tensor:
        draw.manual_seed(seed_of(self._seed, "batches", client=self._client, round=round, epoch=epoch))
        return torch.randperm(self.samples, generator=draw)

    def _order(self, round: int, epoch: int) -> Tensor:
        """Samples of a local epoch in order, kept until another epoch is asked for."""
        if self._last_order is None or self._last_order[:2] != (round, epoch):
            order = self.indices[self._permutation(round, epoch, torch.Generator())]
            self._last_order = (round, epoch, order)
        return self._last_order[2]

    def batch(self, round: int, step: int, *, augmented: bool = True) -> tuple[Tensor, Tensor]:
        """The batch of one local step, or its samples as they are; the same whenever it is asked for."""
        epoch, position = divmod(step, len(self._slices))
        order = self._order(round, epoch)
        piece = self._slices[position]
        if self.pool.in_files:
            self.pool.prefetch(
                order[piece.start : self._slices[min(position + 1, len(self._slices) - 1)].stop]
            )
        chosen = order[piece].to(self.pool.index_device)
        self.count.read += len(chosen)
        x = self.pool.inputs_at(chosen, self.draws(round, step) if augmented else None)
        # as a view it has the strides that it has in a stack; with one channel they decide which kernels run
        return x.view(x.shape), self.pool.labels_at(chosen)

    def sizes(self) -> list[int]:
        """Samples of each local step of a round."""
        return [piece.stop - piece.start for piece in self._slices] * self._local_epochs

    def permutations(self, round: int, draw: torch.Generator | None = None) -> list[Tensor]:
        """The order of each local epoch of a round: positions in `indices`.

        Args:
            draw: a generator to seed for each, where there are so many that making new ones takes its time.
        """
        return [
            self._permutation(round, epoch, draw or torch.Generator()) for epoch in range(self._local_epochs)
        ]

    def appearances(self, round: int, steps: Collection[int]) -> Tensor:
        """Counts `(n,)` of each sample, in the order of `indices`, in the batches of some local steps."""
        counts = torch.zeros(self.samples, dtype=torch.int64)
        by_epoch: dict[int, list[slice]] = {}
        for step in steps:
            epoch, position = divmod(step, len(self._slices))
            by_epoch.setdefault(epoch, []).append(self._slices[position])
        for epoch, pieces in by_epoch.items():
            if len(pieces) == len(self._slices):
                counts += 1
                continue
            order = self._permutation(round, epoch, torch.Generator())
            counts[torch.cat([order[piece] for piece in pieces])] += 1
        return counts

    def draws(self, round: int, step: int) -> Tensor | None:
        """Draws for the samples of one local step; None where nothing is drawn."""
        if not self.pool.augments:
            return None
        epoch, position = divmod(step, len(self._slices))
        piece = self._slices[position]
        draw = generator(
            self._seed, "augmentation", client=self._client, round=round, epoch=epoch, step=position
        )
        return self.pool.draw(piece.stop - piece.start, draw)

    def round(self, round: int) -> Iterator[tuple[int, Tensor, Tensor]]:
        """All local steps of a round in order, as `(step, x, y)`."""
        for step in range(self.steps):
            yield step, *self.batch(round, step)


class StackedBatches:
    """The batches of many clients, `x (k, b, ...)` and `y (k, b, ...)` for k of them at a time.

    Args:
        batches: batches of each client, over the same samples.
    """

    def __init__(self, batches: Sequence[ClientBatches]) -> None:
        self._batches = batches
        self._sizes = [each.sizes() for each in batches]
        self._starts = [[0, *accumulate(sizes)] for sizes in self._sizes]
        self._begins = [0, *accumulate(starts[-1] for starts in self._starts)]
        self._orders: tuple[int, Tensor] = (-1, torch.empty(0))
        self._indices = torch.cat([each.indices for each in batches])
        samples = torch.tensor([each.samples for each in batches])
        offsets, drawn = samples.cumsum(0) - samples, torch.tensor([starts[-1] for starts in self._starts])
        self._offsets = offsets.repeat_interleave(drawn)

    @property
    def steps(self) -> int:
        """Local steps in a round of the client that has most."""
        return max(map(len, self._sizes))

    def groups(self, step: int, rows: Sequence[int]) -> list[list[int]]:
        """Rows that have such a step, as groups with batches of the same size."""
        having = [row for row in rows if step < len(self._sizes[row])]
        sizes: dict[int, list[int]] = {}
        for row in having:
            sizes.setdefault(self._sizes[row][step], []).append(row)
        return list(sizes.values())

    def batch(self, round: int, step: int, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """One local step of clients whose batches have the same size."""
        samples, order = self._batches[rows[0]].pool, self._order(round)
        chosen = order[self._positions(step, rows)]
        if samples.in_files:
            samples.prefetch(chosen.flatten())
            for each in self.groups(step + 1, rows):
                samples.prefetch(order[self._positions(step + 1, each)].flatten())
        drawn = [draws for row in rows if (draws := self._batches[row].draws(round, step)) is not None]
        index = chosen.flatten().to(samples.index_device)
        self._batches[rows[0]].count.read += len(index)
        x, y = samples.inputs_at(index, torch.cat(drawn) if drawn else None), samples.labels_at(index)
        return x.view(*chosen.shape, *x.shape[1:]), y.view(*chosen.shape, *y.shape[1:])

    def _positions(self, step: int, rows: Sequence[int]) -> Tensor:
        """Positions of the samples `(k, b)` of one local step, in the order of the round."""
        begins = torch.tensor([self._begins[row] + self._starts[row][step] for row in rows])
        return begins[:, None] + torch.arange(self._sizes[rows[0]][step])

    def _order(self, round: int) -> Tensor:
        """Indices of a round's samples, of one client after the other."""
        if self._orders[0] != round:
            draw = torch.Generator()
            orders = [order for each in self._batches for order in each.permutations(round, draw)]
            self._orders = round, self._indices[torch.cat(orders) + self._offsets]
        return self._orders[1]
