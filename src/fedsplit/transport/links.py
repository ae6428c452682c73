"""Agreement of both ends of a link: how the weights of a part are counted, and what is drawn for them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from fedsplit.errors import NonFinite
from fedsplit.parties.messages import Part
from fedsplit.quant.codec import Codec, NonFiniteTensor
from fedsplit.quant.coded import SentTensor
from fedsplit.quant.quantization import TensorKind
from fedsplit.quant.weights_link import EXACT, Delivery
from fedsplit.randomness import seed_of
from fedsplit.recording.ledger import Direction, Kind

KIND_OF: dict[Part, Kind] = {
    "client": "client_weights",
    "auxiliary": "auxiliary_weights",
    "full": "full_weights",
    "control": "control_variates",
}
"""Kind of bytes under which the weights of each part are counted."""
COUNTED_AS: dict[TensorKind, Kind] = {
    "smashed": "smashed",
    "cut_gradient": "cut_gradient",
    "trunk_output": "smashed",
    "trunk_gradient": "cut_gradient",
}
"""Kind of bytes under which each tensor is counted: at a second cut activations go down, and gradients up."""


def weights_seed(seed: int, direction: Direction, part: Part, client: int, round: int) -> int:
    """Seed of what codecs draw for weights; `client` is 0 where all clients are sent the same."""
    return seed_of(seed, f"rounding of {KIND_OF[part]} {direction}", client=client, round=round)


def receivers(sent: Mapping[int, Delivery]) -> list[tuple[Delivery, list[int]]]:
    """Each delivery once, and the clients that it goes to."""
    by_delivery: dict[int, tuple[Delivery, list[int]]] = {}
    for client, delivery in sent.items():
        by_delivery.setdefault(id(delivery), (delivery, []))[1].append(client)
    return list(by_delivery.values())


def coded_tensor(x: Tensor, codec: Codec, seed: int, *, packs: bool) -> SentTensor:
    """A tensor on its way, with its message where messages are made."""
    return SentTensor(x, (codec.transmit if packs else codec.simulate)(x, seed=seed))


def exactly(x: Tensor, *, packs: bool) -> SentTensor:
    """A tensor that arrives as it is, likewise."""
    return coded_tensor(x, EXACT, 0, packs=packs)


def seeds_tensor(seeds: Sequence[int]) -> Tensor:
    """Seeds as they travel, `(P,)`, in 4 bytes each."""
    return torch.tensor(seeds, dtype=torch.int32)


@contextmanager
def sent_as(kind: Kind, client: int | None) -> Iterator[None]:
    """Name what is coded: a tensor that is not finite ends the round, and the error says which and whose.

    Raises:
        NonFinite: it was not.
    """
    try:
        yield
    except NonFiniteTensor as error:
        raise NonFinite(kind, client) from error
