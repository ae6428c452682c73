"""Builds the alignment of clients' auxiliary models to true cut gradients."""

from functools import partial
from typing import cast

from torch import nn

from fedsplit.building.parts import ClientParts
from fedsplit.computing.model_state import ModelState
from fedsplit.errors import UserError
from fedsplit.estimators.alignment import Alignment
from fedsplit.parties.spread.alignment import SpreadAlignment
from fedsplit.parties.spread.engine import SpreadEngine


def build_alignment(parts: ClientParts) -> Alignment:
    """The alignment of auxiliary models, which workers compute where there are any.

    Algorithms that align none leave it unused.
    """
    settings, auxiliary = parts.config.alignment, parts.models.auxiliary
    kept, cohort = settings.keep_clients, parts.config.population.cohort
    if parts.estimates and kept is not None and kept < cohort:
        raise UserError("auxiliary.keep_clients", kept, f"must be at least {cohort}, the clients of a round")
    optimizer, recorder = parts.auxiliary_optimizer, parts.recorders.of(auxiliary)
    engine = parts.engine
    made = partial(SpreadAlignment, engine) if isinstance(engine, SpreadEngine) else Alignment
    return made(
        new_auxiliary=lambda: ModelState(cast(nn.Module, auxiliary), optimizer, recorder=recorder),
        estimator=parts.estimator,
        objective=parts.data.dataset.objective,
        epochs=settings.align_epochs,
        batch_size=settings.align_batch_size,
        max_dataset_size=settings.max_dataset_size,
        memory=parts.memory,
        padding=parts.models.halves.padding,
        keep_clients=kept,
        tolerance=settings.align_tolerance or 0.0,
        seed=parts.config.training.seed,
    )
