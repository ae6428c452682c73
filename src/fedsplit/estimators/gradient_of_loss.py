"""The gradient of an auxiliary model's loss."""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn
from typing_extensions import override

from fedsplit.computing.hooks import describe_hook
from fedsplit.computing.model_state import ModelState
from fedsplit.computing.steppable import Seed, Steppable
from fedsplit.estimators.estimator import Chunk, GradientEstimator
from fedsplit.estimators.second_derivative.operation import UnsupportedError
from fedsplit.estimators.second_derivative.sweeps import Sweeps
from fedsplit.models.auxiliary import ExplicitErrorGradient, ExplicitInputGradient
from fedsplit.objectives.classification import Classification
from fedsplit.objectives.losses import Losses
from fedsplit.objectives.objective import Objective
from fedsplit.randomness import seed_modules


class GradientOfLoss(GradientEstimator):
    """`d/dz` of the loss of the auxiliary model's outputs.

    In classification it is fitted in closed form where the model has one (a linear head), and by explicit
    sweeps where all its operations have rules; else by differentiating twice.

    Source: S. Nair et al., "FSL-SAGE: Accelerating Federated Split Learning via Smashed Activation
    Gradient Estimation", 2025.
    """

    trains_on_loss = True

    def __init__(self) -> None:
        # Clients share a module, so it is traced once; kept here, the trace goes when the run goes.
        self._sweeps = lru_cache(maxsize=8)(_sweeps)

    @override
    def model(
        self, auxiliary: nn.Module, *, smashed_shape: tuple[int, ...], objective: Objective
    ) -> nn.Module:
        """Model of the estimator: the auxiliary model itself."""
        return auxiliary

    @override
    def estimate(
        self,
        model: Steppable,
        losses: Losses,
        z: Tensor,
        y: Tensor,
        *,
        seed: Seed,
        differentiable: bool = False,
    ) -> Tensor:
        if isinstance(model.module, ExplicitInputGradient):
            with torch.set_grad_enabled(differentiable):
                return model.for_each(model.module.input_gradient, model.parameters, z, y)
        z = z.detach().requires_grad_()
        outputs = model.forward(z, seed=seed, buffers=model.frozen_buffers(), at=losses.targets(y))
        (dz,) = torch.autograd.grad(losses.total(outputs, y), z, create_graph=differentiable)
        return dz

    @override
    def error_gradients(
        self, model: ModelState, objective: Objective, chunk: Chunk, *, seed: int | None
    ) -> tuple[Tensor, Sequence[Tensor]]:
        module = model.module
        if not isinstance(objective, Classification):
            return super().error_gradients(model, objective, chunk, seed=seed)
        if isinstance(module, ExplicitErrorGradient):
            error_and_gradients = module.error_gradients(
                model.parameters, chunk.z, chunk.y, chunk.dz, chunk.dz_square
            )
        elif (sweeps := self._sweeps(module)) is not None:
            if seed is not None:
                seed_modules(seed, model.device)
            try:
                error_and_gradients = sweeps.error_gradients(model.parameters, chunk)
            except UnsupportedError:
                return super().error_gradients(model, objective, chunk, seed=seed)
        else:
            return super().error_gradients(model, objective, chunk, seed=seed)
        error, gradients = error_and_gradients
        return error, [gradients[name] for name in model.trainable]


def _sweeps(module: nn.Module) -> Sweeps | None:
    """Explicit sweeps of an auxiliary model; None where an operation has no rule, or hooks must run."""
    if describe_hook(module):
        return None
    try:
        return Sweeps(module)
    except UnsupportedError:
        return None
