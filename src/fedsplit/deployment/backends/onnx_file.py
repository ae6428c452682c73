"""Client models that are ONNX files, whatever runs them."""

from abc import abstractmethod
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import onnx
import torch
from onnx import ModelProto
from torch import Tensor
from typing_extensions import override

from fedsplit.deployment import storage
from fedsplit.deployment.backends.backend import Build, DeployedModel, SmashedData
from fedsplit.deployment.backends.onnx_graph import INPUT, OUTPUT, compact, constant, producer

_FILE = "client.onnx"


class OnnxFile(DeployedModel):
    """An ONNX graph from `x` to `z`; `scale` is None where `z` are no codes."""

    format: ClassVar[str]
    """Name of the format in `deployment.json`, which says what runs the file."""

    def __init__(self, content: bytes, scale: float | None = None, zero_point: int = 0) -> None:
        self._content, self._scale, self._zero_point = content, scale, zero_point

    @classmethod
    def of(cls, model: ModelProto) -> Self:
        """ONNX file of a graph whose output is float32; codes that it was just made of are put out."""
        graph = model.graph
        last = producer(graph, OUTPUT)
        scale, zero_point = None, 0
        if last is not None and last.op_type == "DequantizeLinear" and last.input[0] != INPUT:
            codes, *parameters = last.input
            scale = float(constant(graph, parameters[0]))
            zero = constant(graph, parameters[1]) if parameters[1:] else np.zeros((), np.uint8)
            zero_point = int(zero)
            graph.node.remove(last)
            producing = producer(graph, codes)
            assert producing is not None
            producing.output[:] = [OUTPUT if name == codes else name for name in producing.output]
            for node in graph.node:
                node.input[:] = [OUTPUT if name == codes else name for name in node.input]
            graph.output[0].type.tensor_type.elem_type = onnx.helper.np_dtype_to_tensor_dtype(zero.dtype)
        return cls(compact(model).SerializeToString(), scale, zero_point)

    @abstractmethod
    def outputs(self, x: np.ndarray) -> np.ndarray:
        """`z` of inputs `x (n, c, h, w)`, float32 and contiguous."""

    @override
    def run_quantized(self, x: Tensor) -> SmashedData:
        z = self.outputs(np.ascontiguousarray(x.numpy()))
        return SmashedData(torch.from_numpy(z), self._scale, self._zero_point)

    @override
    def save(self, directory: Path) -> None:
        storage.describe(directory, self.format, {"scale": self._scale, "zero_point": self._zero_point})
        (directory / _FILE).write_bytes(self._content)

    @classmethod
    @override
    def load(cls, directory: Path, build: Build) -> Self:
        scale, zero_point = storage.grid(storage.description(directory))
        return cls((directory / _FILE).read_bytes(), scale, zero_point)
