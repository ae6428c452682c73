"""Labelled images: one uint8 tensor a split, never decoded twice, or files where memory would not hold it."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Self

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from fedsplit.data.augmentation import NO_AUGMENTATION, Augmentation
from fedsplit.data.dataset import Dataset, Sizes
from fedsplit.data.file_pixels import FilePixels, View
from fedsplit.data.fingerprint import Fingerprint, bytes_of, digest
from fedsplit.data.samples import Samples
from fedsplit.objectives.classification import Classification

_SAMPLED = 1024  # files that stand for all of a split too large to look through
_AT_A_TIME = 128  # images
_COUNTED_AT_A_TIME = 1 << 16  # images: as whole numbers, to be counted, pixels take eight times as much


@dataclass(frozen=True)
class Normalisation:
    """Per-channel `scale` and `shift` `(c,)` that give pixels mean 0 and standard deviation 1."""

    scale: Tensor
    shift: Tensor

    @classmethod
    def of(cls, images: "Images", dtype: torch.dtype = torch.float32) -> Self:
        """Normalisation by all pixels of `images.survey`, exactly: from a histogram of their 256 values."""
        values = torch.arange(256, dtype=torch.float64)
        means, deviations = [], []
        histograms = torch.zeros(images.pixels.shape[3], 256, dtype=torch.float64)
        for surveyed in images.survey():
            for pixels in torch.split(surveyed, _COUNTED_AT_A_TIME):
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

    def to(self, device: torch.device, dtype: torch.dtype | None = None) -> "Normalisation":
        """The same on `device`, for models of `dtype`."""
        return Normalisation(self.scale.to(device, dtype), self.shift.to(device, dtype))

    def __call__(self, pixels: Tensor) -> Tensor:
        """Uint8 `(n, h, w, c)` to floats `(n, c, h, w)` in channels_last memory."""
        return pixels.to(self.scale.dtype).mul_(self.scale).add_(self.shift).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Images(Samples):
    """One split of images.

    Args:
        pixels: uint8 `(n, h, w, c)`.
        labels: int64 `(n,)`.
        owners: int64 `(n,)`, if known.
        augmentation: augmentation of training batches.
        normalise: makes inputs of pixels; None until statistics are taken.
    """

    pixels: Tensor | FilePixels
    labels: Tensor
    owners: Tensor | None = None
    augmentation: Augmentation = NO_AUGMENTATION
    normalise: Normalisation | None = None

    @override
    def __len__(self) -> int:
        return len(self.labels)

    @property
    @override
    def strata(self) -> Tensor:
        return self.labels

    @property
    @override
    def index_device(self) -> torch.device:
        return self.labels.device

    @property
    @override
    def augments(self) -> bool:
        return self.augmentation.flip or self.augmentation.crop_padding > 0

    @property
    @override
    def in_files(self) -> bool:
        return isinstance(self.pixels, FilePixels)

    @override
    def to(self, device: torch.device) -> "Images":
        normalise = self.normalise and self.normalise.to(device)
        return replace(
            self, pixels=self.pixels.to(device), labels=self.labels.to(device), normalise=normalise
        )

    @override
    def select(self, kept: Tensor) -> "Images":
        owners = None if self.owners is None else self.owners[kept]
        pixels = self.pixels
        some = pixels.select(kept) if isinstance(pixels, FilePixels) else pixels[kept].contiguous()
        return replace(self, pixels=some, labels=self.labels[kept], owners=owners)

    @override
    def draw(self, count: int, draw: torch.Generator) -> Tensor:
        return self.augmentation.draw(count, draw)

    @override
    def inputs_at(self, index: Tensor | slice, draws: Tensor | None = None) -> Tensor:
        if self.normalise is None:
            raise AssertionError("images are normalised before inputs are made of them")
        pixels = self.pixels[index]
        return self.normalise(pixels if draws is None else self.augmentation(pixels, draws))

    @override
    def labels_at(self, index: Tensor | slice) -> Tensor:
        return self.labels[index]

    @override
    def prefetch(self, index: Tensor | slice) -> None:
        if isinstance(self.pixels, FilePixels):
            self.pixels.prefetch(index)

    def seen_by(self, shards: Sequence[np.ndarray], view: View) -> "Images":
        """The images of each client as it sees them; pixels in memory are changed in place.

        Args:
            shards: indices, by client.
        """
        if isinstance(self.pixels, FilePixels):
            return replace(self, pixels=self.pixels.seen_by(shards, view))
        for client, shard in enumerate(shards):
            for part in _chunks(torch.from_numpy(shard)):
                self.pixels[part] = view(client, self.pixels[part])
        return self

    def survey(self) -> Iterator[Tensor]:
        """All pixels, for statistics over them; of files a fixed sample, evenly spaced."""
        if isinstance(self.pixels, Tensor):
            yield self.pixels
            return
        sample = torch.linspace(0, len(self) - 1, min(_SAMPLED, len(self)), dtype=torch.float64).long()
        for part in _chunks(sample):
            yield self.pixels[part]

    @override
    def fingerprint(self) -> Fingerprint:
        """Number, shape, and digests of pixels, labels and owners.

        Of images that are decoded as they are asked for: of the sizes of all files, and of the pixels of the
        fixed sample that statistics are taken over.
        """
        pixels = sha256()
        if isinstance(self.pixels, FilePixels):
            sizes = [os.stat(file).st_size for file in self.pixels.files]
            pixels.update(np.array(sizes, dtype=np.int64).data)
        for part in self.survey() if len(self) else ():
            pixels.update(bytes_of(part))
        return {
            "images": len(self),
            "shape": list(self.pixels.shape[1:]),
            "labels": digest(self.labels),
            "owners": None if self.owners is None else digest(self.owners),
            "pixels": pixels.hexdigest(),
        }


def _chunks(index: Tensor) -> Iterator[Tensor]:
    """Parts of so few images at a time that their pixels take little memory."""
    for start in range(0, len(index), _AT_A_TIME):
        yield index[start : start + _AT_A_TIME]


def image_sizes(num_classes: int, channels: int, side: int) -> Sizes:
    """Sizes that models of such images are built for."""
    arguments = {"num_classes": num_classes, "channels": channels, "image_size": side}
    return Sizes(arguments, (channels, side, side), num_classes)


@dataclass(frozen=True)
class ImageDataset(Dataset):
    """Images to train and test on."""

    train: Images
    test: Images

    @property
    def channels(self) -> int:
        """Colour channels of an image."""
        return self.sizes.shape[0]

    @property
    def image_size(self) -> int:
        """Height and width of an image, in pixels."""
        return self.sizes.shape[1]

    @classmethod
    def of(
        cls,
        train: Images,
        test: Images,
        num_classes: int,
        class_names: tuple[str, ...] = (),
        local_test_fraction: float = 0.0,
    ) -> Self:
        """Images of so many classes, to be classified.

        Args:
            class_names: class names by label, where they have any.
            local_test_fraction: see `Dataset`.
        """
        side, _, channels = train.pixels.shape[1:]
        sizes = image_sizes(num_classes, channels, side)
        return cls(train, test, sizes, Classification(num_classes), class_names, local_test_fraction)

    def normalise_by(self, normalise: Normalisation) -> Self:
        """The same images, with inputs made by `normalise`."""
        train, test = (replace(images, normalise=normalise) for images in (self.train, self.test))
        return replace(self, train=train, test=test)

    @override
    def scale(self, seen: Tensor | None) -> Self:
        images = self.train if seen is None else self.train.select(seen)
        return self.normalise_by(Normalisation.of(images, torch.get_default_dtype()))

    def seen_by(self, shards: Sequence[np.ndarray], view: View) -> Self:
        """The same images, with the training images of each client as it sees them."""
        return replace(self, train=self.train.seen_by(shards, view))
