"""Where tensors are: those that are kept for each client, and what is done with freed memory."""

import ctypes
import os
import tempfile
from typing import Any

import torch
from torch import Tensor

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
_LARGEST_FROM_HEAP = 32 * 1024 * 1024  # the most that glibc accepts


def reuse_freed_memory() -> None:
    """Let the C library keep freed memory for the next tensor, and not give it back to the system at once.

    Pages that come fresh from the system are filled by it one by one when they are first written, which
    costs up to a tenth of a round. Peak memory of a run stays as it is: what earlier runs of this process
    freed goes back to the system now. Only glibc is told; elsewhere nothing is done.
    """
    if os.name != "posix":
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt") and hasattr(library, "malloc_trim"):
        library.malloc_trim(0)
        library.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
        library.mallopt(_MMAP_THRESHOLD, _LARGEST_FROM_HEAP)


class Memory:
    """Sets tensors aside in memory up to a budget, and beyond it in files that are mapped to memory.

    The files have no name, so that their space is given back with the tensors, or with the process. They
    are in the folder for temporary files (`TMPDIR`).

    Raises (where tensors are set aside):
        torch.OutOfMemoryError: there is no room on the disk.

    Args:
        budget: bytes; None has no limit. Tensors on a GPU are not counted and stay there.
    """

    def __init__(self, budget: float | None = None) -> None:
        self.budget = budget
        self.used_bytes = 0
        """Bytes set aside in memory."""
        self.mapped_bytes = 0
        """Bytes set aside in files."""

    def empty(self, like: Tensor, *shape: int) -> Tensor:
        """A tensor of this shape (that of `like`, if none is given), with the type and device of `like`."""
        size = torch.Size(shape or like.shape)
        needed = size.numel() * like.element_size()
        if (
            self.budget is None
            or like.device.type != "cpu"
            or self.used_bytes + needed <= self.budget
            or not needed
        ):
            self.used_bytes += needed
            return torch.empty(size, dtype=like.dtype, device=like.device)
        self.mapped_bytes += needed
        return _map_to_file(size, like.dtype, needed)

    def keep(self, tree: Any, kept: Any = None) -> Any:
        """A copy of a tree of tensors (dictionaries by text) and plain values.

        Args:
            kept: result of an earlier call for a tree of the same form, to be written over.
        """
        if isinstance(tree, dict):
            kept = kept if isinstance(kept, dict) and kept.keys() == tree.keys() else dict.fromkeys(tree)
            return {key: self.keep(value, kept[key]) for key, value in tree.items()}
        if not isinstance(tree, Tensor):
            return tree
        fits = isinstance(kept, Tensor) and kept.shape == tree.shape and kept.dtype == tree.dtype
        return (kept if fits else self.empty(tree)).copy_(tree.detach())

    def release(self, tree: Any) -> None:
        """Take tensors that this gave, and that nobody needs any more, out of the account."""
        if isinstance(tree, dict):
            for each in tree.values():
                self.release(each)
        elif isinstance(tree, Tensor):
            size = tree.numel() * tree.element_size()
            if tree.device.type == "cpu" and tree.is_shared():  # type: ignore[no-untyped-call]
                self.mapped_bytes -= size
            else:
                self.used_bytes -= size


def _map_to_file(size: torch.Size, dtype: torch.dtype, needed: int) -> Tensor:
    with tempfile.NamedTemporaryFile(prefix="fedsplit-") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, needed)  # a full disk is better told now than by a signal
        except OSError as error:
            raise torch.OutOfMemoryError(f"{file.name}: {error.strerror}") from error
        # The name goes when this block ends; the space lives as long as the mapping.
        return torch.from_file(file.name, shared=True, size=size.numel(), dtype=dtype).view(size)
