"""The data of a run: loaded, divided over clients, and prepared to make inputs of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedsplit.config.run_config import RunConfig
from fedsplit.data.batches import ClientBatches, SampleCount
from fedsplit.data.dataset import Dataset, Source
from fedsplit.data.distributions.distribution import Distribution
from fedsplit.data.fingerprint import Fingerprint
from fedsplit.data.images import ImageDataset
from fedsplit.data.local_test import hold_out
from fedsplit.data.partition import Partition, Pieces
from fedsplit.data.shards import ClientShards
from fedsplit.errors import UserError
from fedsplit.machine.allowance import claim, claim_batch
from fedsplit.transport.transport import Member

LOOKED_AT = 4096
"""Samples whose labels are looked at together, and clients whose indices are."""


@dataclass(frozen=True)
class Data:
    """Samples, and whose they are.

    Args:
        dataset: dataset, with samples on the device.
        distribution: division of the training samples over clients.
        shards: indices of the training samples that each client trains on.
        local_test: samples that each client tests on; None where none are held out.
        fingerprint: fingerprint of the data as they were read, and of their division; in the process of one
            client, of its own samples.
        count: count of samples that local steps have read in this process.
    """

    dataset: Dataset
    distribution: Distribution
    shards: ClientShards
    local_test: ClientShards | None
    fingerprint: Fingerprint
    count: SampleCount = field(default_factory=SampleCount)

    @property
    def sizes(self) -> Mapping[str, Any]:
        """Keyword arguments of every model."""
        return self.dataset.sizes.arguments

    @cached_property
    def lengths(self) -> np.ndarray | None:
        """Positions of each training sample before its padding, int64 `(n,)`; None of data never padded."""
        train, found = self.dataset.train, []
        for start in range(0, len(train), LOOKED_AT):
            labels = train.labels_at(slice(start, min(start + LOOKED_AT, len(train))))
            lengths = self.dataset.objective.lengths(labels)
            if lengths is None:
                return None
            found.append(lengths.cpu().numpy())
        return np.concatenate(found)

    @property
    def positions(self) -> list[int] | None:
        """Positions of all samples of each client together; None of data never padded."""
        if (lengths := self.lengths) is None:
            return None
        blocks = self.shards.partition.blocks(LOOKED_AT)
        sums = [np.bincount(each.clients, lengths[each.indices], len(each.sizes)) for each in blocks]
        found: list[int] = np.concatenate(sums).astype(np.int64).tolist()
        return found

    def batch(self, samples: int) -> tuple[Tensor, Tensor]:
        """The first training samples as inputs `x (samples, ...)`, and their labels."""
        train, first = self.dataset.train, slice(0, samples)
        return train.inputs_at(first), train.labels_at(first)


def build_data(
    config: RunConfig,
    device: torch.device,
    *,
    member: Member | None = None,
    apart: bool = False,
    sizes_only: bool = False,
) -> Data:
    """The data that a configuration asks for.

    Args:
        config: configuration of the run.
        device: device that computes on batches.
        member: client whose process this is; None in all other processes.
        apart: True if clients are computed in processes of their own.
        sizes_only: True if only sizes and numbers are asked for: then nothing is downloaded, and a
            published dataset is stood in for where its files are missing.

    Raises:
        UserError: there is none such, or it cannot be divided like that.
    """
    training, clients = config.training, config.population.num_clients
    loaded, is_there = _load(config, sizes_only=sizes_only)
    values = prod(loaded.sizes.shape)
    claim_batch("batch_size", min(training.batch_size, len(loaded.train)), values)
    claim_batch("eval_batch_size", min(config.evaluation.eval_batch_size, len(loaded.test)), values)
    dataset = loaded.to(device)
    if member:
        dataset = member.prepare(dataset)
    distribution = config.distribution.build(Distribution)
    partition: Partition
    if distribution.at_clients:
        partition = _shards_of_own_data(clients, dataset, member=member, apart=apart)
    else:
        partition = _divide(distribution, dataset, clients, training.seed)
    if member:
        read = loaded.train.select(torch.from_numpy(partition[member.client])).fingerprint()
    else:
        read = loaded.fingerprint(partition)
    if distribution.shifts_features:
        if not isinstance(dataset, ImageDataset):
            message = "must be another distribution: it changes pixels, and this dataset is text"
            raise UserError("distribution", config.choice("distribution"), message)
        if is_there:

            def view(client: int, pixels: Tensor) -> Tensor:
                return distribution.seen_by(client, pixels, training.seed)

            dataset = dataset.seen_by(partition, view)
    trained_on, local_test = _held_out(partition, dataset.local_test_fraction, distribution, config)
    if not member:
        all_seen = local_test is None or not is_there
        dataset = dataset.scale(None if all_seen else trained_on.indices.sort().values)
    return Data(dataset, distribution, trained_on, local_test, read)


def build_batches(config: RunConfig, data: Data, client: int) -> ClientBatches:
    """The data of a client, batch by batch."""
    return ClientBatches(
        data.dataset.train,
        data.shards[client],
        batch_size=config.training.batch_size,
        local_epochs=config.training.local_epochs,
        client=client,
        seed=config.training.seed,
        count=data.count,
    )


def _load(config: RunConfig, *, sizes_only: bool) -> tuple[Dataset, bool]:
    """The data, and whether they are there, or something that stands in for them."""
    chosen = config.dataset
    if sizes_only and "download" in chosen.arguments:
        chosen = replace(chosen, arguments={**chosen.arguments, "download": False})
    source = chosen.build(Source)
    try:
        return source.load(), True
    except UserError as error:
        stand_in = source.stand_in() if sizes_only and error.key == "dataset.root" else None
        if stand_in is None:
            raise
        return stand_in, False


def _shards_of_own_data(clients: int, dataset: Dataset, *, member: Member | None, apart: bool) -> Pieces:
    """A client in a process of its own holds all it has; of the others, nothing is known here."""
    if not apart and member is None:
        raise UserError("distribution", "own", "needs transport=grpc: clients bring what they have")
    claim("num_clients", clients, 200.0 * clients, f"lists of {clients} clients")
    samples = np.arange(len(dataset.train) if member else 0)
    return Pieces.group(samples, np.full(len(samples), member.client if member else 0), clients)


def _divide(distribution: Distribution, dataset: Dataset, clients: int, seed: int) -> Partition:
    """Indices of each client's training samples."""
    if clients > len(dataset.train) and not distribution.shares_samples:
        raise UserError(
            "num_clients", clients, f"must be at most {len(dataset.train)}, the number of training samples"
        )
    by = dataset.train.strata
    if distribution.by_owner:
        if dataset.train.owners is None:
            message = "needs a dataset that names the owner of each sample, as femnist in LEAF's files does"
            raise UserError("distribution", "natural", message)
        by = dataset.train.owners
    shards = distribution.split(by.cpu().numpy(), clients, seed)
    partition = shards if isinstance(shards, Partition) else Pieces.of(shards)
    if not partition.sizes.all():
        client = int(partition.sizes.argmin())
        message = f"must be smaller with this distribution: client {client} has no sample"
        raise UserError("num_clients", clients, message)
    return partition


def _held_out(
    partition: Sequence[np.ndarray], fraction: float, distribution: Distribution, config: RunConfig
) -> tuple[ClientShards, ClientShards | None]:
    """Each client's samples to train on, and those that it tests on, if any are held out."""
    if not fraction:
        return ClientShards(partition), None
    if distribution.at_clients:
        message = "must be 0 with distribution=own: the server, which tests, does not see clients' data"
        raise UserError("dataset.local_test_fraction", fraction, message)
    if distribution.shares_samples:
        message = f"must be 0 with distribution={config.choice('distribution')}: clients share samples, and"
        raise UserError(
            "dataset.local_test_fraction", fraction, f"{message} train on what others would test on"
        )
    seed = config.training.seed
    parts = [hold_out(shard, fraction, client=client, seed=seed) for client, shard in enumerate(partition)]
    train, test = zip(*parts, strict=True)
    if not any(map(len, test)):
        message = "must be 0: no client has two samples, one of which it could hold out"
        raise UserError("dataset.local_test_fraction", fraction, message)
    return ClientShards(train), ClientShards(test)
