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
from fedsplit.inference.codes import DeviceCodes
from fedsplit.machine.allowance import claim_batch, claim_model
from fedsplit.objectives.objective import Objective, Sums
from fedsplit.quant.positions import real_positions
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

    @property
    def objective(self) -> Objective:
        """Objective of the data, which tells lengths and right answers from labels."""
        return self.data.dataset.objective

    def codes(self, padding: float = 0.0) -> DeviceCodes:
        """The codes that smashed data travel as; see there for `padding`."""
        return DeviceCodes(self.objective.labels().context, padding)

    def answer_shape(self, labels: Tensor) -> tuple[int, int]:
        """Shape of the answer to a request: a row of logits for each sample, or each real position."""
        lengths, outputs = self.objective.lengths(labels), self.data.dataset.sizes.outputs
        every = torch.empty(*labels.shape, outputs, device="meta")
        of_positions = lengths is not None and self.objective.fits(every, labels)
        return (int(lengths.sum()) if of_positions and lengths is not None else len(labels)), outputs

    def measure(self, answer: Tensor, labels: Tensor) -> Sums:
        """Loss, hits and terms of an answer of the shape `answer_shape`."""
        lengths = self.objective.lengths(labels)
        if lengths is None or self.answer_shape(labels)[0] == len(labels):
            return self.objective.measure(answer, labels)
        logits = answer.new_zeros(*labels.shape, answer.shape[1])
        logits[real_positions(lengths, labels.shape[1])] = answer
        return self.objective.measure(logits, labels)


@dataclass(frozen=True)
class Subject:
    """A split model to be deployed, and its data.

    Args:
        client: the client model, in evaluation mode, on the CPU.
        server: the server model, likewise.
        smashed_shape: shape of one sample; for texts, of one with as many positions as any.
        architecture: architecture of the client model on devices.
        padding: value of smashed data behind the end of a text.
    """

    data: Data
    client: nn.Module
    server: nn.Module
    cut: str
    smashed_shape: tuple[int, ...]
    architecture: ClientArchitecture
    padding: float = 0.0


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
        config: configuration of the command.
        client: number of the client whose model is taken, where clients have models of their own.

    Raises:
        UserError: it cannot be built, or the run left no model, or one that does not fit.
    """
    refuse_tail(config, "where the client model is deployed")
    cpu = torch.device("cpu")
    weights = {}
    if config.origin.run is not None:
        weights = RunDirectory.existing(config.origin.run, "run").trained_weights(client)
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
        padding=models.halves.padding,
        architecture=ClientArchitecture.of_run(config, cut, data.dataset.sizes),
    )
