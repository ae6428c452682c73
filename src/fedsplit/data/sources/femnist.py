"""Handwritten digits and letters of many writers."""

import json
import string
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from fedsplit.data.decoding import load_or_make
from fedsplit.data.image_source import ImageSource, PublishedSizes
from fedsplit.data.images import Images
from fedsplit.data.sources.torchvision_images import images_of, read_published
from fedsplit.errors import UserError
from fedsplit.files.paths import user_path

_CLASSES = tuple(sorted(string.digits + string.ascii_letters))  # digits, capitals, small letters
_SIDE = 28


@dataclass(frozen=True, kw_only=True)
class Femnist(ImageSource):
    """62 classes, grey images of 28x28 pixels: LEAF's FEMNIST, or EMNIST by class, of the same forms.

    Where `root/femnist/train/` and `root/femnist/test/` hold LEAF's JSON files (`users, num_samples,
    user_data: {<writer>: {x, y}}`), those are read, and each training image has its writer for an owner.
    Else it is EMNIST, whose files do not say who wrote what, read and downloaded by torchvision. LEAF
    draws black on white, EMNIST white on black and mirrored along the diagonal; both stay as they are.

    Source: S. Caldas et al., "LEAF: A Benchmark for Federated Settings", 2018; G. Cohen et al., "EMNIST: an
    extension of MNIST to handwritten letters", 2017.

    Args:
        root: folder that holds, or is to hold, the files.
        download: fetch EMNIST when neither is there.
    """

    root: str
    download: bool

    @override
    def published_sizes(self) -> PublishedSizes:
        """Published sizes of EMNIST; see `ImageSource.published_sizes`."""
        return PublishedSizes(697_932, _SIDE, 1, len(_CLASSES))

    @override
    def read(self) -> tuple[Images, Images]:
        folder = self._folder
        train, test = (sorted((folder / split).glob("*.json")) for split in ("train", "test"))
        if train and test:
            return self._of_writers("train", train), self._of_writers("test", test)
        if train or test:
            message = "femnist/train/ and femnist/test/ must both hold LEAF's JSON files"
            raise UserError("dataset.root", self.root, message)
        return self._emnist(train=True), self._emnist(train=False)

    @override
    def class_names(self) -> tuple[str, ...]:
        return _CLASSES

    @property
    def _folder(self) -> Path:
        return user_path(self.root, "dataset.root") / "femnist"

    def _emnist(self, *, train: bool) -> Images:
        found = read_published(
            "femnist",
            self.root,
            self.download,
            lambda datasets: datasets.EMNIST(self.root, "byclass", train=train, download=self.download),
        )
        return images_of(found.data, found.targets)

    def _of_writers(self, split: str, files: list[Path]) -> Images:
        def parse() -> Mapping[str, Tensor]:
            writers: dict[str, int] = {}
            parts = [self._parse(file, writers) for file in files]
            return {
                name: torch.from_numpy(np.concatenate([part[name] for part in parts])) for name in parts[0]
            }

        tensors = load_or_make(self._folder, split, files, "LEAF", make=parse, fits=_are_of_writers)
        return Images(tensors["pixels"], tensors["labels"], tensors["owners"])

    def _parse(self, file: Path, writers: dict[str, int]) -> dict[str, np.ndarray]:
        """One file as arrays; `writers` numbers them in the order in which they come."""
        try:
            content: Any = json.loads(file.read_text("utf-8"))
            pixels, labels, owners = [], [], []
            for writer in content["users"]:
                x = np.asarray(content["user_data"][writer]["x"], dtype=np.float64)
                y = np.asarray(content["user_data"][writer]["y"], dtype=np.int64)
                x = x.reshape(len(y), _SIDE, _SIDE, 1)
                if not (((y >= 0) & (y < len(_CLASSES))).all() and ((x >= 0) & (x <= 1)).all()):
                    raise ValueError(writer)
                pixels.append(np.rint(255 * x).astype(np.uint8))
                labels.append(y)
                owners.append(np.full(len(y), writers.setdefault(writer, len(writers)), dtype=np.int64))
            return {
                "pixels": np.concatenate(pixels),
                "labels": np.concatenate(labels),
                "owners": np.concatenate(owners),
            }
        except (OSError, ValueError, KeyError, TypeError) as error:
            message = (
                f"{file} must be JSON of LEAF: users, and user_data with x (784 numbers from 0 to 1) and y"
            )
            raise UserError("dataset.root", self.root, message) from error


def _are_of_writers(found: Mapping[str, Tensor]) -> bool:
    """True if tensors are those that `_of_writers` makes."""
    if found.keys() != {"pixels", "labels", "owners"}:
        return False
    pixels, labels, owners = (found[name] for name in ("pixels", "labels", "owners"))
    return (
        (pixels.dtype, pixels.shape) == (torch.uint8, (len(pixels), _SIDE, _SIDE, 1))
        and all(each.dtype == torch.int64 and each.shape == (len(pixels),) for each in (labels, owners))
        and bool(((labels >= 0) & (labels < len(_CLASSES)) & (owners >= 0)).all())
    )
