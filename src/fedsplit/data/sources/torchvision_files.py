"""The datasets of image files that torchvision lists and downloads."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from typing_extensions import override

from fedsplit.data.image_files import ImageFiles, Listed
from fedsplit.data.sources.torchvision_images import read_published


@dataclass(frozen=True, kw_only=True)
class Imagenette(ImageFiles):
    """Ten classes of ImageNet that are easy to tell apart: 9,469 training and 3,925 validation images.

    Source: J. Howard, https://github.com/fastai/imagenette.

    Args:
        download: fetch the files when they are not there.
        size: size of the published files: the shorter side of an image, or as in ImageNet.
    """

    published_train: ClassVar[int | None] = 9_469
    published_classes: ClassVar[int] = 10

    download: bool
    size: Literal["160px", "320px", "full"]

    @override
    def list_files(self) -> tuple[Listed, Listed]:
        return self._list_files("train")[0], self._list_files("val")[0]

    @override
    def class_names(self) -> tuple[str, ...]:
        """Names of classes as WordNet's ids; see `ImageSource.class_names`."""
        return self._list_files("train")[1]

    def _list_files(self, split: str) -> tuple[Listed, tuple[str, ...]]:
        found = read_published(
            "imagenette",
            self.root,
            self.download,
            lambda datasets: datasets.Imagenette(self.folder, split, self.size, self.download, loader=Path),
        )
        return list(found), tuple(found.wnids)


@dataclass(frozen=True, kw_only=True)
class EuroSat(ImageFiles):
    """27,000 satellite images of 64x64 pixels, ten kinds of land; a fixed fifth of each is the test split.

    Source: P. Helber et al., "EuroSAT: A Novel Dataset and Deep Learning Benchmark for Land Use and Land
    Cover Classification", 2019.

    Args:
        download: fetch the files when they are not there.
    """

    published_train: ClassVar[int | None] = 21_600
    published_side: ClassVar[int | None] = 64
    published_classes: ClassVar[int] = 10

    download: bool

    @override
    def list_files(self) -> tuple[Listed, Listed]:
        """List the image files of both splits, which are the same for every seed."""
        files, names = self._list_files()
        train: Listed = []
        test: Listed = []
        for label in range(len(names)):
            of_class = [each for each in files if each[1] == label]
            order = np.random.RandomState(label).permutation(len(of_class)).tolist()
            held_out = set(order[: len(order) // 5])
            for i, each in enumerate(of_class):
                (test if i in held_out else train).append(each)
        return train, test

    @override
    def class_names(self) -> tuple[str, ...]:
        return self._list_files()[1]

    def _list_files(self) -> tuple[Listed, tuple[str, ...]]:
        found = read_published(
            "eurosat",
            self.root,
            self.download,
            lambda datasets: datasets.EuroSAT(self.folder, download=self.download, loader=Path),
        )
        return [(Path(path), label) for path, label in found.samples], tuple(found.classes)
