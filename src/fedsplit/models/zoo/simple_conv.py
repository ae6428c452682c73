"""The small convolutional network of the FSL-SAGE and CSE-FSL papers."""

from collections import OrderedDict

from torch import nn

from fedsplit.computing.local_response_norm import LocalResponseNorm


def simple_conv(*, num_classes: int, channels: int, image_size: int) -> nn.Module:
    """Two 5x5 convolutions with local response normalisation, then three linear layers; logits.

    Cut after `flatten`, 32x32 images: smashed data `(n, 4096)`.
    """
    side = -(-image_size // 4)  # two poolings halve, rounding up

    def norm() -> nn.Module:
        return LocalResponseNorm(64, size=4, alpha=0.001 / 9, k=1.0)

    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(channels, 64, 5, padding=2),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(3, stride=2, padding=1),
            norm1=norm(),
            conv2=nn.Conv2d(64, 64, 5, padding=2),
            relu2=nn.ReLU(),
            norm2=norm(),
            pool2=nn.MaxPool2d(3, stride=2, padding=1),
            flatten=nn.Flatten(),
            fc1=nn.Linear(64 * side * side, 384),
            relu3=nn.ReLU(),
            fc2=nn.Linear(384, 192),
            relu4=nn.ReLU(),
            fc3=nn.Linear(192, num_classes),
        )
    )
