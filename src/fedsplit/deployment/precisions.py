"""The precisions that a client model can be deployed at: a file of `hydra_config/deployment` each."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, TypeAlias

import yaml
from torch import fx, nn

from fedsplit.config.choices import file_of, names_of
from fedsplit.config.component import Component
from fedsplit.deployment.backends.backend import Backend
from fedsplit.errors import UserError
from fedsplit.machine.extras import extra
from fedsplit.models.rounding.quantized_training import as_floats
from fedsplit.models.splitting.stubs import StubbedClient

GROUP = "deployment"
Int8Backend: TypeAlias = Literal["onnx", "openvino", "pt2e", "pt2e_compiled"]
"""Backends that can run int8, with scales from calibration or from training."""


@dataclass(frozen=True)
class Precision:
    """A way to deploy a client model.

    Args:
        runtime: name of the runtime, in words.
        backend: `_target_` and arguments of its `Backend`.
        format: format of the files on disk.
        reader: dotted path of the `Deployed` that reads this format.
        as_trained: True if its backend takes a model that rounds as it was trained to.
    """

    runtime: str
    backend: Mapping[str, object]
    format: str
    reader: str
    as_trained: bool = False

    @classmethod
    def by_name(cls, name: str) -> "Precision":
        """The precision of a name; `UserError` where there is none, or its file does not say what one is."""
        file = file_of(GROUP, name)
        if file is None:
            raise UserError("precision", name, f"must be one of {', '.join(names_of(GROUP))}")
        return _read(file)

    def make_backend(self, key: str, value: object) -> Backend:
        """A new backend, which `value` of `key` asked for; `UserError` where its extra is not installed."""
        with extra(key, value):
            return Component.of("backend", self.backend).build(Backend)

    def model(self, client: nn.Module, backend: Backend, name: str) -> nn.Module:
        """Form of a trained client model that a backend takes: of one that rounds, usually the ordinary one.

        Raises:
            UserError: the backend must trace the model, which cannot be; `name` is the precision's.
        """
        if isinstance(client, StubbedClient) and not backend.runs_any_code:
            message = "this client model's code cannot be traced: fp32, fp16, bf16, w4, w2 and w1 take it"
            raise UserError("precision", name, message)
        return as_floats(client) if isinstance(client, fx.GraphModule) and not self.as_trained else client


@cache
def _read(file: Path) -> Precision:
    try:
        return Precision(**yaml.safe_load(file.read_text("utf-8")))
    except (TypeError, ValueError, yaml.YAMLError) as error:
        raise UserError(GROUP, file.stem, "its file must hold runtime, backend, format and reader") from error


def readers() -> dict[str, str]:
    """Dotted paths of the classes that read deployed models, by format; no file says its own."""
    known = [Precision.by_name(name) for name in names_of(GROUP)]
    return {each.format: each.reader for each in known}
