"""The mean loss of batches of several sizes."""

import pytest
import torch

from fedsplit.parties.loss import mean_loss
from fedsplit.parties.messages import BatchLoss


def test_mean_loss_weighs_each_batch_by_its_terms() -> None:
    losses = [
        BatchLoss(loss=torch.tensor([1.0]), terms=[6], clients=(0,)),
        BatchLoss(loss=torch.tensor([3.0, 5.0]), terms=[1, 2], clients=(1, 2)),
    ]
    assert mean_loss(losses) == pytest.approx((6 * 1 + 1 * 3 + 2 * 5) / 9, abs=1e-12)
