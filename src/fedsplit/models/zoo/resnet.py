"""torchvision's ResNet-18 with its ImageNet stem, and the auxiliary model that goes with it."""

from torch import Tensor, nn
from typing_extensions import override

from fedsplit.machine.torchvision_operators import torchvision


def resnet18(*, num_classes: int, channels: int, image_size: int) -> nn.Module:
    """ResNet-18; 32x32 images give smashed data `(n, 128, 4, 4)` after `layer2`. `image_size` is free.

    Source: K. He et al., "Deep Residual Learning for Image Recognition", 2016.
    """
    network: nn.Module = torchvision().models.resnet18(num_classes=num_classes)
    if channels != 3:
        network.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
        # as the stem it replaces
        nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    return network


class ResNetAuxiliary(nn.Module):
    """The residual stage that follows the cut (two basic blocks, stride 2, twice the channels), pool and fc.

    After `layer2` that is ResNet-18's own `layer3`, an average pool and a linear layer.
    """

    def __init__(self, *, smashed_shape: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        channels = smashed_shape[0]
        block = torchvision().models.resnet.BasicBlock
        shortcut = nn.Sequential(
            nn.Conv2d(channels, 2 * channels, 1, stride=2, bias=False), nn.BatchNorm2d(2 * channels)
        )
        self.stage = nn.Sequential(
            block(channels, 2 * channels, stride=2, downsample=shortcut), block(2 * channels, 2 * channels)
        )
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(2 * channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @override
    def forward(self, z: Tensor) -> Tensor:
        """Logits of the smashed data `z`."""
        logits: Tensor = self.fc(self.avgpool(self.stage(z)).flatten(1))
        return logits
