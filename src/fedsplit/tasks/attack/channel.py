"""The way from a client model to what a server decodes: defence and codec, or a deployed client model."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor
from typing_extensions import override

from fedsplit.deployment.backends.backend import DeployedModel
from fedsplit.inference.codes import DeviceCodes
from fedsplit.privacy.defence import Defence
from fedsplit.privacy.noise import Secrets
from fedsplit.quant.codec import Codec

FULL = "fp32"
"""The precision of client models that compute as they were trained."""


@dataclass(frozen=True)
class DeliveredBatch:
    """Smashed data of a batch as a server decodes them, and the bytes of their payload."""

    z: Tensor
    size: int


@dataclass(frozen=True)
class Channel(ABC):
    """One way in which smashed data travel.

    Args:
        codec: name of the codec; `device` where a deployed client model sends what it computes.
        defence: name of what the client does against the server.
        precision: precision of the client model.
        own: True if the run itself sent its smashed data in this way.
    """

    codec: str
    defence: str
    precision: str
    own: bool

    @abstractmethod
    def deliver(self, x: Tensor, z: Tensor, *, seed: int) -> DeliveredBatch:
        """Delivery of a batch as the server receives it.

        Args:
            x: inputs of the client model, `(b, c, h, w)`.
            z: exact smashed data, `(b, ...)`.
            seed: seed of what is drawn on the way, be it of a codec or of a client's noise.
        """


@dataclass(frozen=True)
class CodedChannel(Channel):
    """Smashed data go through a defence and then a codec.

    Args:
        release: function that applies the client's defence.
        smashed: codes smashed data.
        cut_gradient: codes the gradients that come back.
    """

    release: Defence
    smashed: Codec
    cut_gradient: Codec

    @override
    def deliver(self, x: Tensor, z: Tensor, *, seed: int) -> DeliveredBatch:
        if self.release.releases:
            noise = Secrets(seed).noise("attack", client=0, round=0, step=0)
            z = self.release.release(z, noise)
        arrived = self.smashed.simulate(z, seed=seed)
        return DeliveredBatch(arrived.decoded, arrived.size)


@dataclass(frozen=True)
class DeviceChannel(Channel):
    """A deployed client model sends its outputs as they are, be they codes."""

    device_model: DeployedModel

    @override
    def deliver(self, x: Tensor, z: Tensor, *, seed: int) -> DeliveredBatch:
        sent = self.device_model.run_quantized(x.cpu())
        size = DeviceCodes().largest(sent.values.shape, sent.values.dtype)
        return DeliveredBatch(sent.decode().to(z.device, z.dtype), size)
