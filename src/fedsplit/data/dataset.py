"""Labelled images: one uint8 tensor a split, never decoded twice, or files where memory would not hold it."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from fedsplit.config.values import BelowOne, NonNegativeInt, PositiveInt
from fedsplit.data.decoding import resized
from fedsplit.data.file_pixels import FilePixels, View
from fedsplit.errors import UserError
from fedsplit.machine.allowance import claim_images
from fedsplit.objectives.classification import Classification
from fedsplit.objectives.objective import Objective

_SAMPLED = 1024  # files that stand for all of a split too large to look through
_AT_A_TIME = 128  # images


@dataclass(frozen=True)
class Images:
    """One split: `pixels` uint8 `(n, h, w, c)`, `labels` int64 `(n,)`; `owners` int64 `(n,)`, if known."""

    pixels: Tensor | FilePixels
    labels: Tensor
    owners: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> "Images":
        """The same images on `device`."""
        return Images(self.pixels.to(device), self.labels.to(device), self.owners)

    def chosen(self, kept: Tensor) -> "Images":
        """Some of them, by index or mask."""
        owners = None if self.owners is None else self.owners[kept]
        pixels = self.pixels
        some = pixels.chosen(kept) if isinstance(pixels, FilePixels) else pixels[kept].contiguous()
        return Images(some, self.labels[kept], owners)

    @property
    def in_files(self) -> bool:
        """Whether pixels are decoded when they are asked for: then it is worth saying so before."""
        return isinstance(self.pixels, FilePixels)

    def seen_by(self, shards: Sequence[np.ndarray], view: View) -> "Images":
        """The images of each client as it sees them; pixels in memory are changed in place.

        Args:
            shards: indices, by client.
        """
        if isinstance(self.pixels, FilePixels):
            return replace(self, pixels=self.pixels.seen_by(shards, view))
        for client, shard in enumerate(shards):
            for part in _parts(torch.from_numpy(shard)):
                self.pixels[part] = view(client, self.pixels[part])
        return self

    def prefetch(self, index: Tensor | slice) -> None:
        """Get pixels ready that will soon be asked for, where they are in files."""
        if isinstance(self.pixels, FilePixels):
            self.pixels.prefetch(index)

    def surveyed(self) -> Iterator[Tensor]:
        """All pixels, for statistics over them; of files a fixed sample, evenly spaced."""
        if isinstance(self.pixels, Tensor):
            yield self.pixels
            return
        sample = torch.linspace(0, len(self) - 1, min(_SAMPLED, len(self)), dtype=torch.float64).long()
        for part in _parts(sample):
            yield self.pixels[part]


def _parts(index: Tensor) -> Iterator[Tensor]:
    """Not so many at a time that their pixels take much memory."""
    for start in range(0, len(index), _AT_A_TIME):
        yield index[start : start + _AT_A_TIME]


@dataclass(frozen=True)
class Augmentation:
    """Random horizontal flip, and a random crop after zero padding of `crop_padding` pixels a side."""

    flip: bool
    crop_padding: int


@dataclass(frozen=True)
class Dataset:
    """Training and test images, the number of classes, and how training images are augmented."""

    train: Images
    test: Images
    num_classes: int
    augmentation: Augmentation
    class_names: tuple[str, ...] = ()
    """Where they have any."""
    local_test_fraction: float = 0.0
    """Of each client's training images, those that it tests on instead."""

    @property
    def objective(self) -> Objective:
        """What is minimised and measured."""
        return Classification(self.num_classes)

    @property
    def channels(self) -> int:
        """Colour channels of an image."""
        return self.train.pixels.shape[3]

    @property
    def image_size(self) -> int:
        """Height and width of an image, in pixels."""
        return self.train.pixels.shape[1]


def class_balanced_prefix(labels: Tensor, size: int | None, num_classes: int, key: str) -> Tensor:
    """Indices (ascending) of the first `size` samples when each class gives as many as the others.

    Where `size` is no multiple of the classes, the first classes give one more.

    Raises:
        UserError: a class has too few samples, or `size` is below the number of classes.
    """
    if size is None:
        return torch.arange(len(labels))
    if size < num_classes:
        raise UserError(key, size, f"at least one sample for each of the {num_classes} classes")
    share, extra = divmod(size, num_classes)
    chosen = []
    for label in range(num_classes):
        wanted = share + (label < extra)
        members = (labels == label).nonzero().flatten()
        if len(members) < wanted:
            raise UserError(key, size, f"at most {len(members)} of class {label} are there, not {wanted}")
        chosen.append(members[:wanted])
    return torch.cat(chosen).sort().values


