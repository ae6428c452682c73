"""Image files to pixels: opened, brought to size, and kept decoded on disk."""

import os
import stat
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from fedsplit.errors import UserError, first_line
from fedsplit.files.whole import appearing

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".webp", ".gif"}
_LARGEST_BYTE = 255


def ignore_pillows_warnings() -> None:
    """Let Pillow keep to itself what it warns of: it decodes such files, or raises and the file is named."""
    warnings.filterwarnings("ignore", category=Warning, module=r"PIL(\.|$)")


ignore_pillows_warnings()  # for the whole process: filters that come and go are not those of one thread


@dataclass(frozen=True)
class Decoder:
    """Decoder that makes pixels of image files.

    Args:
        root: folder of the dataset, named in errors.
        resize: True to resize images; else images of another size are refused.
        grayscale: one channel instead of three.
    """

    root: str
    resize: bool
    grayscale: bool

    @property
    def channels(self) -> int:
        """Number of channels of every image."""
        return 1 if self.grayscale else 3

    def open_image(self, file: Path) -> "Image.Image":
        """Open the image in a file as it is stored: not turned as its EXIF data say, without transparency.

        Raises:
            UserError: it is none, or has more than 8 bits a channel.
        """
        from PIL import Image  # noqa: PLC0415  (slow, and not needed for images that are no files)

        try:
            if not stat.S_ISREG(file.stat().st_mode):  # a pipe would be waited for
                raise ValueError("it is no file")
            with Image.open(file) as image:
                if _is_deep(image):
                    raise UserError("dataset.root", self.root, f"{file} has more than 8 bits a channel")
                return image.convert("L" if self.grayscale else "RGB")
        except UserError:
            raise
        except Exception as error:  # Pillow's decoders raise whatever damaged files make them raise
            reason = first_line(error)
            if isinstance(error, OSError) and error.strerror:
                reason = error.strerror
            message = f"{file} cannot be read as an image ({reason})"
            raise UserError("dataset.root", self.root, message) from error

    def native_side(self, file: Path) -> int:
        """Height and width of a square image.

        Raises:
            UserError: it is not square, or cannot be read.
        """
        width, height = self.open_image(file).size
        if width != height:
            message = f"{file} is {width}x{height}: give the size to resize to"
            raise UserError("dataset.image_size", None, message)
        return width

    def decode(self, file: Path, side: int) -> np.ndarray:
        """Pixels of a file, uint8 `(side, side, c)`.

        Raises:
            UserError: it cannot be read, or has another size and is not to be resized.
        """
        image = self.open_image(file)
        if self.resize:
            image = crop_to_square(image, side)
        elif image.size != (side, side):
            found = f"{file} is {image.size[0]}x{image.size[1]} and not {side}x{side}"
            raise UserError("dataset.image_size", None, f"{found}: give the size to resize to")
        return np.asarray(image).reshape(side, side, self.channels)


def _is_deep(image: "Image.Image") -> bool:
    """True if an image has more than 8 bits a channel; of colours Pillow would drop the lower ones."""
    from PIL import ImageFile  # noqa: PLC0415

    if image.mode.startswith(("I", "F")):
        return True
    for tile in image.tile if isinstance(image, ImageFile.ImageFile) else ():
        mode, *others = tile.args if isinstance(tile.args, tuple) else (tile.args,)
        largest = others[0] if others and tile.codec_name.startswith("ppm") else 0
        if ";16" in str(mode) or (isinstance(largest, int) and largest > _LARGEST_BYTE):
            return True
    return False


def crop_to_square(image: "Image.Image", side: int) -> "Image.Image":
    """Crop the square in the middle of an image, and resize it to `side` pixels a side."""
    from PIL import Image  # noqa: PLC0415

    width, height = image.size
    short = min(width, height)
    left, top = (width - short) / 2, (height - short) / 2
    if image.size == (side, side):
        return image
    box = (left, top, left + short, top + short)
    return image.resize((side, side), Image.Resampling.BILINEAR, box=box)


def resize_images(pixels: Tensor, side: int) -> Tensor:
    """Images held in memory, uint8 `(n, h, w, c)`, as `crop_to_square` makes each of them."""
    if pixels.shape[1:3] == (side, side):
        return pixels
    from PIL import Image  # noqa: PLC0415

    out = torch.empty(len(pixels), side, side, pixels.shape[3], dtype=torch.uint8)
    for each, place in zip(pixels.numpy(), out.numpy(), strict=True):
        image = crop_to_square(Image.fromarray(each[:, :, 0] if each.shape[2] == 1 else each), side)
        place[:] = np.asarray(image).reshape(place.shape)
    return out


def load_or_make(
    root: Path,
    name: str,
    files: Iterable[Path],
    settings: str,
    *,
    make: Callable[[], Mapping[str, Tensor]],
    fits: Callable[[Mapping[str, Tensor]], bool],
) -> Mapping[str, Tensor]:
    """Load tensors from the cache below `root`, or `make` them, and cache them where that can be written.

    The name of the kept file is made of `settings` and every file's path, size and time of change, so
    what was edited is read anew. So is what was kept otherwise: a file that is damaged, a link, of other
    files, of tensors that do not `fit`, or not of the digest that it names.

    Args:
        name: name of the kept file, which is the split's.
        settings: settings that the files are read by.
        fits: True if tensors can be of these files: their names, types, shapes and labels.

    Raises:
        UserError: a file is gone.
    """
    digest = sha256(settings.encode())
    for file in files:
        try:
            found = file.stat()
        except OSError as error:
            raise UserError("dataset.root", root, f"{file} cannot be read ({error.strerror})") from error
        digest.update(os.fsencode(f"{file.relative_to(root)} {found.st_size} {found.st_mtime_ns}\n"))
    cache = root / ".fedsplit-cache" / f"{name}-{digest.hexdigest()[:16]}.safetensors"
    held = _read(cache, digest.hexdigest())
    if held is not None and fits(held):
        return held
    made = make()
    _write(cache, digest.hexdigest(), made)
    return made


def _read(cache: Path, source: str) -> Mapping[str, Tensor] | None:
    """Tensors kept in a file; None where it is not whole, or of another source."""
    if cache.is_symlink() or not cache.is_file():
        return None
    try:
        with safe_open(cache, framework="pt") as file:
            metadata = file.metadata() or {}
        tensors: Mapping[str, Tensor] = load_file(cache)
    except (SafetensorError, OSError, ValueError, LookupError, TypeError, RuntimeError):
        return None
    return tensors if metadata == {"digest": _digest(source, tensors)} else None


def _digest(source: str, tensors: Mapping[str, Tensor]) -> str:
    """Digest of the source of tensors, and of their names, types, shapes and values."""
    digest = sha256(source.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _write(cache: Path, source: str, tensors: Mapping[str, Tensor]) -> None:
    with suppress(OSError, SafetensorError):  # a folder that cannot be written to is decoded anew each time
        cache.parent.mkdir(exist_ok=True)
        with appearing(cache, beside=f"{cache.stem}.{os.getpid()}.partial") as partial:
            save_file(dict(tensors), partial, {"digest": _digest(source, tensors)})
