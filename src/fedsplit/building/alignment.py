"""What fits clients' auxiliary models."""

from typing import cast

from torch import nn

from fedsplit.building.models import Models
from fedsplit.computing.captured_steps import Recorder
from fedsplit.computing.memory import Memory
from fedsplit.computing.model_state import ModelState
from fedsplit.config.run_config import RunConfig
from fedsplit.estimators.alignment import Alignment
from fedsplit.estimators.estimator import GradientEstimator
from fedsplit.optim.optimizers import Optimizer


def build_alignment(
    config: RunConfig,
    *,
    models: Models,
    estimator: GradientEstimator,
    optimizer: Optimizer,
    memory: Memory,
    recorder: Recorder | None,
) -> Alignment:
    """Fits clients' auxiliary models, where the algorithm has that done."""
    settings = config.alignment
    return Alignment(
        new_auxiliary=lambda: ModelState(cast(nn.Module, models.auxiliary), optimizer, recorder=recorder),
        estimator=estimator,
        epochs=settings.align_epochs,
        batch_size=settings.align_batch_size,
        max_dataset_size=settings.max_dataset_size,
        memory=memory,
        tolerance=settings.align_tolerance or 0.0,
        seed=config.training.seed,
    )
