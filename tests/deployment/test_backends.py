"""Every precision, on several models: as near as it must be, the same from disk, in any process."""

import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias

import onnx
import pytest
import torch
from torch import Tensor, fx, nn

from fedsplit.deployment import storage
from fedsplit.deployment.backends.backend import DeployedModel
from fedsplit.deployment.backends.openvino_model import OpenVinoModel
from fedsplit.deployment.precisions import Precision
from fedsplit.errors import UserError
from fedsplit.machine.extras import install_command
from tests.deployment.fresh_process import Task, run_elsewhere
from tests.deployment.models import CUTS, client_of, deployed, deployed_as_trained, trained_inputs
from tests.deployment.test_trained_int8 import RUNTIMES as TRAINED_RUNTIMES
from tests.models.test_int8_graph import residual

SQNR = {
    **{"fp32": 110.0, "fp32_onnx": 100.0, "fp16": 55.0, "bf16": 35.0, "w4": 9.0, "w2": 0.5, "w1": 0.0},
    **{"dynamic_int8": 25.0, "static_int8": 25.0, "static_int8_pt2e": 25.0},
    **{"static_int8_openvino": 25.0},
}
"""The least signal to noise, in dB, against the module as it was trained. A bit is worth 6 dB; noise of
several layers adds up."""
LINEAR = {"dynamic_int8_torch": 25.0}
"""The least signal to noise of precisions that quantize linear layers only."""
COMPILED = "static_int8_pt2e_compiled"
CompileBackend: TypeAlias = Callable[[fx.GraphModule, Sequence[Tensor]], Callable[..., object]]
CompileWith: TypeAlias = Callable[[CompileBackend], None]
ONCE = {"fp32_onnx", "dynamic_int8", "static_int8_pt2e", "static_int8_openvino"}
"""Slow precisions for which a second model would show nothing new."""
PAIRS = [
    *((each, choice) for each in SQNR for choice in CUTS if each not in ONCE or choice == "resnet20"),
    *((each, "eurosat_cnn") for each in LINEAR),
]
OTHER_MODELS = {
    *(("w4", "mobilenet_v2"), ("w1", "eurosat_cnn"), ("static_int8", "eurosat_cnn")),
    *((each, "eurosat_cnn") for each in LINEAR),
}
"""Precisions and models of every run, beside each precision of a residual network."""
SMALLER = {"fp16": 0.6, "bf16": 0.6, "w4": 0.4, "w2": 0.35, "w1": 0.3}
"""Largest part of the file's size in float32, for models whose few weights let BatchNorm statistics count."""


def sqnr(exact: Tensor, found: Tensor) -> float:
    noise = (exact.double() - found.double()).square().sum()
    return float(10 * torch.log10(exact.double().square().sum() / noise.clamp_min(1e-30)))


@pytest.mark.parametrize(
    ("precision", "choice"),
    [
        pytest.param(*pair, marks=() if pair[1] == "resnet20" or pair in OTHER_MODELS else pytest.mark.long)
        for pair in PAIRS
    ],
)
def test_deployed_model_is_as_near_to_its_module_as_its_precision_says_and_the_same_from_disk(
    precision: str, choice: str, tmp_path: Path
) -> None:
    asked = client_of(choice)
    before = {name: tensor.clone() for name, tensor in asked.module.state_dict().items()}
    model = deployed(choice, precision)
    x = asked.samples[:20]
    with torch.no_grad():
        exact = asked.module(x)
    z = model.run_quantized(x)
    assert z.decode().shape == exact.shape
    assert sqnr(exact, z.decode()) > (SQNR | LINEAR)[precision]
    assert torch.equal(z.decode(), model.run(x))
    if z.scale is None:
        assert z.values.is_floating_point()
    else:
        by_hand = z.scale * (z.values.double() - z.zero_point)
        assert torch.allclose(by_hand, z.decode().double(), rtol=1e-6)
        assert z.size == exact.numel()  # a byte a value
    model.save(tmp_path / "model")
    loaded = storage.load(tmp_path / "model", asked.architecture.build)
    assert torch.equal(loaded.run(x), model.run(x))
    assert loaded.run_quantized(x).scale == z.scale
    for name, tensor in asked.module.state_dict().items():
        assert torch.equal(tensor, before[name]), "the model that was given is left alone"


