"""Where images come from: read, cut to a prefix, and brought to one size."""

from abc import abstractmethod
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from typing_extensions import override

from fedsplit.config.values import NonNegativeInt, PositiveInt
from fedsplit.data.augmentation import Augmentation
from fedsplit.data.dataset import Source
from fedsplit.data.decoding import resize_images
from fedsplit.data.images import ImageDataset, Images
from fedsplit.errors import UserError
from fedsplit.machine.allowance import claim_images


def class_balanced_prefix(labels: Tensor, size: int | None, num_classes: int, key: str) -> Tensor:
    """Indices (ascending) of the first `size` samples when each class gives as many as the others.

    Where `size` is no multiple of the classes, the first classes give one more.

    Raises:
        UserError: a class has too few samples, or `size` is below the number of classes.
    """
    if size is None:
        return torch.arange(len(labels))
    if size < num_classes:
        raise UserError(key, size, f"must be at least {num_classes}: one sample for each class")
    share, extra = divmod(size, num_classes)
    chosen = []
    for label in range(num_classes):
        wanted = share + (label < extra)
        members = (labels == label).nonzero().flatten()
        if len(members) < wanted:
            raise UserError(
                key, size, f"must be smaller: class {label} has {len(members)} samples, not {wanted}"
            )
        chosen.append(members[:wanted])
    return torch.cat(chosen).sort().values


@dataclass(frozen=True)
class PublishedSizes:
    """Sizes of a published dataset, known without its files: training images, their side in pixels, ..."""

    train: int
    side: int
    channels: int
    num_classes: int


@dataclass(frozen=True, kw_only=True)
class ImageSource(Source):
    """Source of images. `load` reads both splits; a subclass says how in `read`.

    What `max_train`, `max_test` and `validation` keep is class-balanced.

    Args:
        image_size: side to resize images to, in pixels: the square in the middle of each; None keeps their
            own size, which must then be square and the same for all.
        flip: augment with random horizontal flips.
        crop_padding: augment with random crops after padding by this many pixels; 0 does not.
    """

    image_size: PositiveInt | None = None
    flip: bool = False
    crop_padding: NonNegativeInt = 0

    @abstractmethod
    def read(self) -> tuple[Images, Images]:
        """Training and test images, all of them.

        Raises:
            UserError: the files are not there.
        """

    def class_names(self) -> tuple[str, ...]:
        """Names of the classes in the order of their labels, where they have any."""
        return ()

    def published_sizes(self) -> PublishedSizes | None:
        """Sizes of the published dataset, or None where they are known from its files only."""
        return None

    @override
    def stand_in(self) -> ImageDataset | None:
        """Labels as many as published, equally of each class, over two black images of the published form."""
        known = self.published_sizes()
        if known is None:
            return None
        side, train = self.image_size or known.side, known.train - (self.validation or 0)
        black = torch.zeros(2, side, side, known.channels, dtype=torch.uint8)
        labels = torch.arange(min(self.max_train or train, train)) % known.num_classes
        return self._dataset(Images(black, labels), Images(black, labels[:2]), known.num_classes)

    @override
    def load(self) -> ImageDataset:
        """Both splits, cut to `max_train` and `max_test`, at `image_size`.

        Raises:
            UserError: the files are not there, or are fewer than asked for.
        """
        train, test = self.read()
        side = self.image_size or min(train.pixels.shape[1:3])
        if self.crop_padding > side:
            raise UserError(
                "dataset.crop_padding",
                self.crop_padding,
                f"must be at most {side}, the side of the images in pixels",
            )
        names = self.class_names()
        num_classes = len(names) or int(train.labels.max()) + 1

        def prefix(images: Images, size: int | None, key: str) -> Images:
            return images.select(class_balanced_prefix(images.labels, size, num_classes, key))

        def resize(images: Images) -> Images:
            if self.image_size is None or not isinstance(images.pixels, Tensor):
                return images
            return replace(images, pixels=resize_images(images.pixels, self.image_size))

        if self.validation is not None:
            train, test = self._held_out(train, num_classes)
        else:
            test = prefix(test, self.max_test, "dataset.max_test")
        train = prefix(train, self.max_train, "dataset.max_train")
        in_memory = sum(len(images) for images in (train, test) if not images.in_files)
        claim_images(side, train.pixels.shape[3], in_memory, self.image_size)
        return self._dataset(resize(train), resize(test), num_classes, names)

    def _dataset(
        self, train: Images, test: Images, num_classes: int, names: tuple[str, ...] = ()
    ) -> ImageDataset:
        train = replace(train, augmentation=Augmentation(self.flip, self.crop_padding))
        return ImageDataset.of(train, test, num_classes, names, self.local_test_fraction)

    def _held_out(self, train: Images, num_classes: int) -> tuple[Images, Images]:
        """Training images without, and with only, the last of each class."""
        backwards = train.labels.flip(0)
        last = class_balanced_prefix(backwards, self.validation, num_classes, "dataset.validation")
        held_out = torch.zeros(len(train), dtype=torch.bool)
        held_out[len(train) - 1 - last] = True
        left = torch.bincount(train.labels[~held_out], minlength=num_classes)
        if not left.all():
            message = f"must be smaller: no training image of class {int(left.argmin())} is left"
            raise UserError("dataset.validation", self.validation, message)
        return train.select(~held_out), train.select(held_out)
