"""Datasets that are image files: listed by their layout, decoded once and kept, or as they are read."""

import os
import re
import stat
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeAlias

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from fedsplit.config.values import Workers
from fedsplit.data.decoding import SUFFIXES, Decoder, load_or_make
from fedsplit.data.file_pixels import DecodingAhead, FilePixels
from fedsplit.data.image_source import ImageSource, PublishedSizes
from fedsplit.data.images import Images
from fedsplit.data.sources.origins import AS_THEY_ARE
from fedsplit.errors import UserError
from fedsplit.files.paths import user_path
from fedsplit.machine.progress import track

_KEPT_BYTES = 256_000_000  # images decoded ahead, or to be asked for again: some batches of 224x224
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_IMAGE = re.compile(
    rb"\x89PNG|\xff\xd8\xff|GIF8|BM|II\*\0|MM\0\*|RIFF....WEBP|P[1-6]\s|....ftyp(avif|heic|mif1)|\0\0\0\x0cjP",
    re.DOTALL,
)
"""First bytes of image files, by which a file is known to be one."""
Listed: TypeAlias = list[tuple[Path, int]]
"""Files of a split with their labels."""


@dataclass(frozen=True, kw_only=True)
class ImageFiles(ImageSource):
    """Images in files below `root`; a subclass says which in `list_files`.

    The decoded pixels are kept in `root/.fedsplit-cache` (where it can be written), under a name made
    of every file's path, size and time of change, so an edited folder is decoded anew; so is one whose
    kept pixels are not those that were written.

    Args:
        grayscale: one channel instead of three.
        workers: threads that decode images each time they are asked for, where memory does not hold all;
            None decodes them once, at the start.
    """

    origin: ClassVar[str] = ""
    """Source of the files, for error messages where there are none."""

    published_train: ClassVar[int | None] = None
    """Number of training images, where a dataset is published."""
    published_side: ClassVar[int | None] = None
    """Height and width of an image, in pixels, where published images are square and of one size."""
    published_classes: ClassVar[int] = 0
    """Number of classes, where a dataset is published."""

    root: str
    grayscale: bool = False
    workers: Workers | None = None

    @property
    def folder(self) -> Path:
        """`root`, with `~` spelled out."""
        return user_path(self.root, "dataset.root")

    @override
    def published_sizes(self) -> PublishedSizes | None:
        side = self.image_size or self.published_side
        if self.published_train is None or side is None:
            return None
        return PublishedSizes(self.published_train, side, 1 if self.grayscale else 3, self.published_classes)

    @abstractmethod
    def list_files(self) -> tuple[Listed, Listed]:
        """List training and test files with their labels.

        Raises:
            UserError: the files are not there.
        """

    @override
    def read(self) -> tuple[Images, Images]:
        train, test = self.list_files()
        decoder = Decoder(self.root, self.image_size is not None, self.grayscale)
        side = self.image_size or decoder.native_side(train[0][0])
        return self._split("train", train, decoder, side), self._split("test", test, decoder, side)

    def misplaced_error(self, layout: str) -> UserError:
        """Error to raise where the files are not as they should be."""
        message = f"; {self.origin}; {AS_THEY_ARE}" if self.origin else ""
        return UserError("dataset.root", self.root, layout + message)

    def _split(self, split: str, files: Listed, decoder: Decoder, side: int) -> Images:
        labels = torch.tensor([label for _, label in files], dtype=torch.int64)
        if not files:
            return Images(torch.empty(0, side, side, decoder.channels, dtype=torch.uint8), labels)
        if self.workers is not None:
            ahead = DecodingAhead(decoder, side, self.workers, _KEPT_BYTES)
            return Images(FilePixels(np.array([bytes(file) for file, _ in files]), ahead), labels)
        only_files = [file for file, _ in files]

        shape = (len(files), side, side, decoder.channels)

        def decode() -> dict[str, Tensor]:
            pixels = torch.empty(shape, dtype=torch.uint8)
            for place, file in zip(pixels.numpy(), track(only_files, "decoding images"), strict=True):
                place[:] = decoder.decode(file, side)
            return {"pixels": pixels, "labels": labels}

        def fits(found: Mapping[str, Tensor]) -> bool:
            return (
                found.keys() == {"pixels", "labels"}
                and (found["pixels"].dtype, found["pixels"].shape) == (torch.uint8, shape)
                and found["labels"].dtype == torch.int64
                and torch.equal(found["labels"], labels)
            )

        settings = f"middle square, {side} {self.image_size is None} {self.grayscale}"
        return Images(
            load_or_make(self.folder, split, only_files, settings, make=decode, fits=fits)["pixels"], labels
        )


def classes_in(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted; hidden ones are none.

    Raises:
        UserError: it cannot be read, or holds a link that leads nowhere.
    """
    return sorted(path.name for path in _visible(folder) if _mode(path) == stat.S_IFDIR)


def images_in(folder: Path) -> list[Path]:
    """Image files in a folder, sorted; none where there is no folder. Hidden ones are none.

    Raises:
        UserError: the folder cannot be read, or holds something that is named as an image and is no file.
    """
    found = sorted(each for each in _visible(folder) if each.suffix.lower() in SUFFIXES)
    for each in found:
        if (kind := _mode(each)) != stat.S_IFREG:
            message = f"{each} is named as an image and is {_KINDS.get(kind, 'no file')}"
            raise UserError("dataset.root", folder, message)
    return found


def by_class(folder: Path, classes: list[str] | tuple[str, ...]) -> Listed:
    """The files of `folder/<class>/`, class by class."""
    return [(file, label) for label, name in enumerate(classes) for file in images_in(folder / name)]


def images_beside(folder: Path, classes: Iterable[str]) -> list[Path]:
    """Images below a folder that `by_class` does not list, sorted, by how their content begins.

    They are in no folder of a class, or in a folder below one, or their name does not end as one of an image.
    """
    found = [each for each in _visible(folder) if each.is_file()]
    for name in classes:
        for each in _visible(folder / name):
            if each.is_dir():
                found += _files_below(each)
            elif each.suffix.lower() not in SUFFIXES:
                found.append(each)
    return sorted(filter(_begins_as_an_image, found))


def _files_below(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(place, name) for name in files if not name.startswith("."))


def _visible(folder: Path) -> list[Path]:
    """Paths in a folder that are not hidden; none where there is no folder."""
    try:
        return [path for path in folder.iterdir() if not path.name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UserError("dataset.root", folder, f"cannot be read ({error.strerror})") from error


def _mode(path: Path) -> int:
    """Kind of a path, or of what the link there leads to, as `stat.S_IFMT` tells it."""
    try:
        return stat.S_IFMT(path.stat().st_mode)
    except OSError as error:
        message = (
            "is a link that leads nowhere" if path.is_symlink() else f"cannot be read ({error.strerror})"
        )
        raise UserError("dataset.root", path.parent, f"{path} {message}") from error


def _begins_as_an_image(path: Path) -> bool:
    """True if a file is an image by its first bytes; False where it cannot be read."""
    try:
        if not path.is_file():  # one that is not may never give a byte
            return False
        with path.open("rb") as file:
            return _IMAGE.match(file.read(16)) is not None
    except OSError:
        return False
