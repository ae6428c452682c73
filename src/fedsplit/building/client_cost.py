"""Measures what a client of a run costs, or of another cut of its model."""

import torch
from torch import Tensor

from fedsplit.building.data import LOOKED_AT, Data
from fedsplit.building.parts import ClientParts
from fedsplit.data.batches import batch_slices
from fedsplit.parties.client_cost import ClientCost, client_cost
from fedsplit.parties.engine import Blueprint


def build_client_cost(
    parts: ClientParts, blueprint: Blueprint | None = None, *, trains_head: bool
) -> ClientCost:
    """Cost of the largest local step of any client.

    Args:
        parts: parts of the run.
        blueprint: parts of a client; None: those of the run's clients.
        trains_head: True if clients train the model behind the client model.
    """
    data, batch_size = parts.data, parts.config.training.batch_size
    most = max(data.shards.sizes) or batch_size  # clients may bring what they have
    samples = max(piece.stop - piece.start for piece in batch_slices(most, batch_size))
    train, largest = data.dataset.train, _largest_sample(data)

    def batch(copies: int) -> tuple[Tensor, Tensor]:
        index = largest.expand(copies).to(train.index_device)
        return train.inputs_at(index), train.labels_at(index)

    return client_cost(blueprint or parts.engine.blueprint, batch, samples, trains_head=trains_head)


def _largest_sample(data: Data) -> Tensor:
    """Index of the training sample with most positions, `(1,)`; the first where data are never padded.

    Where clients bring what they have, it is the first of the server's own.
    """
    longest, found = 0, 0
    if (lengths := data.lengths) is not None:
        for block in data.shards.partition.blocks(LOOKED_AT):
            own = lengths[block.indices]
            if own.max(initial=0) > longest:
                longest, found = int(own.max()), int(block.indices[own.argmax()])
    return torch.tensor([found])
