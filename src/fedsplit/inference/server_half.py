"""The server half of a split model, as it answers requests."""

import time
import zlib
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedsplit.computing.model_state import compute_format
from fedsplit.errors import RunFailed
from fedsplit.inference.codes import DeviceCodes
from fedsplit.quant.bit_packing import to_bytes
from fedsplit.quant.codec import is_finite
from fedsplit.quant.message import Message
from fedsplit.quant.positions import real_positions


@dataclass(frozen=True)
class RequestAnswer:
    """The answer to a request.

    Args:
        logits: float32, on the CPU: `(n, classes)`, or of texts' real positions `(positions, vocabulary)`.
        seconds: seconds that decoding the smashed data and the server half took.
    """

    logits: Tensor
    seconds: float

    @property
    def size(self) -> int:
        """Bytes of the logits as they are sent."""
        return self.logits.numel() * self.logits.element_size()

    @property
    def checksum(self) -> int:
        """CRC-32 of the logits, see `checksum` of this module."""
        return checksum(self.logits)


def checksum(logits: Tensor) -> int:
    """CRC-32 of logits: the same for the same bits, over whatever wire."""
    return zlib.crc32(to_bytes(logits))


class ServerHalf:
    """Turns smashed data into logits; puts the server model in evaluation mode.

    Args:
        module: the server model.
        device: device of the model.
        codes: codes of the smashed data.
    """

    def __init__(self, module: nn.Module, device: torch.device, codes: DeviceCodes) -> None:
        self._module, self._device, self._codes = module.eval(), device, codes

    @torch.inference_mode()
    def answer(self, message: Message) -> RequestAnswer:
        """Decode smashed data, once, and finish what the client half began.

        Raises:
            Corrupt: it is no message of a device.
            RunFailed: the logits are not finite.
        """
        start = time.perf_counter()
        z = compute_format(self._codes.decode(message).to(self._device))
        logits = self._module(z).cpu()
        lengths = self._codes.lengths(message)
        if lengths is not None and logits.dim() == 3:  # of each position, also of those that are padding
            logits = logits[real_positions(lengths, logits.shape[1])]
        seconds = time.perf_counter() - start
        if not is_finite(logits):
            raise RunFailed("the logits of the server are not finite")
        return RequestAnswer(logits.contiguous(), seconds)
