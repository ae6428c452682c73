"""What a run sets for its whole process, put back once it has ended."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def process_as_before() -> Iterator[None]:
    """Leave the process as it was: torch's threads, rounding, flags and generators, and the level of the log.

    The C library goes on to keep freed memory for the next tensors (see `fedsplit.computing.memory`).
    """
    import torch  # noqa: PLC0415  (heavy: only once a run begins)

    cudnn, products, log = torch.backends.cudnn, torch.backends.cuda.matmul, logging.getLogger("fedsplit")
    threads, level = torch.get_num_threads(), log.level
    flags = (cudnn.deterministic, cudnn.benchmark, cudnn.fp32_precision, products.fp32_precision)
    initialized: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = range(torch.cuda.device_count() if initialized else 0)
    with torch.random.fork_rng(devices):
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            log.setLevel(level)
            (cudnn.deterministic, cudnn.benchmark, cudnn.fp32_precision, products.fp32_precision) = flags
