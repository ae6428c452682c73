"""Residual networks for small images: with a 3x3 stem and without its pooling."""

from collections import OrderedDict

import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from fedsplit.config.values import PositiveInt
from fedsplit.errors import UserError
from fedsplit.models.zoo.classifiers import classifier


def resnet_32x32(*, depth: PositiveInt, num_classes: int, channels: int, image_size: int) -> nn.Module:
    """The ResNet of this depth with a 3x3 convolution of stride 1 as its stem, and no pooling behind it.

    Source: K. He et al., "Deep Residual Learning for Image Recognition", 2016; the stem as is usual for
    CIFAR's 32x32 images, as in K. Liu, "Train CIFAR10 with PyTorch".

    Args:
        depth: 18, 34, 50, 101 or 152.
        image_size: free.
    """
    if depth not in (18, 34, 50, 101, 152):
        raise UserError("model.depth", depth, "must be 18, 34, 50, 101 or 152")
    network = classifier(name=f"resnet{depth}", num_classes=num_classes, channels=3, image_size=image_size)
    network.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.maxpool = nn.Identity()
    return network


class _Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut without parameters: every second pixel, channels of zeros."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.stride, self.surplus = stride, after - before

    @override
    def forward(self, x: Tensor) -> Tensor:
        """Outputs of the block, of the same side, or half of it."""
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.stride > 1 or self.surplus:
            left = self.surplus // 2
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, left, self.surplus - left))
        return F.relu(x + y)


def cifar_resnet(*, depth: PositiveInt, num_classes: int, channels: int, image_size: int) -> nn.Module:
    """The ResNet of 6n+2 layers: three stages of n blocks with 16, 32 and 64 channels.

    Source: K. He et al., "Deep Residual Learning for Image Recognition", 2016, section 4.2, with its
    shortcuts without parameters (option A).

    Args:
        depth: 6n + 2, such as 20, 32, 44, 56, 110 or 1202.
        image_size: free.
    """
    blocks, rest = divmod(depth - 2, 6)
    if rest or not blocks:
        raise UserError("model.depth", depth, "must be 6n + 2: 8, 14, 20, 26, 32, ...")
    stages = {}
    width = 16
    for number, after in enumerate((16, 32, 64), 1):
        stride = 1 if number == 1 else 2
        chain = [_Block(width, after, stride), *(_Block(after, after, 1) for _ in range(blocks - 1))]
        stages[f"layer{number}"], width = nn.Sequential(*chain), after
    network = nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(channels, 16, 3, padding=1, bias=False),
            bn1=nn.BatchNorm2d(16),
            relu=nn.ReLU(),
            **stages,
            avgpool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            fc=nn.Linear(64, num_classes),
        )
    )
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
    return network
