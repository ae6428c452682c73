"""Samples from which the ranges of activations are taken: clients' own training images, never test images."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fedsplit.data.samples import Samples
from fedsplit.data.shards import ClientShards
from fedsplit.errors import UserError
from fedsplit.randomness import generator


def calibration_batches(
    samples: Samples,
    shards: ClientShards,
    *,
    batches: int,
    batch_size: int,
    seed: int,
) -> list[Tensor]:
    """Inputs `(batch_size, c, h, w)`, drawn from what the clients train on, each at most once; not augmented.

    Args:
        shards: indices of each client's samples.

    Raises:
        UserError: clients have fewer samples than that.
    """
    held = shards.indices
    if batches * batch_size > len(held):
        most = len(held) // batch_size
        message = (
            f"must be at most {most} with batches of {batch_size}: clients have {len(held)} training samples"
        )
        raise UserError("task.calibration_batches", batches, message)
    order = torch.randperm(len(held), generator=generator(seed, "calibration"))
    drawn = held[order[: batches * batch_size]].to(samples.index_device)
    return [samples.inputs_at(chosen) for chosen in drawn.view(batches, batch_size)]


def check_batches(batches: Sequence[Tensor], example: Tensor) -> None:
    """Raise `UserError` where there is no batch, or one of another form than `example (n, c, h, w)`."""
    if not batches:
        raise UserError("calibration", "no samples", "must hold at least one batch")
    for batch in batches:
        if batch.shape[1:] != example.shape[1:] or batch.dtype != example.dtype or not len(batch):
            found = f"{tuple(batch.shape)} {str(batch.dtype).removeprefix('torch.')}"
            expected = f"(n, {', '.join(map(str, example.shape[1:]))}) float32"
            raise UserError("calibration", found, f"batches must be {expected}, as the model's inputs")
