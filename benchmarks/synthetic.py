"""Noise in the shape of images, so that a benchmark needs no files."""

from dataclasses import dataclass

import torch

from fedsplit.data.dataset import Images, ImageSource


@dataclass(frozen=True, kw_only=True)
class SyntheticImages(ImageSource):
    """Images of noise, as many in each of ten classes."""

    train: int
    test: int
    size: int = 32
    channels: int = 3

    def read(self) -> tuple[Images, Images]:
        """Both splits."""
        draw = torch.Generator().manual_seed(0)

        def images(number: int) -> Images:
            shape = (number, self.size, self.size, self.channels)
            pixels = torch.randint(256, shape, generator=draw, dtype=torch.uint8)
            return Images(pixels, torch.arange(number) % 10)

        return images(self.train), images(self.test)
