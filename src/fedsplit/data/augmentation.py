"""Random changes of training images."""

from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Augmentation:
    """Random horizontal flip, and a random crop after zero padding of `crop_padding` pixels a side."""

    flip: bool = False
    crop_padding: int = 0

    def draw(self, count: int, draw: torch.Generator) -> Tensor:
        """Top and left of the crop of each image, and whether it is flipped: int64 `(count, 3)`.

        What is not used is not drawn.
        """
        top = left = flipped = torch.zeros(count, dtype=torch.int64)
        if self.crop_padding:
            top, left = torch.randint(2 * self.crop_padding + 1, (2, count), generator=draw)
        if self.flip:
            flipped = torch.rand(count, generator=draw).lt(0.5).to(torch.int64)
        return torch.stack([top, left, flipped], 1)

    def __call__(self, pixels: Tensor, draws: Tensor) -> Tensor:
        """Flip and crop a batch `(n, h, w, c)` of uint8 pixels, each image with its own draw."""
        n, height, width, channels = pixels.shape
        top, left, flipped = draws.to(pixels.device).unbind(1)
        if self.crop_padding:
            pad = self.crop_padding
            padded = F.pad(pixels, (0, 0, pad, pad, pad, pad))
            rows, columns, pixel, channel = padded.stride()[0], padded.stride()[1], padded.stride()[2], 1
            windows = padded.as_strided(
                (n, 2 * pad + 1, 2 * pad + 1, height, width, channels),
                (rows, columns, pixel, columns, pixel, channel),
            )
            pixels = windows[torch.arange(n, device=pixels.device), top, left]
        if self.flip:
            pixels = torch.where(flipped.bool()[:, None, None, None], pixels.flip(2), pixels)
        return pixels


NO_AUGMENTATION: Final = Augmentation()
"""Augmentation that leaves images as they are."""
