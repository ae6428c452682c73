"""Torch's older ways to int8, FX graph mode and `quantize_dynamic`, for as long as torch has them.

Both swap modules for quantized ones, whose weights torch keeps in tensors and tuples of its own. Here they
are saved as codes and scales, and put back into modules that are swapped anew.
"""

import copy
import importlib
import warnings
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, fx, nn

from fedsplit.deployment import storage
from fedsplit.deployment.backends.backend import Backend, Build, Deployed, SmashedData
from fedsplit.deployment.calibration import check_batches
from fedsplit.errors import UserError
from fedsplit.state.weights import Weights

_FILE = "client.safetensors"
_MOST_VALUES = 2**24
"""Of the example that a model is prepared with."""


class TorchQuantized(Deployed):
    """A module with quantized parts.

    Args:
        module: made by one of the backends below.
        way: which one, by name.
        example_shape: of inputs.
    """

    def __init__(self, module: nn.Module, way: str, example_shape: Sequence[int]) -> None:
        self._module, self._way, self._example_shape = module, way, list(example_shape)

    @torch.inference_mode()
    def run_quantized(self, x: Tensor) -> SmashedData:
        """See `Deployed.run_quantized`."""
        with _without_deprecations():
            z = self._module(x)
        if not z.is_quantized:
            return SmashedData(z)
        return SmashedData(z.int_repr(), z.q_scale(), z.q_zero_point())

    def save(self, directory: Path) -> None:
        """See `Deployed.save`: codes, scales and what is not quantized, as safetensors."""
        storage.describe(
            directory, "torch_quantized", {"way": self._way, "example_shape": self._example_shape}
        )
        plain: Weights = {}
        for name, value in self._module.state_dict().items():
            plain |= _plain(name, value)
        save_file(plain, directory / _FILE)

    @classmethod
    def load(cls, directory: Path, build: Build) -> Self:
        """See `Deployed.load`: a fresh model is quantized the same way, and takes over the numbers."""
        told = storage.description(directory)
        shape = told["example_shape"]
        if not 0 < prod(shape) <= _MOST_VALUES:
            raise ValueError(f"an example of shape {shape}")
        backend, example, model = _WAYS[told["way"]](), torch.zeros(shape), build()
        for tensor in model.state_dict().values():
            tensor.zero_()  # ranges of whatever is there need not be finite
        backend.prepare(model, example)
        backend.calibrate([example])
        module, plain = backend.swapped(), load_file(directory / _FILE)
        state = module.state_dict()  # with the versions of its modules, which they read it by
        for name, value in state.items():
            state[name] = _restored(name, value, plain)
        with _without_deprecations():
            module.load_state_dict(state)
        return cls(module, told["way"], told["example_shape"])


def _plain(name: str, value: Any) -> Weights:
    """What a state dict holds under a name, as tensors that any file can hold."""
    if isinstance(value, tuple):
        return {
            key: each for i, part in enumerate(value) for key, each in _plain(f"{name}/{i}", part).items()
        }
    if not isinstance(value, Tensor):
        return {}  # a type, or a bias that is not there: as in any model made the same way
    if not value.is_quantized:
        return {name: value.detach().contiguous()}
    if value.qscheme() == torch.per_tensor_affine:
        scales, zeros = (
            torch.tensor([value.q_scale()], dtype=torch.float64),
            torch.tensor([value.q_zero_point()]),
        )
    else:
        scales, zeros = value.q_per_channel_scales(), value.q_per_channel_zero_points()
    return {
        f"{name}/codes": value.int_repr().contiguous(),
        f"{name}/scales": scales.double(),  # torch computes with all their digits
        f"{name}/zeros": zeros.to(torch.int8),
    }


def _restored(name: str, like: Any, plain: Weights) -> Any:
    """What `_plain` came from; `like` has its form, with other numbers."""
    if isinstance(like, tuple):
        return tuple(_restored(f"{name}/{i}", part, plain) for i, part in enumerate(like))
    if not isinstance(like, Tensor):
        return like
    if not like.is_quantized:
        return plain[name]
    codes, scales, zeros = (plain[f"{name}/{part}"] for part in ("codes", "scales", "zeros"))
    if like.qscheme() == torch.per_tensor_affine:
        return torch._make_per_tensor_quantized_tensor(codes, float(scales), int(zeros))
    axis = like.q_per_channel_axis()
    return torch._make_per_channel_quantized_tensor(codes, scales, zeros.long(), axis)


