"""Every precision, on several models: as near as it must be, the same from disk, in any process."""

import shutil
import sys
from functools import cache
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn

from fedsplit.deployment import storage
from fedsplit.deployment.backend import Deployed
from fedsplit.deployment.openvino_model import OpenVinoModel
from fedsplit.deployment.precisions import PRECISIONS
from fedsplit.errors import UserError
from tests.deployment.fresh_process import run_elsewhere
from tests.deployment.models import CUTS, Client, client_of

SQNR = {
    **{"fp32": 110.0, "fp32_onnx": 100.0, "fp16": 55.0, "bf16": 35.0, "w4": 9.0, "w2": 0.5, "w1": 0.0},
    **{"dynamic_int8": 25.0, "static_int8": 25.0, "static_int8_pt2e": 25.0, "static_int8_fx": 18.0},
    **{"static_int8_openvino": 25.0},
}
"""The least signal to noise, in dB, against the module as it was trained. A bit is worth 6 dB; noise of
several layers adds up."""
LINEAR = {"dynamic_int8_torch": 25.0}
"""Of what quantizes linear layers only."""
COMPILED = "static_int8_pt2e_compiled"
ONCE = {"fp32_onnx", "dynamic_int8", "static_int8_pt2e", "static_int8_openvino"}
"""What would show nothing new of a second model, and takes its time."""
PAIRS = [
    *((each, choice) for each in SQNR for choice in CUTS if each not in ONCE or choice == "resnet20"),
    *((each, "eurosat_cnn") for each in LINEAR),
]
SMALLER = {"fp16": 0.6, "bf16": 0.6, "w4": 0.4, "w2": 0.35, "w1": 0.3}
"""Of models with few weights, whose BatchNorm statistics count."""


@cache
def client(choice: str) -> Client:
    return client_of(choice)


@cache
def deployed(choice: str, precision: str) -> Deployed:
    backend = PRECISIONS[precision].make("task.precisions", precision)
    backend.prepare(client(choice).module, client(choice).samples[:2])
    if backend.calibrates:
        backend.calibrate(client(choice).calibration)
    return backend.convert()


def sqnr(exact: Tensor, found: Tensor) -> float:
    noise = (exact.double() - found.double()).square().sum()
    return float(10 * torch.log10(exact.double().square().sum() / noise.clamp_min(1e-30)))


@pytest.fixture(autouse=True, scope="module")
def _forget() -> object:
    yield
    deployed.cache_clear()


@pytest.mark.parametrize(("precision", "choice"), PAIRS)
def test_outputs_are_near_the_modules_and_the_same_from_disk(
    precision: str, choice: str, tmp_path: Path
) -> None:
    asked = client(choice)
    before = {name: tensor.clone() for name, tensor in asked.module.state_dict().items()}
    model = deployed(choice, precision)
    x = asked.samples[:20]
    with torch.no_grad():
        exact = asked.module(x)
    z = model.run_quantized(x)
    assert z.decoded().shape == exact.shape
    assert sqnr(exact, z.decoded()) > (SQNR | LINEAR)[precision]
    assert torch.equal(z.decoded(), model.run(x))
    if z.scale is None:
        assert z.values.is_floating_point()
    else:
        by_hand = z.scale * (z.values.double() - z.zero_point)
        assert torch.allclose(by_hand, z.decoded().double(), rtol=1e-6)
        assert z.size == exact.numel()  # a byte a value
    model.save(tmp_path / "model")
    loaded = storage.load(tmp_path / "model", asked.architecture.build)
    assert torch.equal(loaded.run(x), model.run(x))
    assert loaded.run_quantized(x).scale == z.scale
    for name, tensor in asked.module.state_dict().items():
        assert torch.equal(tensor, before[name]), "the model that was given is left alone"


@pytest.mark.parametrize(("bits", "values", "least"), [(4, 15, 18.0), (2, 3, 6.0), (1, 2, 3.5)])
def test_packed_weights_are_as_near_as_a_uniform_grid_can_be_to_normal_ones(
    bits: int, values: int, least: float, tmp_path: Path
) -> None:
    """Known of Gaussian samples: 20.2 dB with 16 levels, 4.4 dB with 2 (Max, 1960)."""
    deployed("resnet20", f"w{bits}").save(tmp_path)
    asked = client("resnet20")
    loaded = storage.load(tmp_path, asked.architecture.build)
    found = loaded._floats.module.state_dict()  # type: ignore[attr-defined]
    for name, weight in asked.module.state_dict().items():
        if name.endswith("weight") and weight.dim() == 4:
            for row, exact in zip(found[name].flatten(1), weight.flatten(1), strict=True):
                assert len(row.unique()) <= values
                assert row.abs().max() <= exact.abs().max() * (1 + 1e-6)
            assert sqnr(weight, found[name]) > least
        else:
            assert torch.equal(found[name], weight)


