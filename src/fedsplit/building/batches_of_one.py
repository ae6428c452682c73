"""Refuses runs whose batches may hold one sample where that cannot be trained on."""

import torch

from fedsplit.building.parts import Ingredients
from fedsplit.computing.model_state import ModelState
from fedsplit.errors import UserError


def refuse_batches_of_one(parts: Ingredients) -> None:
    """Raise where batch normalisation would train on one sample of one pixel: better now than in a round.

    Raises:
        UserError: names the key that makes such batches.
    """
    alignment, models = parts.config.alignment, parts.models
    keys = {
        "batch_size": parts.config.training.batch_size,
        "auxiliary.align_batch_size": alignment.align_batch_size,
        "auxiliary.max_dataset_size": alignment.max_dataset_size,
    }
    risky = {key: value for key, value in keys.items() if value == 1}
    if min(parts.sample_counts) == 1:
        risky["num_clients"] = parts.config.population.num_clients
    if not risky:
        return
    try:
        with torch.no_grad():
            z = ModelState(models.halves.client).forward(parts.data.batch(1)[0], seed=0)
            h = ModelState(models.halves.server).forward(z, seed=0)
            if models.halves.tail is not None:
                ModelState(models.halves.tail).forward(h, seed=0)
            if models.auxiliary is not None and parts.estimator.trains_on_loss:
                ModelState(models.auxiliary).forward(z, seed=0)
    except ValueError as error:
        message = "makes batches of one sample, and this model's batch normalisation needs two"
        key, value = next(iter(risky.items()))
        raise UserError(key, value, message) from error
