"""What is loaded is checked, and names no code."""

import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from fedsplit.deployment import storage
from fedsplit.deployment.backends.floats import FloatBackend
from fedsplit.errors import UserError


def saved(path: Path) -> Path:
    backend = FloatBackend("float32")
    backend.prepare(nn.Conv2d(1, 1, 1), torch.zeros(2, 1, 2, 2))
    backend.convert().save(path)
    return path


def never() -> nn.Module:
    raise AssertionError("not needed")


@pytest.mark.parametrize(
    "told", [None, "{", "[]", '{"format": "torch_quantized"}', '{"format": "os.system"}']
)
def test_storage_refuses_a_directory_without_a_sound_description(told: str | None, tmp_path: Path) -> None:
    if told is not None:
        (tmp_path / storage.DESCRIPTION).write_text(told)
    with pytest.raises(UserError, match=r"deployed=.*deployment\.json"):
        storage.load(tmp_path, never)


def test_storage_refuses_a_damaged_file_and_one_of_another_model(tmp_path: Path) -> None:
    path = saved(tmp_path / "model")
    (path / "client.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    with pytest.raises(UserError, match="cannot be loaded"):
        storage.load(path, lambda: nn.Conv2d(1, 1, 1))
    with pytest.raises(UserError, match="cannot be loaded"):
        storage.load(saved(tmp_path / "other"), lambda: nn.Conv2d(2, 1, 1))


@pytest.mark.parametrize(
    "format", ["floats", "packed_weights", "graph", "onnx", "openvino", "quantize_dynamic"]
)
def test_storage_unpickles_in_no_format(format: str, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (exec, ("raise AssertionError('unpickled')",))

    settings = {"dtype": "float32", "bits": 4, "compiled": False, "scale": None, "zero_point": 0}
    storage.describe(tmp_path, format, settings)
    name = "client.onnx" if format in ("onnx", "openvino") else "client.safetensors"
    (tmp_path / name).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(UserError):
        storage.load(tmp_path, lambda: nn.Conv2d(1, 1, 1))


def test_size_of_a_deployed_model_is_that_of_its_file_alone(tmp_path: Path) -> None:
    (file,) = (path for path in saved(tmp_path).iterdir() if path.name != storage.DESCRIPTION)
    assert storage.size(tmp_path) == len(file.read_bytes())


@pytest.mark.parametrize("zero_point", [None, True, 2**62, -129, 256, 1.0, "0"])
def test_codes_on_no_grid_of_8_bits_are_refused(zero_point: object) -> None:
    with pytest.raises(ValueError, match="zero_point is a whole number of 8 bits"):
        storage.grid({"scale": 0.5, "zero_point": zero_point})
    for scale in (0.0, -1.0, float("inf"), float("nan"), 1, "1", []):
        with pytest.raises(ValueError, match="scale is a positive number"):
            storage.grid({"scale": scale, "zero_point": 0})
    assert storage.grid({"scale": None, "zero_point": 255}) == (None, 255)