@dataclass(frozen=True)
class Published:
    """Sizes of a published dataset, known without its files: training images, their side in pixels, ..."""

    train: int
    side: int
    channels: int
    num_classes: int


@dataclass(frozen=True, kw_only=True)
class ImageSource(ABC):
    """Where images come from. `load` reads both splits; a subclass says how in `read`.

    Args:
        max_train: number of training images to keep, class-balanced; None keeps all.
        max_test: the same for test images.
        validation: number of training images, class-balanced and none of those that are trained on, to
            evaluate on in place of the test images, whatever `max_test`: for tuning; None evaluates on
            the test images.
        local_test_fraction: of the training images of each client, held out to test the model on, see
            `fedsplit.data.local_test`; 0 holds out none.
        image_size: side to resize images to, in pixels: the square in the middle of each; None keeps their
            own size, which must then be square and the same for all.
        flip: augment with random horizontal flips.
        crop_padding: augment with random crops after padding by this many pixels; 0 does not.
    """

    image_size: PositiveInt | None = None
    max_train: PositiveInt | None = None
    max_test: PositiveInt | None = None
    validation: PositiveInt | None = None
    local_test_fraction: BelowOne = 0.0
    flip: bool = False
    crop_padding: NonNegativeInt = 0

    @abstractmethod
    def read(self) -> tuple[Images, Images]:
        """Training and test images, all of them.

        Raises:
            UserError: the files are not there.
        """

    def class_names(self) -> tuple[str, ...]:
        """Of the classes in the order of their labels, where they have any."""
        return ()

    def published(self) -> Published | None:
        """Sizes of the published dataset, or None where they are known from its files only."""
        return None

    def stand_in(self) -> Dataset | None:
        """Labels as many as published, equally of each class, over two black images of the published form.

        For what asks only for numbers and sizes. None where they are not known without the files.
        """
        known = self.published()
        if known is None:
            return None
        side, train = self.image_size or known.side, known.train - (self.validation or 0)
        black = torch.zeros(2, side, side, known.channels, dtype=torch.uint8)
        labels = torch.arange(min(self.max_train or train, train)) % known.num_classes
        return Dataset(
            Images(black, labels),
            Images(black, labels[:2]),
            known.num_classes,
            Augmentation(self.flip, self.crop_padding),
            local_test_fraction=self.local_test_fraction,
        )

    def load(self) -> Dataset:
        """Both splits, cut to `max_train` and `max_test`, at `image_size`.

        Raises:
            UserError: the files are not there, or are fewer than asked for.
        """
        train, test = self.read()
        side = self.image_size or min(train.pixels.shape[1:3])
        if self.crop_padding > side:
            raise UserError("dataset.crop_padding", self.crop_padding, f"at most the images' {side} pixels")
        names = self.class_names()
        num_classes = len(names) or int(train.labels.max()) + 1

        def prefix(images: Images, size: int | None, key: str) -> Images:
            return images.chosen(class_balanced_prefix(images.labels, size, num_classes, key))

        def sized(images: Images) -> Images:
            if self.image_size is None or not isinstance(images.pixels, Tensor):
                return images
            return Images(resized(images.pixels, self.image_size), images.labels, images.owners)

        if self.validation is not None:
            train, test = self._held_out(train, num_classes)
        else:
            test = prefix(test, self.max_test, "dataset.max_test")
        train = prefix(train, self.max_train, "dataset.max_train")
        in_memory = sum(len(images) for images in (train, test) if not images.in_files)
        claim_images(side, train.pixels.shape[3], in_memory, self.image_size)
        return Dataset(
            sized(train),
            sized(test),
            num_classes,
            Augmentation(self.flip, self.crop_padding),
            names,
            self.local_test_fraction,
        )

    def _held_out(self, train: Images, num_classes: int) -> tuple[Images, Images]:
        """Training images without, and with only, the last of each class."""
        backwards = train.labels.flip(0)
        last = class_balanced_prefix(backwards, self.validation, num_classes, "dataset.validation")
        held_out = torch.zeros(len(train), dtype=torch.bool)
        held_out[len(train) - 1 - last] = True
        left = torch.bincount(train.labels[~held_out], minlength=num_classes)
        if not left.all():
            told = f"fewer: no training image of class {int(left.argmin())} is left"
            raise UserError("dataset.validation", self.validation, told)
        return train.chosen(~held_out), train.chosen(held_out)
