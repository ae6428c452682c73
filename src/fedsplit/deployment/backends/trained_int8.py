"""Client models that were trained for int8, with the very scales that they trained with."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeAlias

from torch import Tensor, fx, nn
from typing_extensions import override

from fedsplit.deployment.backends.backend import Backend, DeployedModel
from fedsplit.deployment.precisions import Int8Backend
from fedsplit.errors import UserError
from fedsplit.models.rounding.fake_quantization import FakeQuantizedActivations
from fedsplit.models.rounding.int8_graph import int8_graph

Deploy: TypeAlias = Callable[[nn.Module, Tensor], DeployedModel]
"""Function that makes a deployed model from a graph of whole numbers and an example of its inputs."""


def _onnx() -> Deploy:
    from fedsplit.deployment.backends.onnx_graph import export_onnx  # noqa: PLC0415
    from fedsplit.deployment.backends.onnx_session import OnnxSession  # noqa: PLC0415

    return lambda graph, example: OnnxSession.of(export_onnx(graph, example))


def _openvino() -> Deploy:
    from fedsplit.deployment.backends.onnx_graph import export_onnx  # noqa: PLC0415
    from fedsplit.deployment.backends.openvino_model import OpenVinoModel  # noqa: PLC0415

    return lambda graph, example: OpenVinoModel.of(export_onnx(graph, example))


def _pt2e(*, compiled: bool) -> Deploy:
    from fedsplit.deployment.backends.pt2e import Pt2eGraph, export_graph  # noqa: PLC0415

    return lambda graph, example: Pt2eGraph.of(export_graph(graph, example), compiled=compiled)


_RUNTIMES: Mapping[Int8Backend, Callable[[], Deploy]] = {
    "onnx": _onnx,
    "openvino": _openvino,
    "pt2e": partial(_pt2e, compiled=False),
    "pt2e_compiled": partial(_pt2e, compiled=True),
}
"""Functions that import a runtime, each an extra of its own, and return how it deploys."""


class TrainedInt8(Backend):
    """Weights int8, a scale a channel, and activations uint8, of a model that `build_fake_quantized` made."""

    def __init__(self, runtime: Int8Backend) -> None:
        self._deploy = _RUNTIMES[runtime]()

    @override
    def prepare(self, module: nn.Module, example: Tensor) -> None:
        rounding = any(isinstance(each, FakeQuantizedActivations) for each in module.modules())
        if not isinstance(module, fx.GraphModule) or not rounding:
            raise UserError("precision", "qat_int8", "needs a run that was trained with qat=true")
        self._graph, self._example = int8_graph(module), example

    @override
    def convert(self) -> DeployedModel:
        return self._deploy(self._graph, self._example)
