"""What data are told from others by: how many images there are, and digests of their pixels and labels."""

import os
from collections.abc import Sequence
from hashlib import sha256
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from fedsplit.data.dataset import Dataset, Images
from fedsplit.data.file_pixels import FilePixels

Fingerprint: TypeAlias = dict[str, Any]
"""Plain values, nested: the same for the same data, wherever they are kept."""


def fingerprint(dataset: Dataset, shards: Sequence[np.ndarray]) -> Fingerprint:
    """Of the data of a run, as they are before clients see them.

    Args:
        dataset: in memory of the host, where reading it waits for nothing.
        shards: indices of each client's training images.
    """
    division = sha256()
    for shard in shards:
        division.update(f"{len(shard)}\n".encode())
        division.update(np.ascontiguousarray(shard, dtype=np.int64).data)
    return {
        "classes": [dataset.num_classes, *dataset.class_names],
        "train": of_images(dataset.train),
        "test": of_images(dataset.test),
        "division": division.hexdigest(),
    }


def of_images(images: Images) -> Fingerprint:
    """Of one split.

    Of images that are decoded as they are asked for: of the sizes of all files, and of the pixels of the
    fixed sample that statistics are taken over.
    """
    pixels = sha256()
    if isinstance(images.pixels, FilePixels):
        sizes = [os.stat(file).st_size for file in images.pixels.files]
        pixels.update(np.array(sizes, dtype=np.int64).data)
    for part in images.surveyed() if len(images) else ():
        pixels.update(_bytes(part))
    return {
        "images": len(images),
        "shape": list(images.pixels.shape[1:]),
        "labels": sha256(_bytes(images.labels)).hexdigest(),
        "owners": None if images.owners is None else sha256(_bytes(images.owners)).hexdigest(),
        "pixels": pixels.hexdigest(),
    }


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy().data
