"""A client's batches: drawn by (client, round, epoch, step), augmented and normalised as a batch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor

from fedsplit.data.dataset import Augmentation, Images
from fedsplit.randomness import generator, seed_of


def batch_slices(samples: int, batch_size: int) -> list[slice]:
    """Consecutive batches of `samples`; a last batch of one sample joins the batch before it.

    Batch normalisation cannot train on one sample.
    """
    starts = list(range(0, samples, batch_size))
    if batch_size > 1 and len(starts) > 1 and samples - starts[-1] == 1:
        starts.pop()
    return [slice(start, stop) for start, stop in zip(starts, [*starts[1:], samples], strict=True)]


@dataclass(frozen=True)
class Normalisation:
    """Per-channel `scale` and `shift` `(c,)` that give pixels mean 0 and standard deviation 1."""

    scale: Tensor
    shift: Tensor

    @classmethod
    def of(cls, images: Images, dtype: torch.dtype = torch.float32) -> "Normalisation":
        """From all pixels that `images.surveyed` gives, exactly: from a histogram of their 256 values."""
        values = torch.arange(256, dtype=torch.float64)
        means, deviations = [], []
        histograms = torch.zeros(images.pixels.shape[3], 256, dtype=torch.float64)
        for pixels in images.surveyed():
            for i, channel in enumerate(pixels.unbind(3)):
                histograms[i] += torch.bincount(channel.flatten().to(torch.int64), minlength=256).cpu()
        for counts in histograms:
            mean = (counts @ values) / counts.sum()
            variance = (counts @ (values - mean).square()) / counts.sum()
            means.append(mean)
            deviations.append(variance.sqrt().clamp_min(1e-6))  # a constant channel stays finite
        scale = 1 / torch.stack(deviations)
        shift = -torch.stack(means) * scale
        device = images.pixels.device
        return cls(scale.to(device, dtype), shift.to(device, dtype))

    def to(self, device: torch.device, dtype: torch.dtype) -> "Normalisation":
        """The same on `device`, for models of `dtype`."""
        return Normalisation(self.scale.to(device, dtype), self.shift.to(device, dtype))

    def __call__(self, pixels: Tensor) -> Tensor:
        """Uint8 `(n, h, w, c)` to floats `(n, c, h, w)` in channels_last memory."""
        return pixels.to(self.scale.dtype).mul_(self.scale).add_(self.shift).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class AugmentationDraw:
    """What is drawn for n images: the corner of each crop, `(n,)`, and whether it is flipped, `(n,)`."""

    top: Tensor
    left: Tensor
    flipped: Tensor

    @classmethod
    def of(cls, n: int, augmentation: Augmentation, draw: torch.Generator) -> "AugmentationDraw":
        """Drawn for n images; what `augmentation` does not use is not drawn."""
        nothing = torch.zeros(n, dtype=torch.int64)
        top = left = nothing
        if augmentation.crop_padding:
            top, left = torch.randint(2 * augmentation.crop_padding + 1, (2, n), generator=draw)
        flipped = torch.rand(n, generator=draw).lt(0.5) if augmentation.flip else nothing
        return cls(top, left, flipped)

    @classmethod
    def cat(cls, draws: Sequence["AugmentationDraw"]) -> "AugmentationDraw":
        """Of all their images."""
        tops, lefts, flips = zip(*((d.top, d.left, d.flipped) for d in draws), strict=True)
        return cls(torch.cat(tops), torch.cat(lefts), torch.cat(flips))


def augment(pixels: Tensor, augmentation: Augmentation, drawn: AugmentationDraw) -> Tensor:
    """Flip and crop a batch `(n, h, w, c)` of uint8 pixels, each image with its own draw."""
    n, height, width, channels = pixels.shape
    if augmentation.crop_padding:
        pad = augmentation.crop_padding
        padded = F.pad(pixels, (0, 0, pad, pad, pad, pad))
        rows, columns, pixel, channel = padded.stride()[0], padded.stride()[1], padded.stride()[2], 1
        windows = padded.as_strided(
            (n, 2 * pad + 1, 2 * pad + 1, height, width, channels),
            (rows, columns, pixel, columns, pixel, channel),
        )
        top, left = drawn.top.to(pixels.device), drawn.left.to(pixels.device)
        pixels = windows[torch.arange(n, device=pixels.device), top, left]
    if augmentation.flip:
        flipped = drawn.flipped.to(pixels.device)
        pixels = torch.where(flipped[:, None, None, None], pixels.flip(2), pixels)
    return pixels


class ClientBatches:
    """The shard of one client as batches of `(x, y)`: `x (b, c, h, w)`, `y (b,)` int64.

    Local steps count from 0 through all local epochs of a round.
    """

    def __init__(
        self,
        images: Images,
        indices: Tensor,
        *,
        normalise: Normalisation,
        augmentation: Augmentation,
        batch_size: int,
        local_epochs: int,
        client: int,
        seed: int,
    ) -> None:
        self._images, self.indices = images, indices
        self.samples = len(indices)
        self._normalise, self._augmentation = normalise, augmentation
        self._slices = batch_slices(len(indices), batch_size)
        self._local_epochs, self._client, self._seed = local_epochs, client, seed
        self.augments = augmentation.flip or augmentation.crop_padding > 0
        self.in_files = images.in_files
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
        if self.in_files:
            self.prefetch(order[piece.start : self._slices[min(position + 1, len(self._slices) - 1)].stop])
        chosen = order[piece]
        x, y = self.images_at(chosen[None], [self.augmentation(round, step) if augmented else None])
        return x[0], y[0]

    def prefetch(self, chosen: Tensor) -> None:
        """Get the pixels of samples ready that will soon be asked for."""
        self._images.prefetch(chosen)

    def images_at(self, chosen: Tensor, drawn: Sequence[AugmentationDraw | None]) -> tuple[Tensor, Tensor]:
        """Inputs `(k, b, c, h, w)` and labels `(k, b)` of the samples `chosen (k, b)`, augmented as drawn."""
        chosen = chosen.to(self._images.labels.device)
        pixels = self._images.pixels[chosen.flatten()]
        draws = [each for each in drawn if each is not None]
        if draws:
            pixels = augment(pixels, self._augmentation, AugmentationDraw.cat(draws))
        x = self._normalise(pixels)
        return x.view(*chosen.shape, *x.shape[1:]), self._images.labels[chosen]

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

    def augmentation(self, round: int, step: int) -> AugmentationDraw | None:
        """What is drawn for the images of one local step; None where nothing is."""
        if not self.augments:
            return None
        epoch, position = divmod(step, len(self._slices))
        piece = self._slices[position]
        draw = generator(
            self._seed, "augmentation", client=self._client, round=round, epoch=epoch, step=position
        )
        return AugmentationDraw.of(piece.stop - piece.start, self._augmentation, draw)

    def round(self, round: int) -> Iterator[tuple[int, Tensor, Tensor]]:
        """All local steps of a round in order, as `(step, x, y)`."""
        for step in range(self.steps):
            yield step, *self.batch(round, step)


class StackedBatches:
    """The batches of many clients, `x (k, b, c, h, w)` and `y (k, b)` for k of them at a time.

    Args:
        batches: of each client, over the same images.
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
        """Those rows that have such a step, as groups with batches of the same size."""
        having = [row for row in rows if step < len(self._sizes[row])]
        sizes: dict[int, list[int]] = {}
        for row in having:
            sizes.setdefault(self._sizes[row][step], []).append(row)
        return list(sizes.values())

    def batch(self, round: int, step: int, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """One local step of clients whose batches have the same size."""
        first, order = self._batches[rows[0]], self._order(round)
        chosen = order[self._positions(step, rows)]
        if first.in_files:
            first.prefetch(chosen.flatten())
            for each in self.groups(step + 1, rows):
                first.prefetch(order[self._positions(step + 1, each)].flatten())
        drawn = [self._batches[row].augmentation(round, step) for row in rows] if first.augments else []
        return first.images_at(chosen, drawn)

    def _positions(self, step: int, rows: Sequence[int]) -> Tensor:
        """Of the samples `(k, b)` of one local step, in the order of the round."""
        begins = torch.tensor([self._begins[row] + self._starts[row][step] for row in rows])
        return begins[:, None] + torch.arange(self._sizes[rows[0]][step])

    def _order(self, round: int) -> Tensor:
        """Indices of a round's samples, of one client after the other."""
        if self._orders[0] != round:
            draw = torch.Generator()
            orders = [order for each in self._batches for order in each.permutations(round, draw)]
            self._orders = round, self._indices[torch.cat(orders) + self._offsets]
        return self._orders[1]
