"""Common part of regressions of the cut gradient on `(z, onehot(y))`."""

from typing import cast

import torch
from torch import Tensor
from typing_extensions import override

from fedsplit.computing.steppable import Seed, Steppable
from fedsplit.errors import UserError
from fedsplit.estimators.estimator import GradientEstimator
from fedsplit.objectives.classification import Classification
from fedsplit.objectives.losses import Losses
from fedsplit.objectives.objective import Objective


def features(z: Tensor, y: Tensor, num_classes: int) -> Tensor:
    """Features of a regression: smashed data and one-hot label, `(b, z + num_classes)`."""
    zeros, ones = z.new_zeros(len(y), num_classes), z.new_ones(len(y), 1)
    one_hot = zeros.scatter(1, y[:, None], ones)  # `F.one_hot` has the host look at labels
    return torch.cat([z.flatten(1), one_hot], 1)


def classes_of(objective: Objective, estimator: type) -> int:
    """Number of classes, whose one-hot vectors encode labels.

    Raises:
        UserError: labels are no classes.
    """
    if not isinstance(objective, Classification):
        message = f"must be gradient_of_loss: {estimator.__name__} is for classification alone"
        raise UserError("estimator", estimator.__name__, message)
    return objective.num_classes


class Regression(GradientEstimator):
    """Estimator of `dz` straight from features; the model that `model` returns has `num_classes`."""

    trains_on_loss = False

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
        num_classes = cast(int, model.module.num_classes)
        with torch.set_grad_enabled(differentiable):
            inputs = model.for_each(lambda z, y: features(z, y, num_classes), z, y)
            return model.forward(inputs, seed=seed).view(z.shape)
