"""Noise in the shape of images, so that a benchmark needs no files."""

from dataclasses import dataclass

import numpy as np
import torch

from fedsplit.config.values import PositiveInt
from fedsplit.data.distributions.distribution import Distribution
from fedsplit.data.image_source import ImageSource
from fedsplit.data.images import Images


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


class Same(Distribution):
    """The same number of samples for every client, however many there are; what is left over is left out.

    Args:
        samples: of each client.
    """

    def __init__(self, *, samples: PositiveInt) -> None:
        self.samples = samples

    def split(self, labels: np.ndarray, num_clients: int, seed: int) -> list[np.ndarray]:
        """See `Distribution.split`; not every sample lands on a client."""
        return np.split(np.arange(num_clients * self.samples), num_clients)
