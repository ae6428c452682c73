"""Client models with weights of a few bits, packed; they run in float32."""

import copy
from pathlib import Path
from typing import Literal, Self

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from typing_extensions import override

from fedsplit.deployment import storage
from fedsplit.deployment.backends.backend import Backend, Build, DeployedModel, SmashedData
from fedsplit.deployment.backends.floats import Floats
from fedsplit.errors import UserError
from fedsplit.quant.bit_packing import to_bytes
from fedsplit.quant.codecs.affine_rows import AffineRows
from fedsplit.state.weights import Weights

_FILE = "client.safetensors"


def rows_of(bits: int) -> AffineRows:
    """Quantize each row of weights, those of one output: symmetric, with the scale of the least error."""
    return AffineRows(bits, range="mse")


def is_packed(name: str, weight: Tensor) -> bool:
    """True if a tensor of a state dict is packed: matrices and filters are, vectors and counters are not."""
    return name.rpartition(".")[2] == "weight" and weight.dim() >= 2 and weight.is_floating_point()


class PackedWeights(DeployedModel):
    """A module whose weights were packed; they are unpacked when it is loaded.

    Args:
        module: float32; takes the weights over.
        packed: the state dict, with codes and scales, uint8 `(bytes,)`, in the place of what is packed.
    """

    def __init__(self, module: nn.Module, packed: Weights, bits: int) -> None:
        self._packed, self._bits = packed, bits
        rows = rows_of(bits)
        state = {}
        for name, own in module.state_dict().items():
            state[name] = packed[name]
            if is_packed(name, own):
                form = rows.unpack(to_bytes(packed[name]), len(own), own[0].numel(), own.numel())
                state[name] = rows.dequantize(form).view(own.shape)
        module.load_state_dict(state)
        self._floats = Floats(module, torch.float32)

    @override
    def run_quantized(self, x: Tensor) -> SmashedData:
        return self._floats.run_quantized(x)

    @override
    def save(self, directory: Path) -> None:
        storage.describe(directory, "packed_weights", {"bits": self._bits})
        save_file(self._packed, directory / _FILE)

    @classmethod
    @override
    def load(cls, directory: Path, build: Build) -> Self:
        return cls(build(), load_file(directory / _FILE), storage.description(directory)["bits"])


class WeightOnly(Backend):
    """Weights of a few bits, a scale a row: a smaller file, which costs accuracy and runs no faster."""

    runs_any_code = True

    def __init__(self, bits: Literal[1, 2, 4, 8]) -> None:
        self._bits = bits

    @override
    def prepare(self, module: nn.Module, example: Tensor) -> None:
        self._module = copy.deepcopy(module)
        state = module.state_dict()
        if not any(is_packed(name, each) for name, each in state.items()):
            raise UserError("model", type(module).__name__, "has no matrices or filters to pack")

    @override
    def convert(self) -> DeployedModel:
        rows = rows_of(self._bits)
        packed = {}
        for name, weight in self._module.state_dict().items():
            packed[name] = weight.detach().contiguous().clone()
            if is_packed(name, weight):
                matrix = packed[name].flatten(1)
                content = rows.pack(rows.quantize(matrix, seed=0), matrix.numel())
                packed[name] = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        return PackedWeights(self._module, packed, self._bits)
