import numpy as np
import pytest
import torch
from scipy.stats import binom

from fedsplit.tasks.compare.comparison import Drop


def samples(both: int, lost: int, won: int, neither: int) -> tuple[torch.Tensor, torch.Tensor]:
    reference = [True] * (both + lost) + [False] * (won + neither)
    other = [True] * both + [False] * lost + [True] * won + [False] * neither
    return torch.tensor(reference), torch.tensor(other)


@pytest.mark.parametrize(
    "counts", [(900, 40, 10, 50), (0, 3, 3, 4), (50, 0, 7, 3), (10, 1, 0, 0), (4, 0, 0, 9)]
)
def test_accuracy_drop_has_the_error_and_p_value_of_paired_differences(
    counts: tuple[int, int, int, int],
) -> None:
    reference, other = samples(*counts)
    found = Drop.of(reference, other)
    differences = reference.numpy().astype(float) - other.numpy()
    assert found.drop == pytest.approx(differences.mean())
    assert found.standard_error == pytest.approx(differences.std(ddof=1) / np.sqrt(len(differences)))
    _, lost, won, _ = counts
    # both tails of a fair coin: twice the smaller, at most one
    tail = binom.cdf(min(lost, won), lost + won, 0.5)
    assert found.p_value == pytest.approx(min(1.0, 2 * tail))


def test_mcnemar_p_value_is_the_one_worked_out_by_hand() -> None:
    """Lost 6, won 0: two of the 2^6 ways that six coins fall are as one-sided."""
    assert Drop.of(*samples(20, 6, 0, 4)).p_value == pytest.approx(2 / 64)
