"""Backends, which turn a trained client model into a deployed one, and what a device can do with that."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeAlias

import torch
from torch import Tensor, nn

Build: TypeAlias = Callable[[], nn.Module]
"""Function that builds the client model of a run's configuration in float32, with weights of any value."""


@dataclass(frozen=True)
class SmashedData:
    """The output of a client model as it leaves the device.

    Args:
        values: `(n, ...)`; floating-point numbers, or codes of 8 bits (int8 or uint8).
        scale: scale of codes, one for all; None where values are no codes.
    """

    values: Tensor
    scale: float | None = None
    zero_point: int = 0

    @property
    def size(self) -> int:
        """Bytes of the values, without the scale and the zero point."""
        return self.values.numel() * self.values.element_size()

    def decode(self) -> Tensor:
        """The values, float32: of codes, `(code - zero_point) * scale`."""
        values = self.values.to(torch.float32)
        return values if self.scale is None else (values - self.zero_point) * self.scale


class DeployedModel(ABC):
    """A client model that can run, be saved and be loaded.

    Saved and loaded in another process, it gives the same bits. Nothing that is loaded is unpickled.
    """

    @abstractmethod
    def run_quantized(self, x: Tensor) -> SmashedData:
        """The smashed data of inputs `x (n, c, h, w)`, float32, in the type that the model computes them in.

        Where its last operation gives codes, these are they: they can be sent as they are.

        Raises:
            UserError: it does not fit these inputs, or cannot be compiled here; says why.
        """

    def run(self, x: Tensor) -> Tensor:
        """The smashed data of inputs `x (n, c, h, w)`, float32: what `run_quantized` gives, decoded."""
        return self.run_quantized(x).decode()

    @abstractmethod
    def save(self, directory: Path) -> None:
        """Write the model's file, and `deployment.json` beside it, to a directory, which is made.

        `fedsplit.deployment.storage` reads any of them back, and tells the file's size.
        """

    @classmethod
    @abstractmethod
    def load(cls, directory: Path, build: Build) -> Self:
        """Deployed model that was saved in a directory.

        Args:
            build: makes the module that the weights belong to; called only where the files hold weights
                and no operations.

        Raises:
            UserError: the files are damaged.
        """


class Backend(ABC):
    """One way to quantize: `prepare`, then `calibrate` where `calibrates`, then `convert`.

    A backend is used once, for one model. The model it is given is left alone.
    """

    calibrates = False
    """True if `calibrate` must be called with samples before `convert`."""
    runs_any_code = False
    """True if it also quantizes models that cannot be traced."""
    unquantized: tuple[str, ...] = ()
    """Kinds of operations that stay in float32 after `convert`; empty if all are quantized."""

    @abstractmethod
    def prepare(self, module: nn.Module, example: Tensor) -> None:
        """Take a trained client model.

        Args:
            module: float32, on the CPU; made by `fedsplit.models.splitting.split`.
            example: inputs `(n, c, h, w)`, two or more; the converted model takes any number.

        Raises:
            UserError: it cannot quantize this model, or needs what is not installed; says what.
        """

    def calibrate(self, batches: Sequence[Tensor]) -> None:  # noqa: B027  (some have no use for samples)
        """Take the ranges of activations from samples.

        Args:
            batches: inputs `(n, c, h, w)`, not normalised further; see `fedsplit.deployment.calibration`.

        Raises:
            UserError: they have another shape than the model's inputs.
        """

    @abstractmethod
    def convert(self) -> DeployedModel:
        """The model as a device runs it.

        Raises:
            UserError: none of its operations can be quantized.
        """
