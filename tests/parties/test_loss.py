"""The mean loss of batches of several sizes."""

import pytest
import torch

from fedsplit.parties.loss import mean_loss
from fedsplit.parties.messages import BatchLoss


def test_mean_loss_weighs_each_batch_by_its_samples() -> None:
    losses = [
        BatchLoss(loss=torch.tensor([1.0]), samples=6, clients=(0,)),
        BatchLoss(loss=torch.tensor([3.0, 5.0]), samples=1, clients=(1, 2)),
    ]
    assert mean_loss(losses) == pytest.approx((6 * 1 + 1 * 3 + 1 * 5) / 8, abs=1e-12)