class _Swapping(Backend):
    """A backend of `torch.ao.quantization`."""

    way: str

    def prepare(self, module: nn.Module, example: Tensor) -> None:
        """See `Backend.prepare`."""
        self._module, self._example = copy.deepcopy(module).eval(), example

    @abstractmethod
    def swapped(self) -> nn.Module:
        """The module with quantized parts."""

    def convert(self) -> Deployed:
        """See `Backend.convert`.

        Raises:
            UserError: nothing of it could be quantized.
        """
        module = self.swapped()
        parts = [each for each in module.modules() if isinstance(each, nn.Module)]
        if not any(".quantized" in type(each).__module__ for each in parts):
            kinds = sorted({type(each).__name__ for each in parts if _has_weights(each)})
            told = f"{self.way} of torch can quantize none of these"
            raise UserError("model", ", ".join(kinds) or type(module).__name__, told)
        self._unquantized = tuple(sorted({type(each).__name__ for each in parts if _has_weights(each)}))
        return TorchQuantized(module, self.way, self._example.shape)

    @property
    def unquantized(self) -> tuple[str, ...]:
        """See `Backend.unquantized`: modules with weights."""
        return self._unquantized


class FxGraphMode(_Swapping):
    """Weights int8, a scale a channel; activations uint8, by ranges of calibration."""

    way = "fx_graph_mode"
    calibrates = True

    def prepare(self, module: nn.Module, example: Tensor) -> None:
        """See `Backend.prepare`."""
        super().prepare(module, example)
        mapping = _of_torch("torch.ao.quantization").get_default_qconfig_mapping("x86")
        with _without_deprecations():
            prepare_fx = _of_torch("torch.ao.quantization.quantize_fx").prepare_fx
            self._prepared = prepare_fx(self._module, mapping, (example,))

    @torch.no_grad()
    def calibrate(self, batches: Sequence[Tensor]) -> None:
        """See `Backend.calibrate`."""
        check_batches(batches, self._example)
        for batch in batches:
            self._prepared(batch)

    def swapped(self) -> nn.Module:
        """See `_Swapping.swapped`."""
        with _without_deprecations():
            module: fx.GraphModule = _of_torch("torch.ao.quantization.quantize_fx").convert_fx(self._prepared)
        _end_quantized(module)
        return module


class QuantizeDynamic(_Swapping):
    """Weights of linear layers int8, their inputs by the range of each batch; all else stays float32."""

    way = "quantize_dynamic"

    def swapped(self) -> nn.Module:
        """See `_Swapping.swapped`."""
        with _without_deprecations():
            quantize: Any = _of_torch("torch.ao.quantization").quantize_dynamic
            module: nn.Module = quantize(self._module, {nn.Linear}, dtype=torch.qint8)
        return module


_WAYS: dict[str, type[_Swapping]] = {way.way: way for way in (FxGraphMode, QuantizeDynamic)}


def _of_torch(name: str) -> ModuleType:
    try:
        with _without_deprecations():
            return importlib.import_module(name)
    except ImportError as error:
        told = f"this torch, {torch.__version__}, no longer has it"
        raise UserError("task.precisions", name, told) from error


@contextmanager
def _without_deprecations() -> Iterator[None]:
    """Torch announces the end of these ways each time they are used."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", UserWarning)
        yield


def _has_weights(module: nn.Module) -> bool:
    own = ".quantized" not in type(module).__module__ and not isinstance(module, fx.GraphModule)
    return own and any(True for _ in module.parameters(recurse=False))


def _end_quantized(module: fx.GraphModule) -> None:
    """Let a graph put out the quantized tensor that it would decode last, be it before it is flattened."""
    output = module.graph.output_node()
    (node,) = output.all_input_nodes
    after = output
    while _flattens(module, node) and len(node.users) == 1:
        after, node = node, node.all_input_nodes[0]
    if (node.op, node.target) == ("call_method", "dequantize") and len(node.users) == 1:
        after.replace_input_with(node, node.all_input_nodes[0])
        module.graph.erase_node(node)
        module.recompile()


def _flattens(module: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        return isinstance(module.get_submodule(str(node.target)), nn.Flatten)
    return node.target is torch.flatten
