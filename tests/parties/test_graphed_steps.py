"""What a captured step may not do, and an emulation on the CPU does not see: take tensors from the host.

On the meta device, where nothing is computed, a tensor on the CPU shows itself.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from fedsplit.computing.model_state import ModelState
from fedsplit.computing.stacked_state import StackedState
from fedsplit.estimators.estimator import Chunk, GradientEstimator
from fedsplit.estimators.gradient_of_loss import GradientOfLoss
from fedsplit.estimators.mlp_regression import MlpRegression
from fedsplit.models.auxiliary import LinearAuxiliary, MlpAuxiliary
from fedsplit.objectives.classification import Classification
from fedsplit.optim.optimizers import Adam, AdamW, RowOptimizer, Sgd
from fedsplit.parties.local_rule import LocalRule
from fedsplit.parties.local_step import local_step
from tests.training.test_graphed_runs import Curved, NormedAuxiliary

SHAPE, CLASSES = (4, 4, 4), 10
RATES = {"lr": 1e-3, "weight_decay": 0.01}
MOMENTS = {**RATES, "betas": (0.9, 0.999), "eps": 1e-8}
OPTIMIZERS = (
    Adam(**MOMENTS, amsgrad=True),
    AdamW(**MOMENTS, amsgrad=False),
    Sgd(**RATES, momentum=0.9, dampening=0.1, nesterov=False),
)
HEADS = (LinearAuxiliary, partial(MlpAuxiliary, hidden=5), NormedAuxiliary, Curved)
meta = partial(torch.zeros, device="meta")


class FromTheHost(TorchDispatchMode):
    """Refuses tensors on the CPU."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for each in tree_flatten((args, kwargs, result))[0]:
            assert not isinstance(each, Tensor) or each.device.type == "meta", (
                f"{func} of a tensor of the host"
            )
        return result


def test_host_tensor_in_a_step_is_detected_by_the_check() -> None:
    with FromTheHost(), pytest.raises(AssertionError, match="of a tensor of the host"):
        meta(3) + torch.tensor(1.0)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda each: type(each).__name__)
@pytest.mark.parametrize("make", HEADS)
@pytest.mark.parametrize("train_head_too", [True, False])
def test_local_step_of_a_stack_takes_no_tensor_from_the_host(
    make: Callable[..., nn.Module], train_head_too: bool, optimizer: RowOptimizer
) -> None:
    layers = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)
    body = StackedState(nn.Sequential(*layers).to("meta"), 3, optimizer)
    head = StackedState(make(smashed_shape=SHAPE, num_classes=CLASSES).to("meta"), 3, optimizer)
    rows = slice(0, 2)
    x, y = meta(2, 5, 3, 8, 8), meta(2, 5, dtype=torch.int64)
    with FromTheHost():
        z, *losses = local_step(
            body.rows(rows),
            head.rows(rows),
            Classification(CLASSES).of_many,
            x,
            y,
            rule=LocalRule(),
            estimator=None if train_head_too else GradientOfLoss(),
            learning_rate_factor=meta((), dtype=torch.float64),
        )
    assert (z.shape, [loss.shape for loss in losses]) == ((2, 5, *SHAPE), [(2,)] if train_head_too else [])


@pytest.mark.parametrize(
    ("estimator", "make"),
    [*((GradientOfLoss(), make) for make in HEADS), (MlpRegression(hidden=4), LinearAuxiliary)],
)
def test_alignment_step_takes_no_tensor_from_the_host(
    estimator: GradientEstimator, make: Callable[..., nn.Module]
) -> None:
    objective = Classification(CLASSES)
    auxiliary = make(smashed_shape=SHAPE, num_classes=CLASSES)
    model = ModelState(estimator.model(auxiliary, smashed_shape=SHAPE, objective=objective).to("meta"))
    chunk = Chunk(meta(5, *SHAPE), meta(5, dtype=torch.int64), meta(5, *SHAPE))
    with FromTheHost():
        error, gradients = estimator.error_gradients(model, objective, chunk, seed=None)
    assert error.shape == ()
    assert [g.shape for g in gradients] == [p.shape for p in model.parameters.values()]
