"""What a server and its clients send each other."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from torch import Tensor

Part: TypeAlias = Literal["client", "auxiliary", "full"]
"""Which weights: of the client model, the auxiliary model, or the full model (client and server model)."""


@dataclass(frozen=True)
class Upload:
    """Smashed data `z (b, ...)` and labels `y (b,)` of one local step of one client."""

    client: int
    step: int
    z: Tensor
    y: Tensor


@dataclass(frozen=True)
class BatchLoss:
    """Mean loss of one batch, a tensor so that nothing waits for a device, and whose it is."""

    client: int
    loss: Tensor
    samples: int


@dataclass(frozen=True)
class LocalTraining:
    """What local training gives, by (client, step): uploads, and losses where the head was trained."""

    uploads: list[Upload]
    losses: list[BatchLoss]
