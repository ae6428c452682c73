"""The same labels for every client, but images that each sees in its own way."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from fedsplit.config.values import Degrees, Fraction
from fedsplit.data.distributions.iid import Iid
from fedsplit.randomness import generator


class FeatureShift(Iid):
    """Distribution as `iid`, with images turned by an angle and coloured by factors of each client's own.

    Both are drawn once a client: the angle evenly from -`rotation` to `rotation` degrees, and for each
    channel a factor, evenly from 1 - `colour` to 1 + `colour`. Test images are left alone.

    Source: the feature distribution skew of P. Kairouz et al., "Advances and Open Problems in Federated
    Learning", 2021, section 3.1.

    Args:
        rotation: largest angle, in degrees.
        colour: largest change of a channel, as a fraction.
    """

    shifts_features = True

    def __init__(self, *, rotation: Degrees, colour: Fraction) -> None:
        self.rotation, self.colour = rotation, colour

    @override
    def seen_by(self, client: int, pixels: Tensor, seed: int) -> Tensor:
        draw = generator(seed, "feature shift", client=client)
        angle, *factors = (
            2 * torch.rand(1 + pixels.shape[3], generator=draw, dtype=torch.float64) - 1
        ).tolist()
        images = pixels.permute(0, 3, 1, 2).to(torch.float32)
        turn = math.radians(self.rotation * angle)
        matrix = [[math.cos(turn), -math.sin(turn), 0.0], [math.sin(turn), math.cos(turn), 0.0]]
        grid = F.affine_grid(torch.tensor([matrix], device=pixels.device), [1, *images.shape[1:]], False)
        turned = F.grid_sample(images, grid.expand(len(images), -1, -1, -1), align_corners=False)
        scale = torch.tensor([1 + self.colour * each for each in factors], device=pixels.device)
        coloured = turned * scale[None, :, None, None]
        return coloured.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
