"""`quantize_dynamic` of torch, for as long as torch has it: linear layers in int8, all else in float32.

Torch keeps the weights of a quantized layer in an object of its own. Here they are saved as codes and a
scale, and put back into a fresh model that is quantized the same way.
"""

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, fx, nn
from typing_extensions import override

from fedsplit.deployment import storage
from fedsplit.deployment.backends.backend import Backend, Build, DeployedModel, SmashedData
from fedsplit.errors import UserError

_FILE = "client.safetensors"


class DynamicallyQuantized(DeployedModel):
    """A module whose linear layers are quantized."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module

    @torch.inference_mode()
    @override
    def run_quantized(self, x: Tensor) -> SmashedData:
        return SmashedData(self._module(x))

    @override
    def save(self, directory: Path) -> None:
        """Save codes, scales and what is not quantized, as safetensors."""
        storage.describe(directory, "quantize_dynamic")
        tensors = {name: value.contiguous() for name, value in _plain_state(self._module).items()}
        for name, layer in _quantized_layers(self._module).items():
            weight, bias = layer.weight(), layer.bias()
            tensors[f"{name}/codes"] = weight.int_repr().contiguous()
            tensors[f"{name}/scale"] = torch.tensor(weight.q_scale(), dtype=torch.float64)
            if bias is not None:
                tensors[f"{name}/bias"] = bias.detach().contiguous()
        save_file(tensors, directory / _FILE)

    @classmethod
    @override
    def load(cls, directory: Path, build: Build) -> Self:
        """Quantize a fresh model the same way, and load the saved numbers into it."""
        model, tensors = build().eval(), load_file(directory / _FILE)
        for value in model.state_dict().values():
            value.zero_()  # ranges of whatever is there need not be finite
        module = _quantize(model)
        state = module.state_dict()  # with the versions of its modules, which they read it by
        state |= {name: tensors[name] for name in _plain_state(module)}
        with _without_deprecations():
            module.load_state_dict(state)
        for name, layer in _quantized_layers(module).items():
            codes, scale = tensors[f"{name}/codes"], float(tensors[f"{name}/scale"])
            if codes.shape != layer.weight().shape:
                raise ValueError(f"{name} has weights of another shape")
            weight = torch._make_per_tensor_quantized_tensor(codes, scale, 0)  # always symmetric
            layer.set_weight_bias(weight, None if layer.bias() is None else tensors[f"{name}/bias"])
        return cls(module)


class QuantizeDynamic(Backend):
    """Weights of linear layers int8, their inputs by the range of each batch; all else stays float32."""

    @override
    def prepare(self, module: nn.Module, example: Tensor) -> None:
        self._module = copy.deepcopy(module).eval()

    @override
    def convert(self) -> DeployedModel:
        module = _quantize(self._module)
        self.unquantized = tuple(
            sorted({type(part).__name__ for part in module.modules() if _has_weights(part)})
        )
        if not _quantized_layers(module):
            kinds = ", ".join(self.unquantized) or type(module).__name__
            raise UserError("model", kinds, "quantize_dynamic of torch can quantize none of these")
        return DynamicallyQuantized(module)


def _quantize(module: nn.Module) -> nn.Module:
    with _without_deprecations():
        try:
            from torch.ao import quantization  # noqa: PLC0415  (announced to go)

            quantize: Any = quantization.quantize_dynamic
        except (ImportError, AttributeError) as error:
            message = f"this torch, {torch.__version__}, no longer has quantize_dynamic"
            raise UserError("task.precisions", "dynamic_int8_torch", message) from error
        made: nn.Module = quantize(module, {nn.Linear}, dtype=torch.qint8)
    return made


def _quantized_layers(module: nn.Module) -> dict[str, Any]:
    """Quantized layers, by name: their weights are behind a method."""
    return {name: each for name, each in module.named_modules() if callable(getattr(each, "weight", None))}


def _plain_state(module: nn.Module) -> dict[str, Tensor]:
    """State dict without quantized weights, which are in tuples, and without types."""
    return {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}


def _has_weights(module: nn.Module) -> bool:
    return not isinstance(module, fx.GraphModule) and any(True for _ in module.parameters(recurse=False))


@contextmanager
def _without_deprecations() -> Iterator[None]:
    """Torch announces the end of these ways each time they are used."""
    with warnings.catch_warnings():
        for kind in (DeprecationWarning, FutureWarning, UserWarning):
            warnings.simplefilter("ignore", kind)
        yield
