"""What is done to everything that crosses the wire."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from fedsplit.quant.codec import Codec
from fedsplit.randomness import seed_of

TensorKind: TypeAlias = Literal["smashed", "cut_gradient"]


def rounding_seed(seed: int, kind: TensorKind, client: int, round: int, step: int) -> int:
    """Seed of what a codec draws for a tensor of one local step."""
    return seed_of(seed, f"rounding of {kind}", client=client, round=round, step=step)


@dataclass(frozen=True)
class WeightsCodecs:
    """How the larger tensors of weights are coded, whatever model they are of.

    Args:
        up: differences to what the client last received, to the server.
        down: differences to what the client last received, to the client.
        whole: weights that go to a client which shares none with the server: at first, and where it
            missed some.
    """

    up: Codec
    down: Codec
    whole: Codec

    @property
    def lossless(self) -> bool:
        """Whether weights travel as they are, always."""
        return self.up.lossless and self.down.lossless and self.whole.lossless


@dataclass(frozen=True)
class Quantization:
    """A codec for each kind of message.

    Args:
        continue_from_decoded: whether a client's head goes on from the smashed data as the server
            sees them; else from the client's own. (The gradient is straight-through in both.)
    """

    smashed: Codec
    cut_gradient: Codec
    weights: WeightsCodecs
    continue_from_decoded: bool = False

    def codec(self, kind: TensorKind) -> Codec:
        """The codec of a kind of message that is one tensor."""
        return self.smashed if kind == "smashed" else self.cut_gradient
