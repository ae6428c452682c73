"""A small network for very small images: the default."""

from collections import OrderedDict

from torch import nn


def digits_cnn(*, num_classes: int, channels: int, image_size: int) -> nn.Module:
    """Two 3x3 convolutions, a 2x2 pooling, then 64 hidden units; logits `(n, num_classes)`."""
    side = image_size // 2
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(channels, 8, 3, padding=1),
            relu1=nn.ReLU(),
            conv2=nn.Conv2d(8, 16, 3, padding=1),
            relu2=nn.ReLU(),
            pool=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            fc1=nn.Linear(16 * side * side, 64),
            relu3=nn.ReLU(),
            fc2=nn.Linear(64, num_classes),
        )
    )
