"""The image datasets that torchvision reads, holds in memory and downloads."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

import numpy as np
import torch
from typing_extensions import override

from fedsplit.data.image_source import ImageSource, PublishedSizes
from fedsplit.data.images import Images
from fedsplit.data.sources.origins import AS_THEY_ARE, ORIGINS
from fedsplit.errors import UserError, first_line
from fedsplit.files.paths import user_path
from fedsplit.machine.torchvision_operators import torchvision

_READERS = {
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
    "mnist": "MNIST",
    "fashion_mnist": "FashionMNIST",
}
_PUBLISHED = {
    "cifar10": PublishedSizes(50_000, 32, 3, 10),
    "cifar100": PublishedSizes(50_000, 32, 3, 100),
    "mnist": PublishedSizes(60_000, 28, 1, 10),
    "fashion_mnist": PublishedSizes(60_000, 28, 1, 10),
    "svhn": PublishedSizes(73_257, 32, 3, 10),
}


@dataclass(frozen=True, kw_only=True)
class TorchvisionImages(ImageSource):
    """A dataset of torchvision by name, read from `root` in torchvision's own layout.

    Args:
        root: folder that holds, or is to hold, the files.
        download: fetch the files when they are not there.
    """

    name: Literal["cifar10", "cifar100", "mnist", "fashion_mnist", "svhn"]
    root: str
    download: bool

    @override
    def published_sizes(self) -> PublishedSizes:
        return _PUBLISHED[self.name]

    @override
    def read(self) -> tuple[Images, Images]:
        return self._read("train"), self._read("test")

    def _read(self, split: str) -> Images:
        def reader(datasets: ModuleType) -> Any:
            if self.name == "svhn":
                return datasets.SVHN(self.root, split, download=self.download)
            of_name = getattr(datasets, _READERS[self.name])
            return of_name(self.root, train=split == "train", download=self.download)

        found = read_published(self.name, self.root, self.download, reader)
        if self.name == "svhn":
            return images_of(np.ascontiguousarray(found.data.transpose(0, 2, 3, 1)), found.labels)
        return images_of(found.data, found.targets)


def images_of(pixels: Any, labels: Any) -> Images:
    """Images from arrays, tensors or lists; without a dimension of channels there is one channel."""
    tensor = torch.as_tensor(np.asarray(pixels))
    with_channels = tensor if tensor.dim() == 4 else tensor.unsqueeze(3)
    return Images(with_channels, torch.as_tensor(np.asarray(labels), dtype=torch.int64))


def read_published(name: str, root: str, download: bool, reader: Callable[[ModuleType], Any]) -> Any:
    """Images that a reader of torchvision finds in `root`, or downloads to it.

    Args:
        name: name of the dataset, for errors.
        root: the folder; where a download fails that made it, it is removed.
        reader: reader from `torchvision.datasets`.

    Raises:
        UserError: files are missing or damaged, or their download failed.
    """
    folder = user_path(root, "dataset.root")
    was_there = folder.exists()
    try:
        return reader(torchvision().datasets)
    except (RuntimeError, OSError, ValueError, AssertionError) as error:  # missing, damaged, out of reach
        if not was_there:
            shutil.rmtree(folder, ignore_errors=True)  # torchvision makes it, then tries to download
        raise UserError("dataset.root", root, _advice(name, download, error)) from error


def _advice(name: str, download: bool, error: Exception) -> str:
    message = f"must hold {ORIGINS[name]}; {AS_THEY_ARE}"
    if not download:
        return f"{name} is not there or damaged; dataset.download=true fetches it, or {message}"
    return f"{name} is not there or damaged, and its download failed ({first_line(error)}); it {message}"
