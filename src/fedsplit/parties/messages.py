"""Messages that a server and its clients send each other."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Literal, TypeAlias, overload

import torch
from torch import Tensor
from typing_extensions import override

Part: TypeAlias = Literal["client", "auxiliary", "full", "control"]
"""Part of the weights: of the client, the auxiliary, or the full model (client and server model).

`control` are control variates: for each parameter that clients train, a tensor like it.
"""


@dataclass(frozen=True, kw_only=True)
class LocalWork:
    """Work of clients in the local epochs of a round.

    Args:
        train_head: train the head on its own loss, and descend along that; else descend along what the
            gradient estimator makes of the head, and leave the head as it is.
        upload_interval: upload at local steps 0, q, 2q, ...; None never.
        skip_first_upload: clients whose upload of step 0 the server already has.
        in_order: True if uploads are wanted by (client, step); else each client's come by step as soon as
            they
          are made, so that none has to wait in memory.
    """

    train_head: bool
    upload_interval: int | None = None
    skip_first_upload: Collection[int] = ()
    in_order: bool = True

    def uploads(self, client: int, step: int) -> bool:
        """True if a client uploads the smashed data of a local step."""
        if self.upload_interval is None or step % self.upload_interval:
            return False
        return step > 0 or client not in self.skip_first_upload


@dataclass(frozen=True)
class BatchLoss:
    """Mean losses `(K,)` of a batch of each of K clients, in a tensor so that nothing waits for a device."""

    clients: Sequence[int]
    loss: Tensor
    terms: Sequence[int]
    """Number of terms in the loss of each of these batches."""


StepResult: TypeAlias = tuple[list[BatchLoss], Mapping[int, Tensor]]
"""Losses of a step of some clients' batches, and by client the gradient with respect to what was given."""
Tail: TypeAlias = Callable[[Mapping[int, Tensor]], StepResult]
"""Function that sends clients the trunk's output for their last uploads; their tails step on the loss."""


@dataclass(frozen=True)
class Upload:
    """Smashed data `z (b, ...)` and labels `y (b, ...)` of one local step of one client.

    Where the model has a tail, labels stay at the client: `y` is then `(b, 0)`, and `tail` leads back.
    """

    client: int
    step: int
    z: Tensor
    y: Tensor
    tail: Tail | None = None

    def without_labels(self) -> "Upload":
        """The same smashed data, with labels left at the client."""
        return replace(self, y=self.y.new_empty(len(self.y), 0))


@dataclass(frozen=True)
class UploadStack:
    """Uploads of K clients at one local step: `z (K, b, ...)`, `y (K, b, ...)`, `tail` as of `Upload`."""

    clients: Sequence[int]
    step: int
    z: Tensor
    y: Tensor
    tail: Tail | None = None

    def uploads(self) -> Iterator[Upload]:
        """Uploads one after the other."""
        for client, z, y in zip(self.clients, self.z.unbind(), self.y.unbind(), strict=True):
            yield Upload(client, self.step, z, y, self.tail)

    def without_labels(self) -> "UploadStack":
        """The same smashed data, with labels left at the clients."""
        return replace(self, y=self.y.new_empty(*self.y.shape[:2], 0))

    @classmethod
    def of(cls, uploads: Sequence[Upload]) -> "UploadStack":
        """Stack of uploads with equal shapes, all of one step."""
        z, y = torch.stack([upload.z for upload in uploads]), torch.stack([upload.y for upload in uploads])
        return cls([upload.client for upload in uploads], uploads[0].step, z, y, uploads[0].tail)


class StackedUploads(Sequence[Upload]):
    """Uploads that are held as stacks, and can be read one by one, in client order."""

    def __init__(self, stacks: Sequence[UploadStack]) -> None:
        self.stacks = stacks

    def _in_client_order(self) -> list[Upload]:
        uploads = (upload for stack in self.stacks for upload in stack.uploads())
        return sorted(uploads, key=lambda upload: (upload.client, upload.step))

    @overload
    def __getitem__(self, index: int) -> Upload: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Upload]: ...
    @override
    def __getitem__(self, index: int | slice) -> Upload | Sequence[Upload]:
        return self._in_client_order()[index]

    @override
    def __iter__(self) -> Iterator[Upload]:
        return iter(self._in_client_order())

    @override
    def __len__(self) -> int:
        return sum(len(stack.clients) for stack in self.stacks)


def stacks_of(uploads: Sequence[Upload]) -> Sequence[UploadStack]:
    """Uploads of one step as stacks, whichever way they are held."""
    if isinstance(uploads, StackedUploads):
        return uploads.stacks
    by_shape = groupby(sorted(uploads, key=_largest), key=_largest)
    return [UploadStack.of(list(alike)) for _, alike in by_shape]


def _largest(upload: Upload) -> tuple[int, ...]:
    return tuple(-size for size in upload.z.shape)


class StackedGradients(Mapping[int, Tensor]):
    """Cut gradients by client, held as stacks: clients and `dz (K, b, ...)`; or outputs of the trunk."""

    def __init__(self, stacks: Sequence[tuple[Sequence[int], Tensor]]) -> None:
        self.stacks = stacks

    @classmethod
    def holding(cls, tensors: Mapping[int, Tensor]) -> "StackedGradients":
        """The same tensors by client, whichever way they are held."""
        if isinstance(tensors, cls):
            return tensors
        return cls([([client], gradient[None]) for client, gradient in tensors.items()])

    def of(self, clients: Sequence[int]) -> Tensor:
        """Gradients of some clients, `(k, b, ...)`."""
        for members, dz in self.stacks:
            if list(members) == list(clients):
                return dz
        return torch.stack([self[client] for client in clients])

    @override
    def __getitem__(self, client: int) -> Tensor:
        for clients, dz in self.stacks:
            if client in clients:
                return dz[list(clients).index(client)]
        raise KeyError(client)

    @override
    def __iter__(self) -> Iterator[int]:
        return iter(sorted(client for clients, _ in self.stacks for client in clients))

    @override
    def __len__(self) -> int:
        return sum(len(clients) for clients, _ in self.stacks)


class BroadcastGradients(Mapping[int, Tensor]):
    """Cut gradients by client, of which some are one and the same, sent as one broadcast.

    Args:
        gradients: gradients of clients that get their own.
        broadcast: gradient of the others, with as many rows as their largest batch; each takes its first
            rows.
        receivers: numbers of the others, at least one.
    """

    def __init__(self, own: Mapping[int, Tensor], shared: Tensor, receivers: Sequence[int]) -> None:
        self.gradients, self.broadcast, self.receivers = own, shared, receivers

    @override
    def __getitem__(self, client: int) -> Tensor:
        return self.broadcast if client in self.receivers else self.gradients[client]

    @override
    def __iter__(self) -> Iterator[int]:
        return iter(sorted([*self.gradients, *self.receivers]))

    @override
    def __len__(self) -> int:
        return len(self.gradients) + len(self.receivers)


@dataclass(frozen=True)
class LocalTraining:
    """Results of local training: uploads as `LocalWork` wants them, and losses where the head was trained.

    Where there are any, clients may train while uploads are read: these are read once, to their end, before
    losses are, and before anything else is asked.
    """

    uploads: Iterable[Upload]
    losses: list[BatchLoss]
