"""Turns the client half of a split model into what devices run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from fedsplit.config.choices import file_of
from fedsplit.deployment import storage
from fedsplit.deployment.backends.backend import DeployedModel
from fedsplit.deployment.calibration import calibration_batches
from fedsplit.deployment.precisions import GROUP, Int8Backend, Precision
from fedsplit.errors import UserError
from fedsplit.files.whole import write_json
from fedsplit.inference.subject import Subject

_ON_A_BACKEND = {"int8": "static_int8", "qat_int8": "qat_int8"}
"""Names of int8 precisions on the default backend; on others the backend's name is added to them."""


def save(deployed: DeployedModel, precision: str, directory: Path) -> None:
    """Write a client half to a directory, and of which precision it is beside what it needs to be loaded."""
    deployed.save(directory)
    write_json(directory / storage.DESCRIPTION, storage.description(directory) | {"precision": precision})


def precision_of(directory: Path, key: str) -> str:
    """The precision of a client half that was saved; `UserError` where there is none."""
    try:
        found = storage.description(directory)
    except UserError as error:
        raise UserError(key, directory, error.allowed) from error
    if "precision" not in found:
        message = (
            "does not say its precision; give a folder that task=infer left behind, deployed/<precision>"
        )
        raise UserError(key, directory, message)
    return str(found["precision"])


@dataclass(frozen=True)
class Deploying:
    """Conversion of client halves; ranges are those of batches of clients' training images."""

    backend: Int8Backend
    batches: int
    batch_size: int
    seed: int

    def deployed_precision(self, name: str) -> Precision:
        """The deployed precision that one of split inference stands for."""
        if name not in _ON_A_BACKEND:
            return Precision.by_name(name)
        by_default = _ON_A_BACKEND[name]
        own = f"{by_default}_{self.backend}"
        return Precision.by_name(own if file_of(GROUP, own) else by_default)

    def convert(self, subject: Subject, precisions: Sequence[str]) -> dict[str, DeployedModel]:
        """Convert the client half to each precision; `UserError` where this model or machine lacks one."""
        backends = {
            name: self.deployed_precision(name).make_backend("precision", name) for name in precisions
        }
        calibrated = any(backend.calibrates for backend in backends.values())
        samples = self._samples(subject) if calibrated else []
        example = subject.data.batch(2)[0]
        converted = {}
        for name, backend in backends.items():
            backend.prepare(self.deployed_precision(name).model(subject.client, backend, name), example)
            if backend.calibrates:
                backend.calibrate(samples)
            converted[name] = backend.convert()
        return converted

    def _samples(self, subject: Subject) -> list[Tensor]:
        data = subject.data
        return calibration_batches(
            data.dataset.train,
            data.shards,
            batches=self.batches,
            batch_size=self.batch_size,
            seed=self.seed,
        )
