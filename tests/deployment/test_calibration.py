import numpy as np
import pytest
import torch
from torch import Tensor

from fedsplit.data.images import Images, Normalisation
from fedsplit.data.shards import ClientShards
from fedsplit.deployment.calibration import calibration_batches
from fedsplit.errors import UserError


def drawn(batches: int, batch_size: int, seed: int = 0) -> list[Tensor]:
    """From images that hold their own number, of which clients have the odd ones below 40."""
    pixels = torch.arange(50, dtype=torch.uint8)[:, None, None, None].expand(50, 2, 2, 1).clone()
    exact = Normalisation(torch.ones(1), torch.zeros(1))
    images = Images(pixels, torch.zeros(50, dtype=torch.int64), normalise=exact)
    shards = ClientShards([np.arange(1, 20, 2), np.arange(21, 40, 2)])
    return calibration_batches(images, shards, batches=batches, batch_size=batch_size, seed=seed)


def test_calibration_samples_are_the_clients_own_each_once_and_follow_from_the_seed() -> None:
    batches = drawn(4, 5)
    assert [tuple(each.shape) for each in batches] == [(5, 1, 2, 2)] * 4
    numbers = torch.cat(batches)[:, 0, 0, 0].int().tolist()
    assert sorted(numbers) == list(range(1, 40, 2))
    assert all(map(torch.equal, batches, drawn(4, 5)))
    assert not all(map(torch.equal, batches, drawn(4, 5, seed=1)))


def test_calibration_with_more_samples_than_clients_have_is_refused() -> None:
    with pytest.raises(UserError, match="must be at most 2 with batches of 8: clients have 20"):
        drawn(3, 8)
