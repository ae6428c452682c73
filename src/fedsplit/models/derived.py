"""Auxiliary models that are derived from the server model: its kind of network, narrower and shallower."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from typing_extensions import override

from fedsplit.computing.shapes import note_shapes, shape_at
from fedsplit.config.values import PositiveFloat, PositiveInt
from fedsplit.models.splitting.cuts import evaluating
from fedsplit.models.splitting.stubs import StubbedServer, truncate_server

_LEAST_CHANNELS = 8


class DerivedAuxiliary(nn.Module):
    """A narrower and shallower stand-in for a server model: of the same smashed data, with as many logits.

    Where the server model has convolutions, each of its first `depth` stages (a stage ends where the side
    changes) becomes one 3x3 convolution with BatchNorm and ReLU, of `width` times the stage's channels and
    of its side; then come an average pool and a linear layer. Where it has linear layers only, its first
    `depth` hidden ones become `width` times as wide. On tokens `(t, d)` the hidden layers go over each
    token, and their mean goes to the last.

    Where the halves run the model's own code, it is the server model without the blocks after the first
    `depth`: what is frozen there is shared, what learns is its own, and begins with the same values.

    Args:
        smashed_shape: shape of one sample.
        server: the server model, as `split` made it.
        crossing: shape of each tensor that smashed data are packed of.
        width: fraction of the server model's channels or features.
        depth: stages or hidden layers.
    """

    def __init__(
        self,
        *,
        smashed_shape: tuple[int, ...],
        num_classes: int,
        server: nn.Module,
        crossing: tuple[tuple[int, ...], ...],
        width: PositiveFloat = 0.25,
        depth: PositiveInt = 1,
    ) -> None:
        super().__init__()
        self._crossing = crossing
        self.trunk: nn.Module
        self.fc: nn.Module
        if isinstance(server, StubbedServer):
            self.trunk, self.fc = truncate_server(server, depth), nn.Identity()
            return
        start = _gathered_shape(crossing)
        stages = _stages(_shapes(server, smashed_shape))[:depth] if len(start) == 3 else []
        linear = [layer.out_features for layer in server.modules() if isinstance(layer, nn.Linear)]
        hidden = [max(_LEAST_CHANNELS, round(width * each)) for each in linear[:-1][:depth]]
        if stages:
            self.trunk, features = _convolutions(start, stages, width)
        elif len(start) == 2:
            self.trunk, features = _linear([start[1], *hidden])
            self.trunk.append(_MeanOfTokens())
        else:
            self.trunk, features = _linear([prod(start), *hidden])
            self.trunk.insert(0, nn.Flatten())
        self.fc = nn.Linear(features, num_classes)

    @property
    def gives_outputs_at(self) -> bool:
        """True if it takes the positions whose logits are wanted."""
        return bool(getattr(self.trunk, "gives_outputs_at", False))

    @override
    def forward(self, z: Tensor, **further: Tensor) -> Tensor:
        """Logits of the smashed data `z`."""
        logits: Tensor = self.fc(self.trunk(_concatenate(z, self._crossing), **further))
        return logits


class _MeanOfTokens(nn.Module):
    @override
    def forward(self, z: Tensor) -> Tensor:
        return z.mean(1)


class _MeanOfPixels(nn.Module):
    """Adaptive pool to one pixel, and fast in stacks of clients too."""

    @override
    def forward(self, z: Tensor) -> Tensor:
        return z.mean((2, 3))


def _linear(sizes: Sequence[int]) -> tuple[nn.Sequential, int]:
    """Hidden layers of these sizes, and the last of them."""
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers), sizes[-1]


def _convolutions(
    start: Sequence[int], stages: Sequence[tuple[int, int]], width: float
) -> tuple[nn.Sequential, int]:
    """One convolution for each stage and a pool, and how many features come out."""
    layers: list[nn.Module] = []
    before, side = start[0], start[1]
    for channels, smaller in stages:
        after = max(_LEAST_CHANNELS, round(width * channels))
        stride = max(1, side // max(1, smaller))
        convolution = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
        layers += [convolution, nn.BatchNorm2d(after), nn.ReLU()]
        before, side = after, -(-side // stride)
    return nn.Sequential(*layers, _MeanOfPixels()), before


def _shapes(server: nn.Module, smashed_shape: Sequence[int]) -> list[tuple[int, ...]]:
    """Shapes of one sample after each convolution of the server model, in order."""
    assert isinstance(server, fx.GraphModule)
    like = next(server.parameters())
    with evaluating(server):
        note_shapes(server, torch.zeros(2, *smashed_shape, device=like.device, dtype=like.dtype))
    found = []
    for node in server.graph.nodes:
        made_by = server.get_submodule(str(node.target)) if node.op == "call_module" else None
        given = shape_at(node)
        if isinstance(made_by, nn.Conv2d) and given is not None:
            found.append(tuple(given.shape[1:]))
    return found


def _stages(shapes: Sequence[tuple[int, ...]]) -> list[tuple[int, int]]:
    """Most channels and side of each stage: of the convolutions one behind the other that have one side."""
    sides = [(shape[0], shape[1]) for shape in shapes if len(shape) == 3]
    stages: list[tuple[int, int]] = []
    for channels, side in sides:
        if stages and stages[-1][1] == side:
            stages[-1] = (max(stages[-1][0], channels), side)
        else:
            stages.append((channels, side))
    return stages


def _gathered_shape(crossing: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    if len(crossing) == 1:
        return crossing[0]
    if all(len(shape) == 3 for shape in crossing):
        side = min(min(shape[1:]) for shape in crossing)
        return (sum(shape[0] for shape in crossing), side, side)
    return (sum(map(prod, crossing)),)


def _concatenate(z: Tensor, crossing: Sequence[tuple[int, ...]]) -> Tensor:
    """Packed images as one: each pooled to the smallest side, their channels behind each other."""
    shape = _gathered_shape(crossing)
    if len(crossing) == 1 or len(shape) == 1:
        return z
    images, start = [], 0
    for each in crossing:
        image = z.narrow(1, start, prod(each)).reshape(-1, *each)
        images.append(_pool(image, each, shape[1]))
        start += prod(each)
    return torch.cat(images, 1)


def _pool(images: Tensor, shape: Sequence[int], side: int) -> Tensor:
    """Images `(n, c, h, w)` of this shape to a side; by plain pooling where it divides theirs.

    That is what stacks of clients are fast at.
    """
    height, width = shape[1:]
    if (height, width) == (side, side):
        return images
    if height % side or width % side:
        return F.adaptive_avg_pool2d(images, side)
    return F.avg_pool2d(images, (height // side, width // side))
