"""Counts the multiply-adds of a computation: those of matrix products and convolutions."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def multiply_adds(compute: Callable[[], object]) -> int:
    """Of what runs in `compute`."""
    with attention_in_products(), FlopCounterMode(display=False) as counter:
        compute()
    return int(counter.get_total_flops() // 2)


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
