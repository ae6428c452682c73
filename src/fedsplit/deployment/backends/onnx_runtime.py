"""ONNX Runtime as a backend: float32; int8 with ranges taken in each run; int8 with ranges of calibration."""

import tempfile
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import onnx
from onnxruntime import quantization
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType
from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import Tensor, nn
from typing_extensions import override

from fedsplit.deployment.backends.backend import Backend, DeployedModel
from fedsplit.deployment.backends.exporting import quietly
from fedsplit.deployment.backends.onnx_file import OnnxFile
from fedsplit.deployment.backends.onnx_graph import INPUT, WEIGHTED, export_onnx, float_operators
from fedsplit.deployment.backends.onnx_session import OnnxSession
from fedsplit.deployment.calibration import check_batches
from fedsplit.errors import UserError

_QUANTIZABLE = frozenset({*QDQRegistry, *QLinearOpsRegistry})


class OnnxFloat(Backend):
    """Float32: what ONNX Runtime gains by itself."""

    runs: ClassVar[type[OnnxFile]] = OnnxSession
    """Type of the file on disk, which runs the graph."""

    @override
    def prepare(self, module: nn.Module, example: Tensor) -> None:
        self._example = example
        self._model = export_onnx(module, example)

    @override
    def convert(self) -> DeployedModel:
        return self.runs.of(self._model)


class _Int8Backend(OnnxFloat):
    """Int8 in some way, which `quantize` is."""

    @override
    def convert(self) -> DeployedModel:
        with tempfile.TemporaryDirectory() as folder, quietly():
            plain, before, after = (Path(folder, f"{name}.onnx") for name in ("plain", "before", "after"))
            onnx.save(self._model, plain)
            quant_pre_process(plain, before, skip_symbolic_shape=True)
            floats = float_operators(onnx.load(before).graph, _QUANTIZABLE)
            self.quantize(before, after)
            model = onnx.load(after)
        left = float_operators(model.graph, _QUANTIZABLE)
        if sum(left[each] for each in WEIGHTED) == sum(floats[each] for each in WEIGHTED):
            raise UserError("model", ", ".join(floats), "ONNX Runtime can quantize none of these operators")
        self.unquantized = tuple(sorted(left.keys() & floats.keys()))
        return self.runs.of(model)

    @abstractmethod
    def quantize(self, before: Path, after: Path) -> None:
        """Read a file and write another."""


class OnnxDynamic(_Int8Backend):
    """Weights int8; activations are quantized as they come, by the range of each batch. Nothing to calibrate.

    Products are of whole numbers; all else, and what goes from one operator to the next, is float32.
    """

    @override
    def quantize(self, before: Path, after: Path) -> None:
        # uint8: ONNX Runtime has no convolution with signed weights and ranges of each batch
        quantization.quantize_dynamic(before, after, weight_type=QuantType.QUInt8)


class OnnxStatic(_Int8Backend):
    """Weights int8, a scale a channel, and activations uint8, a scale and a zero point a tensor.

    The pairs of quantization and dequantization in the file (QDQ) are merged with the operators between
    them when it is loaded: whole numbers go from one operator to the next, and are the smashed data.
    """

    calibrates = True

    @override
    def calibrate(self, batches: Sequence[Tensor]) -> None:
        """Keep the batches, whose smallest and largest values are the ranges."""
        check_batches(batches, self._example)
        self._batches = batches

    @override
    def quantize(self, before: Path, after: Path) -> None:
        quantization.quantize_static(
            before,
            after,
            _Reader(self._batches),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,  # signed ones take another, slower way through the processor
            weight_type=QuantType.QInt8,
            # Biases as whole numbers would take three numbers a channel in the file and not one: a scale and
            # a zero point each. ONNX Runtime makes them as it loads the file.
            extra_options={"QuantizeBias": False},
        )


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, batches: Sequence[Tensor]) -> None:
        self._left = iter(batches)

    def get_next(self) -> dict[str, object] | None:
        batch = next(self._left, None)
        return None if batch is None else {INPUT: batch.contiguous().numpy()}
