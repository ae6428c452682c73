"""CUDA graphs without a GPU: the operations of a capture are done again, on the same tensors."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from fedsplit.computing.captured_steps import Graph, Outputs

_HOST_READS = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)


class Recording(TorchDispatchMode):
    """Records every operation with the tensors themselves, and undoes what it did to tensors from outside.

    A capture on a GPU does nothing, so what was there before must be there after it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []
        self.inside: set[int] = set()
        """Memory that was allocated during the recording."""
        self.before: dict[int, tuple[Tensor, Tensor]] = {}
        """Memory from outside: all of it, and what it held."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        assert func not in _HOST_READS, f"{func} makes the host wait: a capture refuses it"
        given = [each for each in tree_flatten((args, kwargs))[0] if isinstance(each, Tensor)]
        for each in given:  # not only what a schema says is written to: batch normalisation's does not say it
            self._keep(each)
        known = {_memory(each) for each in given}
        result = func(*args, **kwargs)
        for each in tree_flatten(result)[0]:
            if isinstance(each, Tensor) and _memory(each) not in known:
                self.inside.add(_memory(each))
        self.operations.append((func, args, kwargs, result))
        return result

    def _keep(self, tensor: Tensor) -> None:
        if _memory(tensor) not in self.inside and _memory(tensor) not in self.before:
            storage = tensor.untyped_storage()
            whole = torch.empty(0, dtype=torch.uint8).set_(storage, 0, (storage.nbytes(),), (1,))
            self.before[_memory(tensor)] = whole, whole.clone()

    def undo(self) -> None:
        for whole, held in self.before.values():
            whole.copy_(held)


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


class Replayed:
    """What was recorded, to be done again on the memory that it was recorded on."""

    def __init__(self, recording: Recording, owner: "EmulatedRecorder") -> None:
        self._recording, self._owner = recording, owner

    @torch.no_grad()
    def replay(self) -> None:
        self._owner.replays += 1
        for func, args, kwargs, result in self._recording.operations:
            again = func(*args, **kwargs)
            for old, new in zip(tree_flatten(result)[0], tree_flatten(again)[0], strict=True):
                if isinstance(old, Tensor) and _memory(old) != _memory(new):
                    old.detach().copy_(new)


class EmulatedRecorder:
    """See `Recorder`; counts what it does."""

    def __init__(self) -> None:
        self.warmed = self.captures = self.replays = 0

    def warm_up(self, work: Callable[[], Outputs]) -> Outputs:
        self.warmed += 1
        return work()

    def capture(self, work: Callable[[], Outputs]) -> tuple[Outputs, Graph]:
        self.captures += 1
        recording = Recording()
        with recording:
            outputs = work()
        recording.undo()
        for each in outputs:
            each.fill_(0)  # no replay, no result
        return outputs, Replayed(recording, self)
