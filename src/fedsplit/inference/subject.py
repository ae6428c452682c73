"""Subject of split inference: a split model with its weights, and samples."""

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from fedsplit.building.client_model import ClientArchitecture
from fedsplit.building.data import Data, build_data
from fedsplit.building.models import build_models, build_whole_model, cut_name, refuse_tail
from fedsplit.building.trained_start import load_halves
from fedsplit.config.run_config import RunConfig
from fedsplit.data.samples import Samples
from fedsplit.errors import UserError
from fedsplit.estimators.estimator import GradientEstimator
from fedsplit.machine.allowance import claim_batch, claim_model
from fedsplit.recording.run_directory import RunDirectory
from fedsplit.transport.transport import Member


@dataclass(frozen=True)
class Batches:
    """Test samples, a batch a request; after the last comes the first again."""

    data: Data
    batch_size: int

    @property
    def samples(self) -> Samples:
        """All samples that batches are taken from."""
        return self.data.dataset.test

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        """Inputs `(batch_size, ...)` and labels of a request, counted from 0."""
        first = number * self.batch_size
        chosen = torch.arange(first, first + self.batch_size) % len(self.samples)
        return self.samples.inputs_at(chosen), self.samples.labels_at(chosen)


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
    """Data and architecture that a device needs, from a configuration that names the cut."""
    data = build_data(config, torch.device("cpu"), member=member, apart=True)
    claim_batch("batch_size", config.training.batch_size, prod(data.dataset.sizes.shape))
    claim_model("model", config.choice("model"), lambda: config.model.build(nn.Module, **data.sizes))
    cut = str(config.splitting.cut)
    return data, ClientArchitecture.of_run(config, cut, data.dataset.sizes)


def subject_of(config: RunConfig, client: int | None = None) -> Subject:
    """Subject of a configuration, with the weights of the run that it names, or as initialised.

    Args:
        config: of the command.
        client: whose model of the run, where clients have models of their own.

    Raises:
        UserError: it cannot be built, or the run left no model, or one that does not fit.
    """
    refuse_tail(config, "where the client model is deployed")
    cpu = torch.device("cpu")
    weights = {}
    if config.origin.run is not None:
        weights = RunDirectory.existing(config.origin.run, "run").trained(client)
    elif client is not None:
        raise UserError("task.client", client, "must be null without run=: it names a client of a run")
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
        architecture=ClientArchitecture.of_run(config, cut, data.dataset.sizes),
    )
