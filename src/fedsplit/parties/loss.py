"""The mean of many batches' losses."""

from collections.abc import Sequence

import torch

from fedsplit.errors import NonFinite
from fedsplit.parties.messages import BatchLoss


def mean_loss(losses: Sequence[BatchLoss]) -> float:
    """Mean over samples; the one place where losses are waited for.

    Raises:
        NonFinite: a batch's loss is not finite.
    """
    values = torch.stack([batch.loss for batch in losses]).to("cpu", torch.float64)
    bad = (~values.isfinite()).nonzero().flatten()
    if len(bad):
        raise NonFinite("loss", losses[int(bad[0])].client)
    samples = torch.tensor([batch.samples for batch in losses], dtype=torch.float64)
    return float((values @ samples) / samples.sum())
