"""Victim of an attack: a run that has ended, its models cut anywhere, and images."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, Self, TypeAlias

import torch
from torch import Tensor, nn

from fedsplit.algorithms.algorithm import Algorithm
from fedsplit.building.algorithm import find_algorithm
from fedsplit.building.data import Data, build_data
from fedsplit.building.device import find_device
from fedsplit.building.models import build_models, build_whole_model, cut_name
from fedsplit.building.trained_start import TrainedStart
from fedsplit.computing.model_state import ModelState, compute_format
from fedsplit.config.component import Component
from fedsplit.config.run_config import RunConfig
from fedsplit.data.batches import batch_slices
from fedsplit.data.images import ImageDataset, Images
from fedsplit.errors import UserError
from fedsplit.estimators.estimator import GradientEstimator
from fedsplit.files.paths import user_path
from fedsplit.machine.allowance import allowing_a_run_directory
from fedsplit.randomness import generator, seed_of
from fedsplit.recording.run_directory import RunDirectory

Mode: TypeAlias = Literal["train", "eval"]


@dataclass(frozen=True)
class ImageBatch:
    """Images as a client sends them together.

    Args:
        x: inputs of the model, `(b, c, h, w)`.
        pixels: pixels from 0 to 1, of the same shape, before normalisation.
        y: labels, `(b,)`.
    """

    x: Tensor
    pixels: Tensor
    y: Tensor


class AttackedRun:
    """A run that has ended, read back from its directory.

    Args:
        path: path of the directory.
        asked: the command's configuration, which says where and how to compute.

    Raises:
        UserError: there is no such run, it left no model, or its samples are no images that are here.
    """

    def __init__(self, path: Path, asked: RunConfig) -> None:
        directory = RunDirectory.existing(path, "run")
        config = directory.run_config(trust=asked.origin.trust)
        device = find_device(asked.computation.device)
        computation = replace(config.computation, device=str(device), threads=asked.computation.threads)
        self.path, self.config, self.device = path, replace(config, computation=computation), device
        self.start = TrainedStart.of(str(path))
        self.seed = config.training.seed
        with allowing_a_run_directory():
            self.data: Data = build_data(self.config, device)
        if not isinstance(self.data.dataset, ImageDataset):
            raise UserError(
                "run", path, "must be a run on images: attacks on models of texts are not supported"
            )

    @classmethod
    def named_by(cls, asked: RunConfig) -> Self:
        """Attacked run that a command names by `run`."""
        return cls(user_path(asked.origin.run or "", "run"), asked)

    def with_transport(self, *, transport: Component) -> RunConfig:
        """Configuration of the run with another transport."""
        return replace(self.config, transport=transport)

    @property
    def dataset(self) -> ImageDataset:
        """Dataset of the run's images."""
        assert isinstance(self.data.dataset, ImageDataset)
        return self.data.dataset

    @cached_property
    def cut(self) -> str:
        """Name of the cut that it trained with."""
        return cut_name(self.config, *build_whole_model(self.config, self.data, self.device))

    def find_cut(self, cut: str | int) -> str:
        """The name of a cut that is given by name or number; the halves show whether it is one."""
        if isinstance(cut, str):
            return cut
        config = self.config.with_changes({"model.cut": cut})
        try:
            return cut_name(config, *build_whole_model(config, self.data, self.device))
        except UserError as error:
            raise UserError("task.cuts", cut, error.allowed) from error

    @cached_property
    def algorithm(self) -> type[Algorithm]:
        """Algorithm that the run trained with."""
        return find_algorithm(self.config)

    @property
    def uploads_smashed_data(self) -> bool:
        """True if clients of the run send smashed data at all."""
        return self.algorithm.client_head != "server"

    def targets(self, count: int) -> Tensor:
        """Indices of so many training images of the clients, drawn without replacement.

        Raises:
            UserError: the clients have fewer.
        """
        held: Tensor = torch.unique(torch.cat(list(self.data.shards)))
        if count > len(held):
            message = f"must be at most {len(held)}, the clients' training images"
            raise UserError("task.targets", count, message)
        order = torch.randperm(len(held), generator=generator(self.seed, "targets of attacks"))
        return held[order[:count]]

    def draw_known(self, count: int) -> Tensor:
        """Draw indices of so many test images without replacement; these images are the attacker's own.

        Raises:
            UserError: there are fewer.
        """
        there = len(self.dataset.test)
        if count > there:
            raise UserError("task.known", count, f"must be at most {there}, the test images")
        return torch.randperm(there, generator=generator(self.seed, "images of attackers"))[:count]

    @cached_property
    def peak(self) -> int:
        """The largest value of a pixel in the test images, which is 1 to measures: 255, of digits 16."""
        return max(1, *(int(pixels.max()) for pixels in self.dataset.test.survey()))

    def batches(self, images: Images, index: Tensor, mode: Mode, purpose: str) -> Iterator[ImageBatch]:
        """Batches of some images, as large as the run's; in `train` changed at random like training images.

        Args:
            images: images of a split.
            index: indices of the images.
            mode: mode of the client model that will see them.
            purpose: purpose of what is drawn.
        """
        augment = self.dataset.train.augmentation if mode == "train" and self.dataset.train.augments else None
        normalise = images.normalise
        assert normalise is not None
        for number, piece in enumerate(batch_slices(len(index), self.config.training.batch_size)):
            chosen = index[piece].to(images.index_device)
            pixels = images.pixels[chosen]
            if augment is not None:
                draw = generator(self.seed, f"augmentation, {purpose}", step=number)
                pixels = augment(pixels, augment.draw(len(pixels), draw))
            as_fractions = pixels.permute(0, 3, 1, 2).to(torch.get_default_dtype()) / self.peak
            yield ImageBatch(normalise(pixels), as_fractions.contiguous(), images.labels_at(chosen))

    def victim(self, cut: str, *, trained: bool) -> "Victim":
        """Model of the run cut somewhere, as it was trained or as it was initialised.

        Raises:
            UserError: it cannot be cut there.
        """
        config = self.config.with_changes(
            {"model.cut": cut, "model.tail_cut": None}
        )  # clients hold a tail, or not
        estimator = config.estimator.build(GradientEstimator)
        try:
            models = build_models(config, self.data, self.device, estimator, client_head="server")
        except UserError as error:
            if error.key != "model.cut":
                raise
            raise UserError("task.cuts", cut, error.allowed) from error
        if trained:
            assert self.start is not None
            self.start.load_into(models.halves, None)
        return Victim(
            run=self,
            cut=cut,
            trained=trained,
            client=models.halves.client,
            server=models.halves.server,
            smashed_shape=models.smashed_shape,
            coded_shape=models.coded_shape,
        )


