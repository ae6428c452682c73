"""Images in folders named after their classes, decoded once and cached."""

import os
from dataclasses import dataclass
from hashlib import sha256
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
    """

    root: str
    image_size: PositiveInt | None = None
    grayscale: bool = False

    def read(self) -> tuple[Images, Images]:
        """Both splits, with the classes of `root/train`."""
        train = Path(self.root, "train")
        if not train.is_dir():
            raise UserError(
                "dataset.root", self.root, "a folder that holds train/<class>/* and test/<class>/*"
            )
        classes = sorted(path.name for path in train.iterdir() if path.is_dir())
        return self._read("train", classes), self._read("test", classes)

    def _read(self, split: str, classes: list[str]) -> Images:
        folder = Path(self.root, split)
        files, labels = [], []
        if folder.is_dir():
            surplus = sorted({path.name for path in folder.iterdir() if path.is_dir()} - set(classes))
            if surplus:
                raise UserError("dataset.root", self.root, f"class {surplus[0]} of {split} is none of train")
        for label, name in enumerate(classes):
            found = sorted(p for p in (folder / name).glob("*") if p.suffix.lower() in _SUFFIXES)
            files += found
            labels += [label] * len(found)
        if not files:
            raise UserError("dataset.root", self.root, f"no image in {split}/<class>/")
        return Images(self._decoded(split, files), torch.tensor(labels))

    def _decoded(self, split: str, files: list[Path]) -> torch.Tensor:
        digest = sha256(f"{self.image_size} {self.grayscale}".encode())
        for file in files:
            stat = file.stat()
            digest.update(f"{file.relative_to(self.root)} {stat.st_size} {stat.st_mtime_ns}\n".encode())
        cache = Path(self.root, ".fedsplit-cache", f"{split}-{digest.hexdigest()[:16]}.safetensors")
        if cache.is_file():
            try:
                return load_file(cache)["pixels"]
            except (SafetensorError, KeyError):
                pass  # a damaged cache is written again below
        side = self.image_size or self._own_side(files[0])
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
                return image.convert("L" if self.grayscale else "RGB")
        except OSError as error:
            raise UserError("dataset.root", self.root, f"{file} cannot be read as an image") from error


def _write_cache(cache: Path, pixels: torch.Tensor) -> None:
    partial = cache.with_suffix(f".{os.getpid()}.partial")
    try:
        cache.parent.mkdir(exist_ok=True)
        save_file({"pixels": pixels}, partial)
        partial.replace(cache)
    except (OSError, SafetensorError):
        partial.unlink(missing_ok=True)  # a folder that cannot be written to is decoded anew each time
