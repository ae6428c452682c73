"""Client models that OpenVINO runs."""

import io
import sys
from functools import cache

import numpy as np
import torch
from typing_extensions import override

from fedsplit.deployment.backends.onnx_file import OnnxFile
from fedsplit.deployment.backends.onnx_graph import INPUT
from fedsplit.errors import UserError

# Imported, OpenVINO tells Google Analytics so, unless it does not find what it tells it with. Beside private
# data nothing is told.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
import openvino  # noqa: E402


class OpenVinoModel(OnnxFile):
    """Run by OpenVINO, in as many threads as torch has; compiled for each shape that it is first given.

    Raises:
        UserError: OpenVINO cannot read the graph; says why.
    """

    format = "openvino"

    def __init__(self, content: bytes, scale: float | None = None, zero_point: int = 0) -> None:
        super().__init__(content, scale, zero_point)
        try:
            self._model = _core().read_model(io.BytesIO(content))
        except RuntimeError as error:
            reason = " ".join(str(error).split())[-200:]
            raise UserError("model", "ONNX", f"OpenVINO cannot read it ({reason})") from error
        self._requests: dict[tuple[int, ...], openvino.InferRequest] = {}

    @override
    def outputs(self, x: np.ndarray) -> np.ndarray:
        request = self._requests.get(x.shape)
        if request is None:
            request = self._requests[x.shape] = self._compile(x.shape)
        # inputs are not kept; outputs are copied out of memory that the next run overwrites
        z: np.ndarray = request.infer([x], share_inputs=True)[0]
        return z

    def _compile(self, shape: tuple[int, ...]) -> openvino.InferRequest:
        model = self._model.clone()
        model.reshape({INPUT: list(shape)})
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "ENABLE_CPU_PINNING": False,  # pinned, it waits where another process has that core
            "INFERENCE_PRECISION_HINT": "f32",  # where not quantized; else bfloat16 on some processors
        }
        return _core().compile_model(model, "CPU", settings).create_infer_request()


@cache
def _core() -> openvino.Core:
    return openvino.Core()
