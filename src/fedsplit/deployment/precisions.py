"""The precisions that a client model can be deployed at, by name, and the backend of each."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal, TypeAlias

from torch import fx, nn

from fedsplit.deployment.backends.backend import Backend
from fedsplit.machine.extras import extra
from fedsplit.models.rounding.quantized_training import as_floats

PrecisionName: TypeAlias = Literal[
    "fp32",
    "fp16",
    "bf16",
    "dynamic_int8",
    "static_int8",
    "qat_int8",
    "w4",
    "w2",
    "w1",
    "fp32_onnx",
    "dynamic_int8_torch",
    "static_int8_pt2e",
    "static_int8_pt2e_compiled",
    "static_int8_openvino",
    "qat_int8_pt2e",
    "qat_int8_pt2e_compiled",
    "qat_int8_openvino",
]

Int8Backend: TypeAlias = Literal["onnx", "openvino", "pt2e", "pt2e_compiled"]
"""What can run int8, be its scales those of calibration or of training."""


@dataclass(frozen=True)
class Precision:
    """A way to deploy a client model.

    Args:
        runtime: what runs it, in words.
        module: of `fedsplit.deployment`, where its backend is.
        backend: name of the class.
        arguments: of its constructor.
        as_trained: whether its backend takes a model that rounds as it was trained to.
    """

    runtime: str
    module: str
    backend: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    as_trained: bool = False

    def make(self, key: str, value: object) -> Backend:
        """A new backend; `key` and `value` are what asked for it.

        Raises:
            UserError: it needs an extra that is not installed.
        """
        with extra(key, value):
            module = import_module(f"fedsplit.deployment.backends.{self.module}")
            made: Backend = getattr(module, self.backend)(**self.arguments)
        return made

    def model(self, client: nn.Module) -> nn.Module:
        """What its backend takes of a trained client model: of one that rounds, usually the ordinary one."""
        return as_floats(client) if isinstance(client, fx.GraphModule) and not self.as_trained else client


def _qat(told: str, runtime: Int8Backend) -> Precision:
    return Precision(told, "trained_int8", "TrainedInt8", {"runtime": runtime}, as_trained=True)


PRECISIONS: Mapping[str, Precision] = {
    "fp32": Precision("torch", "floats", "FloatBackend", {"dtype": "float32"}),
    "fp16": Precision("torch", "floats", "FloatBackend", {"dtype": "float16"}),
    "bf16": Precision("torch", "floats", "FloatBackend", {"dtype": "bfloat16"}),
    "dynamic_int8": Precision("ONNX Runtime", "onnx_runtime", "OnnxDynamic"),
    "static_int8": Precision("ONNX Runtime", "onnx_runtime", "OnnxStatic"),
    "qat_int8": _qat("ONNX Runtime", "onnx"),
    "w4": Precision("torch", "weight_only", "WeightOnly", {"bits": 4}),
    "w2": Precision("torch", "weight_only", "WeightOnly", {"bits": 2}),
    "w1": Precision("torch", "weight_only", "WeightOnly", {"bits": 1}),
    "fp32_onnx": Precision("ONNX Runtime", "onnx_runtime", "OnnxFloat"),
    "dynamic_int8_torch": Precision("quantize_dynamic", "quantize_dynamic", "QuantizeDynamic"),
    "static_int8_pt2e": Precision("PT2E", "pt2e", "Pt2eStatic", {"compiled": False}),
    "static_int8_pt2e_compiled": Precision("PT2E, compiled", "pt2e", "Pt2eStatic", {"compiled": True}),
    "static_int8_openvino": Precision("OpenVINO", "openvino_runtime", "OpenVinoStatic"),
    "qat_int8_pt2e": _qat("PT2E", "pt2e"),
    "qat_int8_pt2e_compiled": _qat("PT2E, compiled", "pt2e_compiled"),
    "qat_int8_openvino": _qat("OpenVINO", "openvino"),
}
"""Of these `qat_int8` and those whose names begin with it are only for a model that was trained for it."""