@dataclass(frozen=True, eq=False)
class Victim:
    """The two halves of a model of a run.

    Args:
        cut: name of the cut.
        trained: True if the halves have the weights that the run left; else those that it began with.
        smashed_shape: shape of one sample.
        coded_shape: shape of one sample, with its channels.
    """

    run: AttackedRun
    cut: str
    trained: bool
    client: nn.Module
    server: nn.Module
    smashed_shape: tuple[int, ...]
    coded_shape: tuple[int, ...]

    @property
    def seed(self) -> int:
        """Seed of the attacked run."""
        return self.run.seed

    def smash(self, x: Tensor, mode: Mode, *, seed: int) -> Tensor:
        """Smashed data of a batch; the client model stays as it is.

        Args:
            seed: seed of what the model draws by itself (dropout), in `train`.
        """
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            if mode == "train":
                state = ModelState(self.client.train())
                return state.forward(x, seed=seed, buffers=state.frozen_buffers())
            z: Tensor = self.client.eval()(compute_format(x))
            return z

    def logits(self, z: Tensor) -> Tensor:
        """Logits of the server model for smashed data, in evaluation."""
        with torch.no_grad():
            logits: Tensor = self.server.eval()(compute_format(z))
            return logits

    def unflatten(self, z: Tensor) -> Tensor:
        """Smashed data `(n, ...)` with their channels, also where the client model flattened them."""
        return z.reshape(-1, *self.coded_shape)

    def dropout_seed(self, purpose: str, step: int) -> int:
        """Seed of what the client model draws by itself in one pass."""
        return seed_of(self.seed, f"dropout, {purpose}", step=step)
