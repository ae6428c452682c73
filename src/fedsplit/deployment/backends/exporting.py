"""Surroundings that exporters and quantizers need."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def quietly() -> Iterator[None]:
    """Suppress messages of tools about their own parts, or to those who use them by hand."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextmanager
def exporting() -> Iterator[None]:
    """Prepare the export of a module on the CPU, without its messages.

    Exporters read a flag on how a GPU rounds by its old name, which torch refuses once it was set by its new
    one (see `fedsplit.computing.computation.set_float32`), unless it has its default value.
    """
    before = torch.backends.cudnn.fp32_precision
    try:
        torch.backends.cudnn.fp32_precision = "tf32"
        with quietly():
            yield
    finally:
        torch.backends.cudnn.fp32_precision = before
