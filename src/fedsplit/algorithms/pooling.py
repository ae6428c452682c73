"""Uploads of many clients as one batch, which a server steps on without regard to whose they are."""

from collections.abc import Sequence

import torch

from fedsplit.errors import NonFinite
from fedsplit.objectives.padding import pad_to
from fedsplit.parties.loss import mean_loss
from fedsplit.parties.messages import BatchLoss, Upload


def pool_uploads(uploads: Sequence[Upload], padding: float) -> Upload:
    """Concatenate the samples of some uploads, under the client and step of the first.

    Texts get as many positions as the longest has, with `padding` behind the end of the smashed data.
    """
    first = uploads[0]
    batches = [(upload.z, upload.y) for upload in uploads]
    if first.y.dim() == 2:
        length = max(y.shape[1] for _, y in batches)
        batches = [pad_to(z, y, length, padding) for z, y in batches]
    z, y = (torch.cat(tensors) for tensors in zip(*batches, strict=True))
    return Upload(first.client, first.step, z, y)


def shuffle(pool: Upload, batches: int, draw: torch.Generator) -> list[Upload]:
    """Shuffle the samples of a pool into `batches` parts whose sizes differ by one at most."""
    parts = torch.randperm(len(pool.y), generator=draw).tensor_split(batches)
    places = [indices.to(pool.y.device) for indices in parts]
    return [
        Upload(pool.client, step, pool.z[indices], pool.y[indices]) for step, indices in enumerate(places)
    ]


def pooled_loss(losses: Sequence[BatchLoss]) -> float:
    """Mean over the samples of batches that are no single client's.

    Raises:
        NonFinite: a batch's loss is not finite; it is the server's, as all clients have a part in it.
    """
    try:
        return mean_loss(losses)
    except NonFinite as error:
        raise NonFinite(error.what, None) from error
