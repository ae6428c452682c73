"""Bytes that autograd keeps for backward passes."""

from collections import Counter
from collections.abc import Iterable
from typing import Self
from weakref import finalize

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks


class _SavedTensor:
    """A tensor as a graph holds it: it goes when the graph does."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


class SavedTensors:
    """Counts the bytes of what operations save for their backward passes, while it is entered.

    Tensors that share a storage count once, with all of it.

    Args:
        apart: tensors whose storages are no part of the count, as weights, which are there anyway.
    """

    def __init__(self, apart: Iterable[Tensor] = ()) -> None:
        self._apart = {_storage(tensor) for tensor in apart}
        self._holders: Counter[int] = Counter()
        self._saved: set[int] = set()
        self.live = 0
        """Bytes that graphs hold now."""
        self.peak = 0
        """The most bytes that graphs held at once."""
        self._hooks = saved_tensors_hooks(self._pack, lambda saved: saved.tensor)

    def __enter__(self) -> Self:
        self._hooks.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._hooks.__exit__(*exception)

    def peak_with(self, tensor: Tensor) -> int:
        """The peak where `tensor`, which is still there, was kept beside what was saved."""
        return self.peak + (0 if _storage(tensor) in self._saved else tensor.untyped_storage().nbytes())

    def _pack(self, tensor: Tensor) -> _SavedTensor:
        saved, storage, size = _SavedTensor(tensor), _storage(tensor), tensor.untyped_storage().nbytes()
        if storage not in self._apart:
            if not self._holders[storage]:
                self.live += size
                self.peak = max(self.peak, self.live)
            self._holders[storage] += 1
            self._saved.add(storage)
            finalize(saved, self._release, storage, size).atexit = False
        return saved

    def _release(self, storage: int, size: int) -> None:
        self._holders[storage] -= 1
        if not self._holders[storage]:
            del self._holders[storage]
            self.live -= size


def _storage(tensor: Tensor) -> int:
    """Identity of a storage for as long as it exists."""
    identity: int = tensor.untyped_storage()._cdata
    return identity
