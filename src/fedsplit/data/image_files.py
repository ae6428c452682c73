"""Datasets that are image files: listed by their layout, decoded once and kept, or as they are read."""

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeAlias

import numpy as np
import torch
from torch import Tensor

from fedsplit.arguments import Workers
from fedsplit.data.dataset import Images, ImageSource, Published
from fedsplit.data.decoding import SUFFIXES, Decoder, kept
from fedsplit.data.file_pixels import DecodingAhead, FilePixels
from fedsplit.data.origins import AS_THEY_ARE
from fedsplit.errors import UserError

_KEPT_BYTES = 256_000_000  # of images decoded ahead, or to be asked for again: some batches of 224x224
Listed: TypeAlias = list[tuple[Path, int]]
"""Files of a split with their labels."""


@dataclass(frozen=True, kw_only=True)
class ImageFiles(ImageSource):
    """Images in files below `root`; a subclass says which in `listed`.

    The decoded pixels are kept in `root/.fedsplit-cache` (where it can be written), under a name made
    of every file's path, size and time of change, so an edited folder is decoded anew.

    Args:
        root: the folder.
        grayscale: one channel instead of three.
        workers: threads that decode images each time they are asked for, where memory does not hold all;
            None decodes them once, at the start.
    """

    origin: ClassVar[str] = ""
    """Where the files come from, for those who have none."""

    published_train: ClassVar[int | None] = None
    """Training images, of a published dataset."""
    published_side: ClassVar[int | None] = None
    """Height and width of an image, in pixels, where published images are square and of one size."""
    published_classes: ClassVar[int] = 0
    """Classes, of a published dataset."""

    root: str
    grayscale: bool = False
    workers: Workers | None = None

    @property
    def folder(self) -> Path:
        """`root`, with `~` spelled out."""
        return Path(self.root).expanduser()

    def published(self) -> Published | None:
        """See `ImageSource.published`."""
        side = self.image_size or self.published_side
        if self.published_train is None or side is None:
            return None
        return Published(self.published_train, side, 1 if self.grayscale else 3, self.published_classes)

    @abstractmethod
    def listed(self) -> tuple[Listed, Listed]:
        """Training and test files with their labels.

        Raises:
            UserError: the files are not there.
        """

    def read(self) -> tuple[Images, Images]:
        """Both splits."""
        train, test = self.listed()
        decoder = Decoder(self.root, self.image_size is not None, self.grayscale)
        side = self.image_size or decoder.own_side(train[0][0])
        return self._split("train", train, decoder, side), self._split("test", test, decoder, side)

    def misplaced(self, layout: str) -> UserError:
        """What to say where the files are not as they should be."""
        told = f"; {self.origin}; {AS_THEY_ARE}" if self.origin else ""
        return UserError("dataset.root", self.root, layout + told)

    def _split(self, split: str, files: Listed, decoder: Decoder, side: int) -> Images:
        labels = torch.tensor([label for _, label in files], dtype=torch.int64)
        if not files:
            return Images(torch.empty(0, side, side, decoder.channels, dtype=torch.uint8), labels)
        if self.workers is not None:
            ahead = DecodingAhead(decoder, side, self.workers, _KEPT_BYTES)
            return Images(FilePixels(np.array([bytes(file) for file, _ in files]), ahead), labels)
        only_files = [file for file, _ in files]

        def decoded() -> dict[str, Tensor]:
            pixels = torch.empty(len(files), side, side, decoder.channels, dtype=torch.uint8)
            for place, file in zip(pixels.numpy(), only_files, strict=True):
                place[:] = decoder.decoded(file, side)
            return {"pixels": pixels}

        settings = f"middle square, {side} {self.image_size is None} {self.grayscale}"
        return Images(kept(self.folder, split, only_files, settings, decoded)["pixels"], labels)


def classes_in(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted; hidden ones are none."""
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def images_in(folder: Path) -> list[Path]:
    """Image files in a folder, sorted; none where there is no folder. Hidden ones are none."""
    found = folder.glob("*")
    return sorted(each for each in found if each.suffix.lower() in SUFFIXES and each.name[0] != ".")


def by_class(folder: Path, classes: list[str] | tuple[str, ...]) -> Listed:
    """The files of `folder/<class>/`, class by class."""
    return [(file, label) for label, name in enumerate(classes) for file in images_in(folder / name)]
