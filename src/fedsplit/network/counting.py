"""Counts the work of a sample by running it."""

import torch
from torch import Tensor, nn

from fedsplit.computing.computation import outputs_at
from fedsplit.computing.model_state import ModelState
from fedsplit.computing.multiply_adds import multiply_adds
from fedsplit.estimators.estimator import GradientEstimator
from fedsplit.models.splitting.cuts import evaluating
from fedsplit.models.splitting.split import SplitModel
from fedsplit.network.timelines.timeline import Work
from fedsplit.objectives.objective import Objective


def count_work(
    halves: SplitModel,
    auxiliary: nn.Module | None,
    estimator: GradientEstimator | None,
    x: Tensor,
    y: Tensor,
    *,
    objective: Objective,
) -> Work:
    """Count the work of one sample.

    Args:
        estimator: estimator that uses the auxiliary model; None where none does.
        x: some inputs `(b, ...)`.
        y: their labels.
        objective: objective whose gradients are estimated.
    """
    at = objective.targets(y)
    with evaluating(*halves.modules):
        z = halves.client(x)
        client = multiply_adds(lambda: halves.client(x))
        server = multiply_adds(lambda: outputs_at(halves.server, halves.server, z, at))
        tail, h = halves.tail, halves.server(z)
        of_tail = 0 if tail is None else multiply_adds(lambda: tail(h))
    head = estimate = 0
    if auxiliary is not None and (estimator is None or estimator.trains_on_loss):
        with evaluating(auxiliary):
            head = multiply_adds(lambda: outputs_at(auxiliary, auxiliary, z, at))
    if auxiliary is not None and estimator is not None:
        model = ModelState(auxiliary)
        with torch.random.fork_rng():
            estimate = multiply_adds(lambda: estimator.estimate(model, objective, z, y, seed=0))
    client, server, head, estimate, of_tail = (
        each // len(x) for each in (client, server, head, estimate, of_tail)
    )
    return Work(client, server, head, estimate, tail=of_tail)
