"""Auxiliary models that are derived from the server model: the same kind of network, narrower and shallower."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp, TensorMetadata

from fedsplit.arguments import PositiveFloat, PositiveInt

_LEAST_CHANNELS = 8


class DerivedAuxiliary(nn.Module):
    """A narrower and shallower stand-in for a server model, of the same smashed data, with logits of its shape.

    Where the server model has convolutions, each of its first `depth` stages (a stage ends where the number of
    channels or the side changes) becomes one 3x3 convolution with BatchNorm and ReLU, of `width` times the
    stage's channels and of its side; then come an average pool and a linear layer. Where it has linear layers
    only, its first `depth` hidden ones become `width` times as wide. On tokens `(t, d)` the hidden layers go
    over each token, and their mean goes to the last.

    Args:
        smashed_shape: of one sample.
        num_classes: of logits.
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
        shapes = _shapes(server, smashed_shape)
        start = _gathered_shape(crossing)
        stages = _stages(shapes, start)[:depth] if len(start) == 3 else []
        if stages:
            self.features = _convolutions(start, stages, width)
            self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
            features = self.features[-3].out_channels
        else:
            inputs = start[-1] if len(start) == 2 else prod(start)
            hidden = [max(_LEAST_CHANNELS, round(width * each)) for each in _hidden(server)[:depth]]
            layers: list[nn.Module] = []
            for before, after in pairwise([inputs, *hidden]):
                layers += [nn.Linear(before, after), nn.ReLU()]
            self.features = nn.Sequential(*layers)
            self.pool = _MeanOfTokens() if len(start) == 2 else nn.Identity()
            self._flat = len(start) != 2
            features = hidden[-1] if hidden else inputs
        self._convolutional = bool(stages)
        self.fc = nn.Linear(features, num_classes)

    def forward(self, z: Tensor) -> Tensor:
        """Logits of smashed data."""
        gathered = _gathered(z, self._crossing)
        if not self._convolutional and self._flat:
            gathered = gathered.flatten(1)
        logits: Tensor = self.fc(self.pool(self.features(gathered)))
        return logits


class _MeanOfTokens(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return z.mean(1)


def _convolutions(start: Sequence[int], stages: Sequence[tuple[int, int]], width: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    before, side = start[0], start[1]
    for channels, smaller in stages:
        after = max(_LEAST_CHANNELS, round(width * channels))
        stride = max(1, side // max(1, smaller))
        layers += [
            nn.Conv2d(before, after, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
        ]
        before, side = after, -(-side // stride)
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(*layers)


def _shapes(server: nn.Module, smashed_shape: Sequence[int]) -> list[tuple[int, ...]]:
    """Of one sample, after each convolution of the server model, in order."""
    assert isinstance(server, fx.GraphModule)
    like = next(server.parameters())
    training = server.training
    server.eval()
    with torch.no_grad():
        ShapeProp(server).propagate(torch.zeros(2, *smashed_shape, device=like.device, dtype=like.dtype))
    server.train(training)
    found = []
    for node in server.graph.nodes:
        made_by = server.get_submodule(str(node.target)) if node.op == "call_module" else None
        meta = node.meta.get("tensor_meta")
        if isinstance(made_by, nn.Conv2d) and isinstance(meta, TensorMetadata):
            found.append(tuple(meta.shape[1:]))
    return found


def _stages(shapes: Sequence[tuple[int, ...]], start: Sequence[int]) -> list[tuple[int, int]]:
    """Channels and side of each stage: of the last of the convolutions that have the same side.

    Where the side never changes, a stage ends where the channels do.
    """
    sides = [(shape[0], shape[1]) for shape in shapes if len(shape) == 3]
    stages: list[tuple[int, int]] = []
    for channels, side in sides:
        if stages and stages[-1][1] == side:
            stages[-1] = (max(stages[-1][0], channels), side)
        else:
            stages.append((channels, side))
    return stages


def _hidden(server: nn.Module) -> list[int]:
    """Features of the hidden linear layers."""
    return [layer.out_features for layer in server.modules() if isinstance(layer, nn.Linear)][:-1]


def _gathered_shape(crossing: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    if len(crossing) == 1:
        return crossing[0]
    if all(len(shape) == 3 for shape in crossing):
        side = min(min(shape[1:]) for shape in crossing)
        return (sum(shape[0] for shape in crossing), side, side)
    return (sum(map(prod, crossing)),)


def _gathered(z: Tensor, crossing: Sequence[tuple[int, ...]]) -> Tensor:
    """Packed images as one: each pooled to the smallest side, their channels behind each other."""
    shape = _gathered_shape(crossing)
    if len(crossing) == 1 or len(shape) == 1:
        return z
    parts = torch.split(z, [prod(each) for each in crossing], 1)
    images = [part.unflatten(1, each) for part, each in zip(parts, crossing, strict=True)]
    return torch.cat([F.adaptive_avg_pool2d(image, shape[1]) for image in images], 1)
