"""Models of the tasks, by name; they need torch alone."""

from collections import OrderedDict
from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn


def mlp(*, num_classes: int, channels: int, image_size: int) -> nn.Module:
    """64 hidden units between pixels and classes."""
    pixels = channels * image_size**2
    layers = {"flatten": nn.Flatten(), "fc1": nn.Linear(pixels, 64), "relu": nn.ReLU()}
    return nn.Sequential(OrderedDict(layers, fc2=nn.Linear(64, num_classes)))


def cnn(*, num_classes: int, channels: int, image_size: int) -> nn.Module:
    """Two 3x3 convolutions without padding (32 and 64 channels), one 2x2 pooling, 128 hidden units."""
    side = (image_size - 4) // 2
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(channels, 32, 3),
            relu1=nn.ReLU(),
            conv2=nn.Conv2d(32, 64, 3),
            relu2=nn.ReLU(),
            pool=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            fc1=nn.Linear(64 * side**2, 128),
            relu3=nn.ReLU(),
            fc2=nn.Linear(128, num_classes),
        )
    )


def blaze_cnn(*, num_classes: int, channels: int, image_size: int) -> nn.Module:
    """CNN of BlazeFL's benchmark, which is that of PyTorch's CIFAR-10 tutorial.

    Two 5x5 convolutions without padding (6 and 16 channels) with a 2x2 pooling each, 120 and 84 hidden units.
    """
    side = ((image_size - 4) // 2 - 4) // 2
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(channels, 6, 5),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(6, 16, 5),
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            fc1=nn.Linear(16 * side**2, 120),
            relu3=nn.ReLU(),
            fc2=nn.Linear(120, 84),
            relu4=nn.ReLU(),
            fc3=nn.Linear(84, num_classes),
        )
    )


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch normalisation, and what goes around them.

    Args:
        inside: channels of its inputs.
        channels: of its outputs.
        stride: of the first convolution.
    """

    def __init__(self, inside: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample: nn.Module | None = None
        if inside != channels:
            shortcut = nn.Conv2d(inside, channels, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Outputs of the block."""
        around = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(x)).add_(around), inplace=True)


def resnet18(*, num_classes: int, channels: int, image_size: int) -> nn.Module:
    """ResNet-18 as torchvision has it: the stem is made for ImageNet; `image_size` is free."""
    parts: dict[str, nn.Module] = {
        "conv1": nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False),
        "bn1": nn.BatchNorm2d(64),
        "relu": nn.ReLU(inplace=True),
        "maxpool": nn.MaxPool2d(3, stride=2, padding=1),
    }
    inside = 64
    for number, width in enumerate((64, 128, 256, 512), start=1):
        first = ResidualBlock(inside, width, stride=1 if number == 1 else 2)
        parts[f"layer{number}"] = nn.Sequential(first, ResidualBlock(width, width, stride=1))
        inside = width
    parts |= {"avgpool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "fc": nn.Linear(512, num_classes)}
    model = nn.Sequential(OrderedDict(parts))
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return model


MODELS: dict[str, Callable[..., nn.Module]] = {
    "mlp": mlp,
    "cnn": cnn,
    "blaze-cnn": blaze_cnn,
    "blaze-resnet18": resnet18,
}
