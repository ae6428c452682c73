"""A client's batches: drawn by (client, round, epoch, step), augmented and normalised as a batch."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from fedsplit.data.dataset import Augmentation, Images
from fedsplit.randomness import generator


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
        """From all pixels of `images`, exactly: from a histogram of their 256 values."""
        values = torch.arange(256, dtype=torch.float64)
        means, deviations = [], []
        for channel in images.pixels.unbind(3):
            counts = torch.bincount(channel.flatten().to(torch.int64), minlength=256).to("cpu", torch.float64)
            mean = (counts @ values) / counts.sum()
            variance = (counts @ (values - mean).square()) / counts.sum()
            means.append(mean)
            deviations.append(variance.sqrt().clamp_min(1e-6))  # a constant channel stays finite
        scale = 1 / torch.stack(deviations)
        shift = -torch.stack(means) * scale
        device = images.pixels.device
        return cls(scale.to(device, dtype), shift.to(device, dtype))

    def __call__(self, pixels: Tensor) -> Tensor:
        """Uint8 `(n, h, w, c)` to floats `(n, c, h, w)` in channels_last memory."""
        return pixels.to(self.scale.dtype).mul_(self.scale).add_(self.shift).permute(0, 3, 1, 2)


def augment(pixels: Tensor, augmentation: Augmentation, draw: torch.Generator) -> Tensor:
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
        top, left = torch.randint(2 * pad + 1, (2, n), generator=draw).to(pixels.device)
        pixels = windows[torch.arange(n, device=pixels.device), top, left]
    if augmentation.flip:
        flipped = torch.rand(n, generator=draw).lt(0.5).to(pixels.device)
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
        self._images, self._indices = images, indices
        self._normalise, self._augmentation = normalise, augmentation
        self._slices = batch_slices(len(indices), batch_size)
        self._local_epochs, self._client, self._seed = local_epochs, client, seed
        self._order = lru_cache(maxsize=1)(self._draw_order)

    @property
    def samples(self) -> int:
        """Samples in the shard."""
        return len(self._indices)

    @property
    def steps(self) -> int:
        """Local steps in a round."""
        return len(self._slices) * self._local_epochs

    def _draw_order(self, round: int, epoch: int) -> Tensor:
        draw = generator(self._seed, "batches", client=self._client, round=round, epoch=epoch)
        return self._indices[torch.randperm(self.samples, generator=draw)]

    def batch(self, round: int, step: int) -> tuple[Tensor, Tensor]:
        """The batch of one local step; the same whenever it is asked for."""
        epoch, position = divmod(step, len(self._slices))
        chosen = self._order(round, epoch)[self._slices[position]].to(self._images.labels.device)
        pixels = self._images.pixels[chosen]
        draw = generator(
            self._seed, "augmentation", client=self._client, round=round, epoch=epoch, step=position
        )
        return self._normalise(augment(pixels, self._augmentation, draw)), self._images.labels[chosen]

    def round(self, round: int) -> Iterator[tuple[int, Tensor, Tensor]]:
        """All local steps of a round in order, as `(step, x, y)`."""
        for step in range(self.steps):
            yield step, *self.batch(round, step)
