"""Trained run, put together again: its halves, and all that the run was made of."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from fedsplit.building.client_model import ClientArchitecture
from fedsplit.building.models import build_whole_model, cut_name, refuse_tail
from fedsplit.building.run import build_clients
from fedsplit.building.trained_start import load_halves
from fedsplit.computing.computation import outputs_at
from fedsplit.config.run_config import RunConfig
from fedsplit.files.paths import user_path
from fedsplit.machine.allowance import allowing_a_run_directory
from fedsplit.recording.run_directory import RunDirectory


class TrainedRun:
    """The trained model of a run.

    Args:
        path: path of the run's directory.
        device: device of the server model; the client model is on the CPU.
        threads: threads of this process.
        trust: True if the run's own classes may be called (see `RunDirectory.run_config`).
        client: number of the client whose model is taken, where clients have models of their own.

    Raises:
        UserError: there is no such run, or it left no model, or one that does not fit its configuration, or
            names code of its own without `trust`.
    """

    def __init__(
        self, path: Path, *, device: str, threads: int, trust: bool = False, client: int | None = None
    ) -> None:
        directory = RunDirectory.existing(path, "run")
        config = directory.run_config(trust=trust)
        config = replace(config, computation=replace(config.computation, device=device, threads=threads))
        refuse_tail(config, "in a run whose client model is deployed")
        weights = directory.trained_weights(client)
        with allowing_a_run_directory():
            self.path, self.parts = path, build_clients(config)
        halves = self.parts.models.halves
        self.client, self.server = halves.client.to("cpu").eval(), halves.server.eval()
        load_halves(weights, {"client": self.client, "server": self.server}, path)

    @classmethod
    def named_by(cls, config: RunConfig, client: int | None = None) -> Self:
        """Trained run that a command names by `run`, computed as the command asks for."""
        asked, origin = config.computation, config.origin
        path = user_path(origin.run or "", "run")
        return cls(path, device=asked.device, threads=asked.threads, trust=origin.trust, client=client)

    @property
    def config(self) -> RunConfig:
        """Configuration of the run, with what replaces parts of it here."""
        return self.parts.config

    @property
    def architecture(self) -> ClientArchitecture:
        """Recipe of the client model, where there is nothing of the run but that."""
        parts, config = self.parts, self.config
        cut = cut_name(config, *build_whole_model(config, parts.data, parts.device))
        return ClientArchitecture.of_run(config, cut, parts.data.dataset.sizes)

    @property
    def labels(self) -> Tensor:
        """Labels of the test samples, `(n,)`, on the CPU."""
        return self.parts.data.dataset.test.labels_at(slice(None)).cpu()

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of classes by label; numbers where classes have no names."""
        dataset = self.parts.data.dataset
        return dataset.class_names or tuple(map(str, range(dataset.num_classes)))

    @torch.inference_mode()
    def test_outputs(self, client: Callable[[Tensor], Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Outputs, of texts to continue at targets alone, and labels, batch by batch of the test samples.

        Args:
            client: client model, from inputs to smashed data, both on the CPU, float32.
        """
        dataset, size = self.parts.data.dataset, self.config.evaluation.eval_batch_size
        for start in range(0, len(dataset.test), size):
            dataset.test.prefetch(slice(start, start + 2 * size))
            piece = slice(start, start + size)
            x, y = dataset.test.inputs_at(piece).cpu(), dataset.test.labels_at(piece)
            z = client(x).to(self.parts.device)
            yield outputs_at(self.server, self.server, z, dataset.objective.targets(y)).cpu(), y.cpu()
