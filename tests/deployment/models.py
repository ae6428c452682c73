"""Small client models, as split off untrained networks, with BatchNorm statistics as of trained ones.

What was made of them is kept for all tests of this folder; see `conftest.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, fx, nn

from fedsplit.building.client_model import ClientArchitecture
from fedsplit.config.component import component_of
from fedsplit.data.images import image_sizes
from fedsplit.deployment.backends.backend import DeployedModel
from fedsplit.deployment.backends.trained_int8 import TrainedInt8
from fedsplit.deployment.precisions import Int8Backend, Precision
from fedsplit.models.adapters.adapter import NoAdapter
from tests.models.test_int8_graph import SHAPE, trained
from tests.models.zoo import component_of_choice
from tests.quant.test_weight_grid import drawn


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


@cache
def client_of(choice: str) -> Client:
    """The client model of a choice, the same each time."""
    architecture = ClientArchitecture(
        component_of_choice(choice),
        component_of("adapter", NoAdapter),
        untie=False,
        cut=CUTS[choice],
        sizes=image_sizes(10, 3, _SIDES[choice]),
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
        samples = torch.randn(64, *architecture.sizes.shape)
    return Client(architecture, module.eval(), samples)


@cache
def deployed(choice: str, precision: str) -> DeployedModel:
    """The client model of a choice in a precision."""
    backend = Precision.by_name(precision).make_backend("task.precisions", precision)
    backend.prepare(client_of(choice).module, client_of(choice).samples[:2])
    if backend.calibrates:
        backend.calibrate(client_of(choice).calibration)
    return backend.convert()


@cache
def trained_client(model: Callable[[], nn.Module], cut: str) -> fx.GraphModule:
    """A client model that was trained for int8, of inputs as `trained_inputs` gives them."""
    return trained(model(), cut)


@cache
def deployed_as_trained(runtime: Int8Backend, model: Callable[[], nn.Module], cut: str) -> DeployedModel:
    """A client model that was trained for int8, on one of its runtimes."""
    backend = TrainedInt8(runtime)
    backend.prepare(trained_client(model, cut), trained_inputs()[:2])
    model_of_device = backend.convert()
    assert backend.unquantized == ()
    return model_of_device


def trained_inputs() -> Tensor:
    """Inputs of clients that were trained for int8."""
    return drawn(64, *SHAPE)


def forget_all() -> None:
    """Let go of what was made."""
    for made in (client_of, deployed, trained_client, deployed_as_trained):
        made.cache_clear()
