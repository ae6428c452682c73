"""Real positions of padded batches: what of smashed data and cut gradients is coded and travels."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Positions:
    """Positions of the samples of a batch; what lies behind the end of a sample is left out and put back.

    Args:
        lengths: function from labels `(b, t)` to the positions of each sample, `(b,)`; None for data that are
            never padded, which pass as they are.
        padding: value that smashed data have behind the end of a sample: NaN where the server model finds
            its mask in them.
    """

    lengths: Callable[[Tensor], Tensor] | None = None
    padding: float = 0.0

    def pack(self, x: Tensor, y: Tensor | None) -> Tensor:
        """Keep the real positions `(n, ...)` of `x (b, t, ...)`, contiguous.

        Args:
            x: smashed data or cut gradients of a batch.
            y: labels of the batch; not looked at where nothing is ever padded.
        """
        return x.contiguous() if self.lengths is None else x[self._real(y)]

    def pad(self, x: Tensor, y: Tensor | None, padding: float = 0.0) -> Tensor:
        """Put `x (n, ...)` of `pack` back into a batch `(b, t, ...)`, with `padding` behind each end."""
        if self.lengths is None:
            return x
        real = self._real(y)
        batch = x.new_full((*real.shape, *x.shape[1:]), padding)
        batch[real] = x
        return batch

    def _real(self, y: Tensor | None) -> Tensor:
        assert self.lengths is not None
        assert y is not None
        return real_positions(self.lengths(y), y.shape[1])


def real_positions(lengths: Tensor, longest: int) -> Tensor:
    """Mask of real positions, bool `(b, longest)`, of samples of `lengths (b,)`; false where padding is."""
    return torch.arange(longest, device=lengths.device) < lengths[:, None]
