"""Codecs of everything that crosses the wire."""

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from torch import Tensor

from fedsplit.quant.codec import Codec
from fedsplit.quant.positions import Positions
from fedsplit.randomness import seed_of

TensorKind: TypeAlias = Literal["smashed", "cut_gradient", "trunk_output", "trunk_gradient"]


def rounding_seed(seed: int, kind: TensorKind, client: int, round: int, step: int) -> int:
    """Seed of what a codec draws for a tensor of one local step."""
    return seed_of(seed, f"rounding of {kind}", client=client, round=round, step=step)


@dataclass(frozen=True)
class WeightsCodecs:
    """Codecs of the larger tensors of weights, whatever model they are of.

    Args:
        up: codec to the server, of differences to what the client last received.
        down: codec to the client, of differences to what the client last received.
        whole: codec of weights that go to a client which shares none with the server: at first, and where
          it missed some.
    """

    up: Codec
    down: Codec
    whole: Codec

    @property
    def lossless(self) -> bool:
        """True if weights always travel as they are."""
        return self.up.lossless and self.down.lossless and self.whole.lossless


@dataclass(frozen=True)
class Quantization:
    """A codec for each kind of message.

    Args:
        continue_from_decoded: True if a client's head goes on from the smashed data as the server sees them;
          else from the client's own. (The gradient is straight-through in both.)
        positions: positions of padded batches that codecs see.
        trunk_output: codec of a trunk's outputs, as `smashed`, in a model with a tail; None without a tail.
        trunk_gradient: codec of their gradient, as `cut_gradient`.
    """

    smashed: Codec
    cut_gradient: Codec
    weights: WeightsCodecs
    continue_from_decoded: bool = False
    positions: Positions = field(default_factory=Positions)
    trunk_output: Codec | None = None
    trunk_gradient: Codec | None = None

    def codec(self, kind: TensorKind) -> Codec:
        """The codec of a kind of message that is one tensor."""
        codec: Codec | None = getattr(self, kind)
        assert codec is not None, "this model has no tail"
        return codec

    def simulate_smashed(self, z: Tensor, y: Tensor, seed: int) -> Tensor:
        """Smashed data of a batch with labels `y`, as the server sees them.

        Raises:
            NonFiniteTensor: they are not finite.
        """
        values = self.smashed.simulate(self.positions.pack(z, y), seed=seed).decoded
        return self.positions.pad(values, y, self.positions.padding)
