"""The image datasets that torchvision reads and downloads."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from fedsplit.data.dataset import Images, ImageSource
from fedsplit.errors import UserError
from fedsplit.models.torchvision_operators import torchvision

_READERS = {
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
    "mnist": "MNIST",
    "fashion_mnist": "FashionMNIST",
}


@dataclass(frozen=True, kw_only=True)
class TorchvisionImages(ImageSource):
    """A dataset of torchvision by name, read from `root` in torchvision's own layout.

    Args:
        name: which dataset.
        root: folder that holds, or is to hold, the files.
        download: fetch the files when they are not there.
    """

    name: Literal["cifar10", "cifar100", "mnist", "fashion_mnist"]
    root: str
    download: bool

    def read(self) -> tuple[Images, Images]:
        """Both splits as published."""
        return self._read(train=True), self._read(train=False)

    def _read(self, *, train: bool) -> Images:
        reader = getattr(torchvision().datasets, _READERS[self.name])
        was_there = Path(self.root).exists()
        try:
            split = reader(self.root, train=train, download=self.download)
        except (RuntimeError, OSError, ValueError, AssertionError) as error:  # missing, damaged, out of reach
            if not was_there:
                shutil.rmtree(self.root, ignore_errors=True)  # torchvision makes it, then tries to download
            raise UserError("dataset.root", self.root, self._advice(error)) from error
        pixels = torch.as_tensor(np.asarray(split.data))
        if pixels.dim() == 3:
            pixels = pixels.unsqueeze(3)
        return Images(pixels, torch.as_tensor(np.asarray(split.targets), dtype=torch.int64))

    def _advice(self, error: Exception) -> str:
        if not self.download:
            return f"{self.name} is not there or damaged; dataset.download=true fetches it"
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return f"{self.name} is not there or damaged, and its download failed ({reason})"
