"""Where the tensors are that are kept for each client."""

import os
import tempfile
from typing import Any

import torch
from torch import Tensor


class Memory:
    """Sets tensors aside in memory up to a budget, and beyond it in files that are mapped to memory.

    The files have no name, so that their space is given back with the tensors, or with the process. They
    are in the folder for temporary files (`TMPDIR`).

    Args:
        budget: bytes; None has no limit. Tensors on a GPU are not counted and stay there.
    """

    def __init__(self, budget: float | None = None) -> None:
        self.budget = budget
        self.used = 0
        """Bytes set aside in memory."""
        self.mapped = 0
        """Bytes set aside in files."""

    def empty(self, like: Tensor, *shape: int) -> Tensor:
        """A tensor of this shape (that of `like`, if none is given), with the type and device of `like`."""
        size = torch.Size(shape or like.shape)
        needed = size.numel() * like.element_size()
        if (
            self.budget is None
            or like.device.type != "cpu"
            or self.used + needed <= self.budget
            or not needed
        ):
            self.used += needed
            return torch.empty(size, dtype=like.dtype, device=like.device)
        self.mapped += needed
        return _mapped(size, like.dtype, needed)

    def keep(self, tree: Any, kept: Any = None) -> Any:
        """A copy of a tree of tensors (dictionaries by text) and plain values.

        Args:
            tree: what to copy.
            kept: what this gave for an earlier tree of the same form, to be written over.
        """
        if isinstance(tree, dict):
            kept = kept if isinstance(kept, dict) and kept.keys() == tree.keys() else dict.fromkeys(tree)
            return {key: self.keep(value, kept[key]) for key, value in tree.items()}
        if not isinstance(tree, Tensor):
            return tree
        fits = isinstance(kept, Tensor) and kept.shape == tree.shape and kept.dtype == tree.dtype
        return (kept if fits else self.empty(tree)).copy_(tree.detach())


def _mapped(size: torch.Size, dtype: torch.dtype, needed: int) -> Tensor:
    with tempfile.NamedTemporaryFile(prefix="fedsplit-", delete=False) as file:
        path = file.name
    try:
        os.truncate(path, needed)
        return torch.from_file(path, shared=True, size=size.numel(), dtype=dtype).view(size)
    finally:
        os.unlink(path)  # mapped already: on POSIX systems the space lives as long as the mapping
