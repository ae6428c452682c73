"""The handwritten digits that come with scikit-learn: nothing to download."""

import gzip
from dataclasses import dataclass
from functools import cache
from importlib.metadata import distribution

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from fedsplit.data.image_source import ImageSource
from fedsplit.data.images import Images


@dataclass(frozen=True, kw_only=True)
class Digits(ImageSource):
    """1,797 grey images of 8x8 pixels, 10 classes; a fixed fifth of them is the test split.

    Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998.
    """

    @override
    def read(self) -> tuple[Images, Images]:
        """1,438 training and 359 test images, pixels 0 to 16, the same for every seed."""
        pixels, labels = _load_bundle()
        order = torch.from_numpy(np.random.RandomState(0).permutation(len(labels)))
        test, train = order[: len(order) // 5], order[len(order) // 5 :]
        return Images(pixels[train], labels[train]), Images(pixels[test], labels[test])


@cache  # reading the file takes as long as a round
def _load_bundle() -> tuple[Tensor, Tensor]:
    """Pixels `(1797, 8, 8, 1)`, 0 to 16, and labels of all images."""
    # scikit-learn's own reader costs a second of imports
    file = distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz")
    with gzip.open(str(file), "rt", encoding="ascii") as lines:
        rows = torch.from_numpy(np.loadtxt(lines, delimiter=",", dtype=np.uint8))
    return rows[:, :64].reshape(-1, 8, 8, 1), rows[:, 64].to(torch.int64)