def test_static_int8_puts_out_codes_of_a_byte() -> None:
    z = deployed("resnet20", "static_int8").run_quantized(client("resnet20").samples)
    assert z.values.dtype == torch.uint8
    assert z.scale is not None
    assert z.zero_point == 0  # behind a ReLU


@pytest.mark.parametrize(
    ("choice", "precisions"),
    [("resnet20", [*SQNR]), ("eurosat_cnn", [*LINEAR, "static_int8"]), ("digits_cnn", [COMPILED])],
)
def test_every_precision_gives_the_same_bits_in_a_fresh_process(
    choice: str, precisions: list[str], tmp_path: Path
) -> None:
    if COMPILED in precisions and shutil.which("g++") is None:
        pytest.skip("inductor needs a C++ compiler")
    asked = client(choice)
    models = {each: deployed(choice, each) for each in precisions}
    found = run_elsewhere(models, asked.architecture, asked.samples, tmp_path)
    same = {each for each in precisions if torch.equal(found[each], models[each].run(asked.samples))}
    assert same == set(precisions)


@pytest.mark.parametrize("precision", SMALLER)
def test_files_are_as_small_as_bits_say(precision: str, tmp_path: Path) -> None:
    sizes = {}
    for name in ("fp32", precision):
        deployed("resnet20", name).save(tmp_path / name)
        sizes[name] = storage.size(tmp_path / name)
    assert sizes[precision] < SMALLER[precision] * sizes["fp32"]


@pytest.mark.parametrize("precision", ["static_int8", "static_int8_pt2e", "static_int8_fx"])
def test_calibration_samples_of_another_shape_are_refused(precision: str) -> None:
    backend = PRECISIONS[precision].make("task.precisions", precision)
    backend.prepare(client("digits_cnn").module, client("digits_cnn").samples[:2])
    for shape in ((4, 1, 8, 8), (4, 3, 16, 16), (0, 3, 8, 8), None):
        with pytest.raises(UserError, match=r"at least one batch|batches must be \(n, 3, 8, 8\)") as caught:
            backend.calibrate([torch.zeros(shape)] if shape else [])
        assert caught.value.key == "calibration"


def attempt(precision: str, module: nn.Module, x: Tensor) -> tuple[Deployed, tuple[str, ...]]:
    backend = PRECISIONS[precision].make("task.precisions", precision)
    backend.prepare(module.eval(), x)
    if backend.calibrates:
        backend.calibrate([x])
    return backend.convert(), backend.unquantized


@pytest.mark.parametrize("precision", ["static_int8", "dynamic_int8_torch", "w4"])
def test_a_model_of_which_nothing_can_be_quantized_is_refused(precision: str) -> None:
    with pytest.raises(UserError) as caught:
        attempt(precision, nn.Sequential(nn.MaxPool2d(2), nn.ReLU()), torch.rand(4, 3, 8, 8))
    assert caught.value.key == "model"


def test_a_graph_that_openvino_cannot_read_is_refused() -> None:
    node = onnx.helper.make_node("Unheard", ["x"], ["z"], domain="nobody")
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None, 3]) for name in "xz"]
    graph = onnx.helper.make_graph([node], "unheard", values[:1], values[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("nobody", 1)])
    with pytest.raises(UserError, match=r"OpenVINO cannot read it .*Unheard") as caught:
        OpenVinoModel(model.SerializeToString())
    assert caught.value.key == "model"


def test_operations_that_stay_in_float32_are_told() -> None:
    x = torch.randn(8, 3, 8, 8)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ELU(), nn.Conv2d(4, 4, 3))
    found, unquantized = attempt("static_int8", module, x)
    assert unquantized == ("Elu",)
    with torch.no_grad():
        assert sqnr(module(x), found.run(x)) > 25
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 5))
    assert attempt("dynamic_int8_torch", module, x)[1] == ("Conv2d",)


@pytest.mark.parametrize(
    ("precision", "package", "extra"),
    [
        ("static_int8", "onnxruntime", "onnx"),
        ("fp32_onnx", "onnx", "onnx"),
        ("static_int8_pt2e", "torchao", "pt2e"),
        ("static_int8_openvino", "openvino", "openvino"),
        ("qat_int8", "onnxruntime", "onnx"),
        ("qat_int8_pt2e", "torchao", "pt2e"),
    ],
)
def test_what_is_not_installed_is_named(
    precision: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [each for each in sys.modules if each.startswith("fedsplit.deployment.")]:
        if name.rpartition(".")[2] in (
            "onnx_runtime",
            "onnx_session",
            "onnx_graph",
            "pt2e",
            "openvino_model",
            "openvino_runtime",
        ):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"needs {package}: pip install 'fedsplit\[{extra}\]'"):
        PRECISIONS[precision].make("task.precisions", precision)
