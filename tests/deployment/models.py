"""Small client models, as split off untrained networks, with BatchNorm statistics as of trained ones."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedsplit.building.client_model import ClientArchitecture
from tests.models.zoo import settings_of


@dataclass(frozen=True)
class Client:
    """A client model, what it is made from, and samples like those it was trained on."""

    architecture: ClientArchitecture
    module: nn.Module
    samples: Tensor

    @property
    def calibration(self) -> list[Tensor]:
        return list(self.samples.split(16))


CUTS = {"digits_cnn": "flatten", "resnet20": "layer1", "mobilenet_v2": "features.3", "eurosat_cnn": "relu4"}
_SIDES = {"digits_cnn": 8, "resnet20": 8, "mobilenet_v2": 32, "eurosat_cnn": 28}


def client_of(choice: str) -> Client:
    """The client model of a choice, the same each time."""
    architecture = ClientArchitecture(
        settings_of(choice), CUTS[choice], num_classes=10, channels=3, image_size=_SIDES[choice]
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = architecture.build()
        for name, parameter in module.named_parameters():
            fan_in = parameter[0].numel() if parameter.dim() > 1 else 1
            parameter.data.normal_(std=(2 / fan_in) ** 0.5) if fan_in > 1 else parameter.data.zero_()
            if parameter.dim() == 1 and name.endswith("weight"):
                parameter.data.uniform_(0.5, 1.5)
        for each in module.modules():
            if isinstance(each, nn.BatchNorm2d):
                each.running_mean.normal_(std=0.1)  # type: ignore[union-attr, operator]
                each.running_var.uniform_(0.5, 2)  # type: ignore[union-attr, operator]
                each.num_batches_tracked.zero_()  # type: ignore[union-attr, operator]
        samples = torch.randn(64, 3, architecture.image_size, architecture.image_size)
    return Client(architecture, module.eval(), samples)
