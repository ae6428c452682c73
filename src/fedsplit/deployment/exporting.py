"""What torch's exporters need around them."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def exporting() -> Iterator[None]:
    """While a module on the CPU is exported: without warnings of the exporters' own parts.

    They read a flag on how a GPU rounds by its old name, which torch refuses once it was set by its new
    one (see `fedsplit.models.computation.set_float32`), unless it has its default value.
    """
    before = torch.backends.cudnn.fp32_precision
    try:
        torch.backends.cudnn.fp32_precision = "tf32"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.backends.cudnn.fp32_precision = before
