"""Client models in floating-point numbers: as they were trained, or cast to 16 bits."""

import copy
from pathlib import Path
from typing import Literal, Self

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from typing_extensions import override

from fedsplit.computing.model_state import compute_format
from fedsplit.deployment import storage
from fedsplit.deployment.backends.backend import Backend, Build, DeployedModel, SmashedData

_FILE = "client.safetensors"
_TYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class Floats(DeployedModel):
    """A module in evaluation mode, taken over, of 32 or 16 bits, run by torch operation by operation."""

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.module = module.to(dtype).to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]

    @torch.inference_mode()
    @override
    def run_quantized(self, x: Tensor) -> SmashedData:
        return SmashedData(self.module(compute_format(x.to(self.dtype) if x.is_floating_point() else x)))

    @override
    def save(self, directory: Path) -> None:
        storage.describe(directory, "floats", {"dtype": str(self.dtype).removeprefix("torch.")})
        state = {name: tensor.contiguous() for name, tensor in self.module.state_dict().items()}
        save_file(state, directory / _FILE)

    @classmethod
    @override
    def load(cls, directory: Path, build: Build) -> Self:
        loaded = cls(build(), _TYPES[storage.description(directory)["dtype"]])
        loaded.module.load_state_dict(load_file(directory / _FILE))
        return loaded


class FloatBackend(Backend):
    """Casts to 16 bits, or leaves 32. On a processor without units for 16 it gets smaller, not faster."""

    runs_any_code = True

    def __init__(self, dtype: Literal["float32", "float16", "bfloat16"]) -> None:
        self._dtype = _TYPES[dtype]

    @override
    def prepare(self, module: nn.Module, example: Tensor) -> None:
        self._module = copy.deepcopy(module)

    @override
    def convert(self) -> DeployedModel:
        return Floats(self._module, self._dtype)
