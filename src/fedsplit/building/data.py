"""The data of a run: loaded, divided over clients, and prepared to make inputs of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
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
from fedsplit.data.shards import ClientShards
from fedsplit.errors import UserError
from fedsplit.machine.allowance import claim, claim_batch
from fedsplit.transport.transport import Member


@dataclass(frozen=True)
class Data:
    """Samples, and whose they are.

    Args:
        dataset: on the device.
        distribution: how training samples were divided.
        shards: indices of the training samples that each client trains on.
        local_test: of those that each client tests on; None where none are held out.
        fingerprint: of the data as they were read, and of their division; in the process of one client, of
            its own samples.
        count: of samples that local steps have read in this process.
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
        config: of the run.
        device: where batches are computed with.
        member: in the process of one client.
        apart: whether clients are computed in processes of their own.
        sizes_only: whether sizes and numbers are all that is asked for: then nothing is downloaded, and a
            published dataset is stood in for where its files are missing.

    Raises:
        UserError: there is none such, or it cannot be divided like that.
    """
    training, clients = config.training, config.population.num_clients
    loaded, is_there = _loaded(config, sizes_only=sizes_only)
    values = prod(loaded.sizes.shape)
    claim_batch("batch_size", min(training.batch_size, len(loaded.train)), values)
    claim_batch("eval_batch_size", min(config.evaluation.eval_batch_size, len(loaded.test)), values)
    dataset = loaded.to(device)
    if member:
        dataset = member.prepare(dataset)
    distribution = config.distribution.build(Distribution)
    if distribution.at_clients:
        shards = _own(clients, dataset, member=member, apart=apart)
    else:
        shards = _divided(distribution, dataset, clients, training.seed)
    if member:
        read = loaded.train.chosen(torch.from_numpy(shards[member.client])).fingerprint()
    else:
        read = loaded.fingerprint(shards)
    if distribution.shifts_features:
        if not isinstance(dataset, ImageDataset):
            told = "changes pixels, and this dataset is text: take another distribution"
            raise UserError("distribution", config.choice("distribution"), told)
        if is_there:

            def view(client: int, pixels: Tensor) -> Tensor:
                return distribution.seen_by(client, pixels, training.seed)

            dataset = dataset.seen_by(shards, view)
    trained_on, local_test = _held_out(shards, dataset.local_test_fraction, distribution, training.seed)
    if not member:
        all_seen = local_test is None or not is_there
        dataset = dataset.scaled(None if all_seen else trained_on.indices.sort().values)
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


def _loaded(config: RunConfig, *, sizes_only: bool) -> tuple[Dataset, bool]:
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


def _own(clients: int, dataset: Dataset, *, member: Member | None, apart: bool) -> list[np.ndarray]:
    """A client in a process of its own holds all it has; of the others, nothing is known here."""
    if not apart and member is None:
        raise UserError("distribution", "own", "needs transport=grpc: clients bring what they have")
    claim("num_clients", clients, 200.0 * clients, f"lists of {clients} clients")
    own = {member.client: np.arange(len(dataset.train))} if member else {}
    return [own.get(client, np.empty(0, dtype=np.int64)) for client in range(clients)]


def _divided(distribution: Distribution, dataset: Dataset, clients: int, seed: int) -> list[np.ndarray]:
    """Indices of each client's training samples."""
    if clients > len(dataset.train):
        raise UserError("num_clients", clients, f"at most the {len(dataset.train)} training samples")
    by = dataset.train.strata
    if distribution.by_owner:
        if dataset.train.owners is None:
            told = "this dataset does not say whose its samples are; femnist in LEAF's files does"
            raise UserError("distribution", "natural", told)
        by = dataset.train.owners
    shards = distribution.split(by.cpu().numpy(), clients, seed)
    for client, shard in enumerate(shards):
        if len(shard) == 0:
            raise UserError(
                "num_clients", clients, f"too many for this distribution: client {client} has no sample"
            )
    return shards


def _held_out(
    shards: list[np.ndarray], fraction: float, distribution: Distribution, seed: int
) -> tuple[ClientShards, ClientShards | None]:
    """Each client's samples to train on, and those that it tests on, if any are held out."""
    if not fraction:
        return ClientShards(shards), None
    if distribution.at_clients:
        told = "must be 0 with distribution=own: the server, which tests, does not see clients' data"
        raise UserError("dataset.local_test_fraction", fraction, told)
    parts = [hold_out(shard, fraction, client=client, seed=seed) for client, shard in enumerate(shards)]
    train, test = zip(*parts, strict=True)
    if not any(map(len, test)):
        told = "must be 0: no client has two samples, one of which it could hold out"
        raise UserError("dataset.local_test_fraction", fraction, told)
    return ClientShards(train), ClientShards(test)
