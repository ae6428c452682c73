"""What split inference is about: a split model with its weights, and images."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedsplit.building.client_model import ClientArchitecture
from fedsplit.building.data import Data, build_data
from fedsplit.building.models import build_models, build_whole_model, cut_name
from fedsplit.building.trained_start import load_halves
from fedsplit.config.run_config import RunConfig
from fedsplit.data.dataset import Images
from fedsplit.estimators.estimator import GradientEstimator
from fedsplit.machine.allowance import claim_batch, claim_model
from fedsplit.recording.run_directory import RunDirectory
from fedsplit.transport.transport import Member


@dataclass(frozen=True)
class Batches:
    """Test images, a batch a request; after the last image comes the first again."""

    data: Data
    batch_size: int

    @property
    def images(self) -> Images:
        """All of them."""
        return self.data.dataset.test

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        """Inputs `(batch_size, c, h, w)`, float32, and labels of a request, counted from 0."""
        first = number * self.batch_size
        chosen = torch.arange(first, first + self.batch_size) % len(self.images)
        return self.data.normalise(self.images.pixels[chosen]), self.images.labels[chosen]


@dataclass(frozen=True)
class Subject:
    """A split model to be deployed, and its data.

    Args:
        client: the client model, in evaluation mode, on the CPU.
        server: the server model, likewise.
        smashed_shape: of one sample.
        architecture: what a device makes the client model from.
    """

    data: Data
    client: nn.Module
    server: nn.Module
    cut: str
    smashed_shape: tuple[int, ...]
    architecture: ClientArchitecture


def device_part(config: RunConfig, member: Member) -> tuple[Data, ClientArchitecture]:
    """What a device needs, by a configuration that names the cut: images, and what its half is made from."""
    data = build_data(config, torch.device("cpu"), member=member, apart=True)
    values = data.dataset.image_size**2 * data.dataset.channels
    claim_batch("batch_size", config.training.batch_size, values)
    claim_model("model", config.choice("model"), lambda: config.model.build(nn.Module, **data.sizes))
    cut = str(config.splitting.cut)
    return data, ClientArchitecture(config.model, config.splitting.untie, cut, **data.sizes)


def subject_of(config: RunConfig) -> Subject:
    """What a configuration is about, with the weights of the run that it names, or as initialised.

    Raises:
        UserError: it cannot be built, or the run left no model, or one that does not fit.
    """
    cpu = torch.device("cpu")
    weights = {}
    if config.origin.run is not None:
        directory = RunDirectory.existing(config.origin.run, "run")
        weights = {half: directory.model(half) for half in ("client", "server")}
    data = build_data(config, cpu)
    estimator = config.estimator.build(GradientEstimator)
    cut = cut_name(config, *build_whole_model(config, data, cpu))
    models = build_models(config, data, cpu, estimator, client_head="server")  # no auxiliary model
    halves = {"client": models.halves.client.eval(), "server": models.halves.server.eval()}
    load_halves(weights, halves, config.origin.run)
    return Subject(
        data=data,
        client=halves["client"],
        server=halves["server"],
        cut=cut,
        smashed_shape=models.smashed_shape,
        architecture=ClientArchitecture(config.model, config.splitting.untie, cut, **data.sizes),
    )
