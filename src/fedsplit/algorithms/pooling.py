"""Uploads of many clients as one batch, which a server steps on without regard to whose they are."""

from collections.abc import Sequence

import torch

from fedsplit.errors import NonFinite
from fedsplit.parties.loss import mean_loss
from fedsplit.parties.messages import BatchLoss, Upload


def pooled(uploads: Sequence[Upload]) -> Upload:
    """All samples of some uploads, one upload's after the other's, under the client and step of the first."""
    first = uploads[0]
    z, y = torch.cat([each.z for each in uploads]), torch.cat([each.y for each in uploads])
    return Upload(first.client, first.step, z, y)


def shuffled(pool: Upload, batches: int, draw: torch.Generator) -> list[Upload]:
    """The samples of a pool in a drawn order, in `batches` parts whose sizes differ by one at most."""
    parts = torch.randperm(len(pool.y), generator=draw).tensor_split(batches)
    places = [part.to(pool.y.device) for part in parts]
    return [Upload(pool.client, step, pool.z[each], pool.y[each]) for step, each in enumerate(places)]


def pooled_loss(losses: Sequence[BatchLoss]) -> float:
    """Mean over the samples of batches that are no single client's.

    Raises:
        NonFinite: a batch's loss is not finite; the server's, since all clients have a part in it.
    """
    try:
        return mean_loss(losses)
    except NonFinite as error:
        raise NonFinite(error.what, None) from error
