"""Settings of the whole process, for every run in it."""

import torch

from fedsplit.computing.computation import set_float32
from fedsplit.computing.memory import reuse_freed_memory
from fedsplit.config.run_config import RunConfig


def prepare_process(config: RunConfig) -> None:
    """Set threads, allocator and exactness of this process; called once where a command begins to compute.

    Results depend on it in their last bits: on the number of threads, and on a GPU on cuDNN's choices.
    """
    torch.set_num_threads(config.computation.threads)
    reuse_freed_memory()
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    set_float32(config.computation.precision)
