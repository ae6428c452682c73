"""Client models that were trained for int8, with the very scales that they trained with."""

from typing import Literal

from torch import Tensor, fx, nn

from fedsplit.deployment.backend import Backend, Deployed
from fedsplit.errors import UserError
from fedsplit.models.fake_quantization import FakeQuantizedActivations
from fedsplit.models.int8_graph import int8_graph


class TrainedInt8(Backend):
    """Weights int8, a scale a channel, and activations uint8, as `qat=true` trained them.

    Args:
        runtime: what runs it.
    """

    def __init__(self, runtime: Literal["onnx", "pt2e", "pt2e_compiled"]) -> None:
        self._runtime = runtime

    def prepare(self, module: nn.Module, example: Tensor) -> None:
        """See `Backend.prepare`.

        Args:
            module: a client model that `fake_quantized` made, with its trained weights and ranges.
            example: see `Backend.prepare`.

        Raises:
            UserError: it is another.
        """
        rounding = any(isinstance(each, FakeQuantizedActivations) for each in module.modules())
        if not isinstance(module, fx.GraphModule) or not rounding:
            raise UserError("precision", "qat_int8", "only of a run trained with qat=true")
        self._graph, self._example = int8_graph(module), example

    def convert(self) -> Deployed:
        """See `Backend.convert`."""
        if self._runtime == "onnx":
            from fedsplit.deployment import onnx_graph  # noqa: PLC0415  (each runtime is an extra of its own)
            from fedsplit.deployment.onnx_session import OnnxSession  # noqa: PLC0415

            return OnnxSession.of(onnx_graph.exported(self._graph, self._example))
        from fedsplit.deployment import pt2e  # noqa: PLC0415

        graph = pt2e.exported(self._graph, self._example)
        return pt2e.Pt2eGraph(graph, compiled=self._runtime == "pt2e_compiled")
