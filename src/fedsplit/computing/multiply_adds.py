"""Counts the multiply-adds of a computation: those of matrix products and convolutions."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry
from typing_extensions import override


def multiply_adds(compute: Callable[[], object]) -> int:
    """Number of multiply-adds that run in `compute`, gradients included."""
    counter = MultiplyAdds()
    with attention_in_products(), counter:
        compute()
    return counter.total


class MultiplyAdds(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counter of multiply-adds by torch's formulas, while it is entered.

    Torch's own counter fails where a gradient is taken at a module's inputs, and imports torch's compiler.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._flops = 0

    @property
    def total(self) -> int:
        """Multiply-adds that have run so far."""
        return self._flops // 2

    @classmethod
    @override
    def _should_skip_dynamo(cls) -> bool:
        """False: to keep the compiler from what is below, torch would import it, which takes a second."""
        return False

    @override
    def __torch_dispatch__(
        self, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if func.overloadpacket in flop_registry:
            self._flops += int(flop_registry[func.overloadpacket](*args, **(kwargs or {}), out_val=output))
        return output


@contextmanager
def attention_in_products() -> Iterator[None]:
    """Attention in matrix products, which are counted, and not in one operation of its own."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
