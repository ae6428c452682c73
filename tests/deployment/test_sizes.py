"""Files of the EuroSAT network: what arithmetic says, and what is beside it."""

from pathlib import Path

import pytest
import torch
from torch import nn

from fedsplit.deployment import storage
from fedsplit.deployment.precisions import Precision
from fedsplit.models.zoo.eurosat_cnn import eurosat_cnn

PARAMETERS = 434_602
STATISTICS = 2 * (32 + 64 + 96)
"""Number of means and variances of BatchNorm."""
COUNTERS = 3 * 8
CHANNELS = 32 + 64 + 96 + 128 + 128 + 10
"""Output channels of layers with weights, each with a bias, and a scale in int8."""


@pytest.fixture(scope="module")
def whole() -> nn.Module:
    return eurosat_cnn(num_classes=10, channels=3, image_size=64).eval()


def size(whole: nn.Module, precision: str, folder: Path) -> int:
    backend = Precision.by_name(precision).make_backend("task.precisions", precision)
    samples = torch.randn(8, 3, 64, 64)
    backend.prepare(whole, samples[:2])
    backend.calibrate([samples])
    backend.convert().save(folder)
    return storage.size(folder)


@pytest.mark.parametrize(("precision", "bytes_a_number", "mebibytes"), [("fp32", 4, 1.66), ("fp16", 2, 0.83)])
def test_file_of_floats_takes_their_bytes_and_a_header(
    whole: nn.Module, precision: str, bytes_a_number: int, mebibytes: float, tmp_path: Path
) -> None:
    found = size(whole, precision, tmp_path)
    numbers = bytes_a_number * (PARAMETERS + STATISTICS) + COUNTERS
    assert numbers < found < numbers + 4000  # the header of safetensors: names, shapes, places
    assert round(PARAMETERS * bytes_a_number / 2**20, 2) == mebibytes


def test_file_of_int8_takes_a_byte_a_weight_with_biases_scales_and_graph(
    whole: nn.Module, tmp_path: Path
) -> None:
    found = size(whole, "static_int8", tmp_path)
    biases_and_scales = 2 * 4 * CHANNELS
    weights = PARAMETERS - CHANNELS - STATISTICS  # BatchNorm's own weights and biases are folded away
    assert round(weights / 2**20, 2) == 0.41
    assert (
        weights + biases_and_scales < found < weights + biases_and_scales + 6000
    )  # graph, scales of activations
