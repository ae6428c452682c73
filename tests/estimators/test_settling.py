from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from fedsplit.computing.model_state import ModelState
from fedsplit.estimators.estimator import BETWEEN_LOOKS, WINDOW, Chunk, FitStep, GradientEstimator, Settling
from fedsplit.estimators.gradient_of_loss import GradientOfLoss
from fedsplit.models.auxiliary import LinearAuxiliary
from fedsplit.objectives.classification import Classification
from fedsplit.objectives.objective import Objective
from fedsplit.optim.optimizers import Adam

ADAM = Adam(lr=0.01, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, amsgrad=False)


def _epochs(errors: Sequence[float], tolerance: float) -> int:
    settling = Settling(tolerance)
    for epoch, error in enumerate(errors, start=1):
        if settling.is_reached([torch.tensor(error / 4), torch.tensor(3 * error / 4)]):
            return epoch
    return len(errors)


@pytest.mark.parametrize(
    ("per_window", "tolerance", "epochs"),
    [
        (0.98, 0.03, WINDOW + 1),
        (0.98, 0.01, 100),
        (1.0, 0.001, WINDOW + 1),
        (1.5, 0.001, WINDOW + 1),
        (1.5, 0.0, 100),
    ],
)
def test_fit_ends_once_its_error_falls_by_no_more_than_the_tolerance_in_a_window(
    per_window: float, tolerance: float, epochs: int
) -> None:
    assert _epochs([per_window ** (epoch / WINDOW) for epoch in range(100)], tolerance) == epochs


def test_fit_ends_after_the_first_flat_window_checked_every_tenth_epoch() -> None:
    falling = [0.5 ** (epoch // BETWEEN_LOOKS) for epoch in range(35)]
    assert _epochs([*falling, *[falling[-1]] * 100], 0.1) == 30 + WINDOW + 1
    assert _epochs([1.0 if epoch % BETWEEN_LOOKS == 0 else 0.0 for epoch in range(50)], 0.1) == WINDOW + 1


def test_fit_with_an_error_flat_for_less_than_a_window_does_not_end() -> None:
    errors = [1.0] * (WINDOW // 2 + 1) + [0.5] * (WINDOW // 2) + [0.25] * WINDOW
    assert _epochs(errors, 0.1) == len(errors)


@pytest.mark.parametrize("error", [0.0, 1.0, float("inf")])
def test_fit_never_ends_before_a_whole_window(error: float) -> None:
    assert _epochs([error] * 50, 0.1) == WINDOW + 1


class _Counted(GradientOfLoss):
    def __init__(self) -> None:
        self.seeds: list[int] = []

    def error_gradients(
        self, model: ModelState, objective: Objective, chunk: Chunk, *, seed: int
    ) -> tuple[Tensor, Sequence[Tensor]]:
        self.seeds.append(seed)
        return super().error_gradients(model, objective, chunk, seed=seed)


def _fitted(estimator: GradientEstimator, steps: Sequence[FitStep], tolerance: float) -> Tensor:
    torch.manual_seed(0)
    model = ModelState(LinearAuxiliary(smashed_shape=(6,), num_classes=3), ADAM)
    draw = torch.Generator().manual_seed(1)
    chunks = [
        Chunk(
            torch.randn(9, 6, generator=draw),
            torch.randint(3, (9,), generator=draw),
            torch.randn(9, 6, generator=draw),
        )
        for _ in range(2)
    ]
    estimator.fit(model, Classification(3), chunks, steps, tolerance=tolerance)
    return model.weights()["fc.weight"]


def test_fit_ended_early_has_the_weights_of_a_fit_of_as_many_epochs() -> None:
    steps = [FitStep(number % 2, seed=number) for number in range(2 * 300)]
    counted = _Counted()
    early = _fitted(counted, steps, 0.01)
    taken = len(counted.seeds)
    assert 2 * (WINDOW + 1) <= taken < len(steps)
    assert taken % (2 * BETWEEN_LOOKS) == 2  # after epoch 21, 31, ...
    assert counted.seeds == list(range(taken))
    assert torch.equal(early, _fitted(GradientOfLoss(), steps[:taken], 0.0))
    assert not torch.equal(early, _fitted(GradientOfLoss(), steps, 0.0))