@pytest.mark.parametrize(("bits", "values", "least"), [(4, 15, 18.0), (2, 3, 6.0), (1, 2, 3.5)])
def test_packed_weights_are_as_near_to_normal_ones_as_a_uniform_grid_can_be(
    bits: int, values: int, least: float, tmp_path: Path
) -> None:
    """Known of Gaussian samples: 20.2 dB with 16 levels, 4.4 dB with 2 (Max, 1960)."""
    deployed("resnet20", f"w{bits}").save(tmp_path)
    asked = client_of("resnet20")
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
    z = deployed("resnet20", "static_int8").run_quantized(client_of("resnet20").samples)
    assert z.values.dtype == torch.uint8
    assert z.scale is not None
    assert z.zero_point == 0  # behind a ReLU


def bits_differ_in_a_fresh_process(tasks: Mapping[str, Task], folder: Path) -> set[str]:
    """Names of models that give other bits there."""
    found = run_elsewhere(tasks, folder)
    return {name for name, task in tasks.items() if not torch.equal(found[name], task.model.run(task.inputs))}


def task_of(choice: str, precision: str) -> Task:
    return Task(deployed(choice, precision), client_of(choice).architecture, client_of(choice).samples)


def test_precision_with_a_file_of_each_kind_gives_the_same_bits_in_a_fresh_process(tmp_path: Path) -> None:
    tasks = {precision: task_of("resnet20", precision) for precision in ("fp32", "static_int8")}
    assert bits_differ_in_a_fresh_process(tasks, tmp_path) == set()


@pytest.mark.long  # of each kind of file one is in every run
def test_every_precision_gives_the_same_bits_in_a_fresh_process(tmp_path: Path) -> None:
    tasks = {precision: task_of("resnet20", precision) for precision in ("w4", "static_int8_pt2e")}
    tasks |= {each: task_of("eurosat_cnn", each) for each in LINEAR}
    for runtime in TRAINED_RUNTIMES:
        model = deployed_as_trained(runtime, residual, "layer1")
        tasks[f"qat_int8 on {runtime}"] = Task(model, client_of("resnet20").architecture, trained_inputs())
    assert bits_differ_in_a_fresh_process(tasks, tmp_path) == set()


@pytest.mark.long
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
def test_compiled_int8_gives_the_same_bits_in_a_fresh_process(tmp_path: Path) -> None:
    tasks = {COMPILED: task_of("digits_cnn", COMPILED)}
    assert bits_differ_in_a_fresh_process(tasks, tmp_path) == set()


@pytest.fixture
def compile_with(monkeypatch: pytest.MonkeyPatch) -> Iterator[CompileWith]:
    """Takes the backend of `torch.compile` for the rest of a test."""
    original = torch.compile

    def install(backend: CompileBackend) -> None:
        monkeypatch.setattr(torch, "compile", partial(original, backend=backend))

    yield install
    torch._dynamo.reset()  # it keeps what it compiled


def test_compiled_int8_is_one_graph_compiled_with_frozen_weights_also_when_loaded(
    compile_with: CompileWith, tmp_path: Path
) -> None:
    """On a backend that traces and generates nothing: what inductor makes of it is a long test's."""
    from torch._inductor import config as inductor  # noqa: PLC0415  (its import takes a second)

    frozen: list[bool] = []

    def traced_only(graph: fx.GraphModule, _: Sequence[Tensor]) -> Callable[..., object]:
        frozen.append(inductor.freezing)
        return graph.forward

    compile_with(traced_only)
    expected = deployed("digits_cnn", "static_int8_pt2e")
    model = attempt(COMPILED, client_of("digits_cnn").module, client_of("digits_cnn").calibration)[0]
    model.save(tmp_path)
    for each in (model, storage.load(tmp_path, client_of("digits_cnn").architecture.build)):
        for samples in (20, 20, 7):
            x = client_of("digits_cnn").samples[:samples]
            assert torch.equal(each.run(x), expected.run(x))
    assert frozen == [True] * 4  # once a model and number of samples


