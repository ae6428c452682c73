"""A small convolutional network for satellite images."""

from collections import OrderedDict

from torch import nn


def eurosat_cnn(*, num_classes: int, channels: int, image_size: int) -> nn.Module:
    """Three convolutions without padding (5x5 of 32 and of 64, 3x3 of 96 channels), then three linear layers.

    Each convolution is followed by BatchNorm, ReLU and a pooling that halves, rounding down. 64x64 images
    give sides 60, 30, 26, 13, 11, 5 and with three channels and ten classes 434,602 parameters.
    """
    side = ((((image_size - 4) // 2 - 4) // 2) - 2) // 2
    layers: dict[str, nn.Module] = {}
    before = channels
    for number, (after, kernel) in enumerate(((32, 5), (64, 5), (96, 3)), 1):
        layers |= {
            f"conv{number}": nn.Conv2d(before, after, kernel),
            f"norm{number}": nn.BatchNorm2d(after),
            f"relu{number}": nn.ReLU(),
            f"pool{number}": nn.MaxPool2d(2),
        }
        before = after
    return nn.Sequential(
        OrderedDict(
            **layers,
            flatten=nn.Flatten(),
            fc1=nn.Linear(96 * side * side, 128),
            relu4=nn.ReLU(),
            fc2=nn.Linear(128, 128),
            relu5=nn.ReLU(),
            fc3=nn.Linear(128, num_classes),
        )
    )
