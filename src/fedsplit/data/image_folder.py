"""Images in folders named after their classes, decoded once and cached."""

import os
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from fedsplit.arguments import PositiveInt
from fedsplit.data.dataset import Images, ImageSource
from fedsplit.errors import UserError

_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".webp", ".gif"}


@dataclass(frozen=True, kw_only=True)
class ImageFolder(ImageSource):
    """`root/train/<class>/*` and `root/test/<class>/*`; classes are sorted by name, and so are files.

    The decoded pixels are kept in `root/.fedsplit-cache` (where it can be written), under a name made
    of every file's path, size and time of change, so an edited folder is decoded anew.

    Args:
        root: the folder.
        image_size: side to resize to, in pixels; None keeps the files' own, which must then be square
            and the same for all.
        grayscale: one channel instead of three.
        classes: names of all classes, in the order of their labels: a folder need not hold images of each,
            and may be without `test`; None are those that `root/train` has, and each must have images.
    """

    root: str
    image_size: PositiveInt | None = None
    grayscale: bool = False
    classes: list[str] | None = None

    def read(self) -> tuple[Images, Images]:
        """Both splits."""
        classes = self.class_names()
        for split, of in (("train", "dataset.classes"), ("test", "train")):
            folder = Path(self.root, split)
            surplus = sorted(set(_classes(folder)) - set(classes)) if folder.is_dir() else []
            if surplus:
                raise UserError("dataset.root", self.root, f"class {surplus[0]} of {split} is none of {of}")
        files = {
            split: [_images(Path(self.root, split, name)) for name in classes] for split in ("train", "test")
        }
        for name, of_class in zip(classes, files["train"], strict=True):
            if not of_class and self.classes is None:
                raise UserError("dataset.root", self.root, f"train/{name} holds no image")
        for split, found in files.items():
            if not any(found) and (split == "train" or self.classes is None):
                raise UserError("dataset.root", self.root, f"{split}/<class>/ holds no image")
        side = self.image_size or self._own_side(next(chain(*files["train"])))
        return self._split("train", files["train"], side), self._split("test", files["test"], side)

    def class_names(self) -> tuple[str, ...]:
        """See `ImageSource.class_names`."""
        train = Path(self.root, "train")
        if not train.is_dir():
            raise UserError(
                "dataset.root", self.root, "a folder that holds train/<class>/* and test/<class>/*"
            )
        for name in self.classes or ():  # they may come over the network
            if not name or name != Path(name).name or name.startswith(".") or "\0" in name:
                raise UserError("dataset.classes", name, "must be the name of a folder, not a path")
        return tuple(_classes(train) if self.classes is None else self.classes)

    def _split(self, split: str, files: list[list[Path]], side: int) -> Images:
        labels = [label for label, of_class in enumerate(files) for _ in of_class]
        if not labels:
            channels = 1 if self.grayscale else 3
            return Images(torch.empty(0, side, side, channels, dtype=torch.uint8), torch.tensor(labels))
        pixels = self._decoded(split, [file for of_class in files for file in of_class], side)
        return Images(pixels, torch.tensor(labels))

    def _decoded(self, split: str, files: list[Path], side: int) -> torch.Tensor:
        digest = sha256(f"{side} {self.image_size is None} {self.grayscale}".encode())
        for file in files:
            stat = file.stat()
            digest.update(f"{file.relative_to(self.root)} {stat.st_size} {stat.st_mtime_ns}\n".encode())
        cache = Path(self.root, ".fedsplit-cache", f"{split}-{digest.hexdigest()[:16]}.safetensors")
        if cache.is_file():
            try:
                return load_file(cache)["pixels"]
            except (SafetensorError, KeyError):
                pass  # a damaged cache is written again below
        pixels = torch.from_numpy(np.stack([self._decode(file, side) for file in files]))
        _write_cache(cache, pixels)
        return pixels

    def _own_side(self, file: Path) -> int:
        width, height = self._opened(file).size
        if width != height:
            raise UserError(
                "dataset.image_size", None, f"{file} is {width}x{height}: give the size to resize to"
            )
        return width

    def _decode(self, file: Path, side: int) -> np.ndarray:
        image = self._opened(file)
        if self.image_size is not None:
            image = image.resize((side, side), Image.Resampling.BILINEAR)
        elif image.size != (side, side):
            found = f"{file} is {image.size[0]}x{image.size[1]} and not {side}x{side}"
            raise UserError("dataset.image_size", None, f"{found}: give the size to resize to")
        array = np.asarray(image)
        return array if array.ndim == 3 else array[:, :, None]

    def _opened(self, file: Path) -> Image.Image:
        try:
            with Image.open(file) as image:
                if image.mode.startswith(("I", "F")):
                    raise UserError("dataset.root", self.root, f"{file} has more than 8 bits a channel")
                return image.convert("L" if self.grayscale else "RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # Pillow raises all
            raise UserError("dataset.root", self.root, f"{file} cannot be read as an image") from error


def _classes(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.suffix.lower() in _SUFFIXES)


def _write_cache(cache: Path, pixels: torch.Tensor) -> None:
    partial = cache.with_suffix(f".{os.getpid()}.partial")
    try:
        cache.parent.mkdir(exist_ok=True)
        save_file({"pixels": pixels}, partial)
        partial.replace(cache)
    except (OSError, SafetensorError):
        with suppress(OSError):  # a folder that cannot be written to is decoded anew each time
            partial.unlink(missing_ok=True)
