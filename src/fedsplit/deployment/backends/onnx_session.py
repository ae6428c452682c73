"""Client models that ONNX Runtime runs."""

import numpy as np
import onnxruntime
import torch
from typing_extensions import override

from fedsplit.deployment.backends.onnx_file import OnnxFile
from fedsplit.deployment.backends.onnx_graph import INPUT


class OnnxSession(OnnxFile):
    """Run by ONNX Runtime, in as many threads as torch has."""

    format = "onnx"

    def __init__(self, content: bytes, scale: float | None = None, zero_point: int = 0) -> None:
        super().__init__(content, scale, zero_point)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    @override
    def outputs(self, x: np.ndarray) -> np.ndarray:
        z: np.ndarray
        (z,) = self._session.run(None, {INPUT: x})
        return z
