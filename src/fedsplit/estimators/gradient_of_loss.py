"""The gradient of an auxiliary model's loss."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedsplit.estimators.estimator import GradientEstimator
from fedsplit.models.auxiliary import ExplicitInputGradient
from fedsplit.models.steppable import Steppable


class GradientOfLoss(GradientEstimator):
    """`d/dz` of the cross-entropy of the auxiliary model's logits.

    In closed form where the model has one (a linear head), else by differentiating twice.

    Source: S. Nair et al., "FSL-SAGE: Accelerating Federated Split Learning via Smashed Activation
    Gradient Estimation", 2025.
    """

    trains_on_loss = True

    def model(self, auxiliary: nn.Module, *, smashed_shape: tuple[int, ...], num_classes: int) -> nn.Module:
        """The auxiliary model itself."""
        return auxiliary

    def estimate(
        self, model: Steppable, z: Tensor, y: Tensor, *, seed: Any, differentiable: bool = False
    ) -> Tensor:
        """See `GradientEstimator.estimate`."""
        if isinstance(model.module, ExplicitInputGradient):
            with torch.set_grad_enabled(differentiable):
                return model.each(model.module.input_gradient, model.parameters, z, y)
        z = z.detach().requires_grad_()
        logits = model.forward(z, seed=seed, buffers=model.frozen_buffers())
        loss = F.cross_entropy(logits.flatten(0, -2), y.flatten(), reduction="sum")
        (dz,) = torch.autograd.grad(loss, z, create_graph=differentiable)
        return dz
