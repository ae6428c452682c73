from collections.abc import Iterator
from functools import cache
from unittest import mock

import pytest
import torch
from onnx import ModelProto
from torch import Tensor, nn
from torch.onnx._internal.exporter._registration import ONNXRegistry

from fedsplit.deployment.backends import onnx_runtime
from tests.deployment.models import forget_all


@pytest.fixture(scope="package", autouse=True)
def _models_are_forgotten_at_the_end() -> Iterator[None]:
    yield
    forget_all()


@pytest.fixture(scope="package", autouse=True)
def _models_are_exported_once() -> Iterator[None]:
    """Several backends begin with the same ONNX graph of the same module, which takes a second."""
    export = onnx_runtime.export_onnx

    @cache
    def graph(module: nn.Module, shape: torch.Size) -> ModelProto:
        return export(module, torch.zeros(shape))

    def exported(module: nn.Module, example: Tensor) -> ModelProto:
        copy = ModelProto()
        copy.CopyFrom(graph(module, example.shape))
        return copy

    operators = staticmethod(cache(ONNXRegistry.from_torchlib))  # those of all that torch can do
    with (
        mock.patch.object(onnx_runtime, "export_onnx", exported),
        mock.patch.object(ONNXRegistry, "from_torchlib", operators),
    ):
        yield