def test_compiled_int8_that_cannot_be_compiled_is_refused(compile_with: CompileWith) -> None:
    def failing(graph: fx.GraphModule, _: Sequence[Tensor]) -> Callable[..., object]:
        raise RuntimeError("no compiler is here")

    compile_with(failing)
    client = client_of("digits_cnn")
    model = attempt(COMPILED, client.module, client.calibration)[0]
    with pytest.raises(UserError, match="cannot be compiled here"):
        model.run(client.samples)


@pytest.mark.parametrize("precision", SMALLER)
def test_file_of_a_deployed_model_is_as_small_as_the_bits_of_its_precision(
    precision: str, tmp_path: Path
) -> None:
    sizes = {}
    for name in ("fp32", precision):
        deployed("resnet20", name).save(tmp_path / name)
        sizes[name] = storage.size(tmp_path / name)
    assert sizes[precision] < SMALLER[precision] * sizes["fp32"]


@pytest.mark.parametrize("precision", ["static_int8", "static_int8_pt2e"])
def test_static_int8_refuses_calibration_samples_of_another_shape(precision: str) -> None:
    backend = Precision.by_name(precision).make_backend("task.precisions", precision)
    backend.prepare(client_of("digits_cnn").module, client_of("digits_cnn").samples[:2])
    for shape in ((4, 1, 8, 8), (4, 3, 16, 16), (0, 3, 8, 8), None):
        with pytest.raises(
            UserError,
            match=r"must hold at least one batch|batches must be \(n, 3, 8, 8\)",
        ) as caught:
            backend.calibrate([torch.zeros(shape)] if shape else [])
        assert caught.value.key == "calibration"


def attempt(
    precision: str, module: nn.Module, batches: Sequence[Tensor]
) -> tuple[DeployedModel, tuple[str, ...]]:
    """A model that no other test has, and what of it stays in float32."""
    backend = Precision.by_name(precision).make_backend("task.precisions", precision)
    backend.prepare(module.eval(), batches[0])
    if backend.calibrates:
        backend.calibrate(batches)
    return backend.convert(), backend.unquantized


@pytest.mark.parametrize("precision", ["static_int8", "dynamic_int8_torch", "w4"])
def test_int8_and_packed_weights_refuse_a_model_without_layers_to_quantize(precision: str) -> None:
    with pytest.raises(UserError) as caught:
        attempt(precision, nn.Sequential(nn.MaxPool2d(2), nn.ReLU()), [torch.rand(4, 3, 8, 8)])
    assert caught.value.key == "model"


def test_openvino_refuses_a_graph_that_it_cannot_read() -> None:
    node = onnx.helper.make_node("Unheard", ["x"], ["z"], domain="nobody")
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None, 3]) for name in "xz"]
    graph = onnx.helper.make_graph([node], "unheard", values[:1], values[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("nobody", 1)])
    with pytest.raises(UserError, match=r"OpenVINO cannot read it .*Unheard") as caught:
        OpenVinoModel(model.SerializeToString())
    assert caught.value.key == "model"


def test_int8_backends_tell_which_operations_stay_in_float32() -> None:
    x = torch.randn(8, 3, 8, 8)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ELU(), nn.Conv2d(4, 4, 3))
    found, unquantized = attempt("static_int8", module, [x])
    assert unquantized == ("Elu",)
    with torch.no_grad():
        assert sqnr(module(x), found.run(x)) > 25
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 5))
    assert attempt("dynamic_int8_torch", module, [x])[1] == ("Conv2d",)


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
def test_precision_that_needs_a_missing_package_names_it_and_its_extra(
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
            monkeypatch.delattr(name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=re.escape(f"needs {package}: {install_command(extra)}")):
        Precision.by_name(precision).make_backend("task.precisions", precision)
