"""The mean of many batches' losses."""

from collections.abc import Sequence

import torch

from fedsplit.errors import NonFinite
from fedsplit.parties.messages import BatchLoss


def mean_loss(losses: Sequence[BatchLoss]) -> float:
    """Mean over terms; the one place where losses are waited for.

    Raises:
        NonFinite: a batch's loss is not finite.
    """
    values = torch.cat([batch.loss for batch in losses]).to("cpu", torch.float64)
    if not values.isfinite().all():
        bad = (~values.isfinite()).nonzero().flatten()
        clients = [client for batch in losses for client in batch.clients]
        raise NonFinite("loss", clients[int(bad[0])])
    terms = torch.tensor([count for batch in losses for count in batch.terms], dtype=torch.float64)
    return float((values @ terms) / terms.sum())
