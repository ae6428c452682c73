"""Fingerprints, which tell the data of a run from others."""

from hashlib import sha256
from typing import Any, TypeAlias

import torch
from torch import Tensor

Fingerprint: TypeAlias = dict[str, Any]
"""Plain values, nested: the same for the same data, wherever they are kept."""


def bytes_of(tensor: Tensor) -> memoryview:
    """Values of a tensor as they are in memory, without its shape."""
    return tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy().data


def digest(tensor: Tensor) -> str:
    """SHA-256 of the values of a tensor, in hexadecimal digits."""
    return sha256(bytes_of(tensor)).hexdigest()
