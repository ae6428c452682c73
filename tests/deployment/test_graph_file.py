"""Graphs of operations in files: what is written comes back, and a hostile file is refused."""

import builtins
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fedsplit.deployment import storage
from fedsplit.deployment.backends.exporting import exporting
from fedsplit.deployment.backends.graph_file import OperationGraph
from fedsplit.errors import UserError

torchao = pytest.importorskip("torchao", reason="the extra `pt2e` is not installed")
CODE = """x"), getattr(__import__("os"), "system")("touch executed"), getattr(self, "x"""
RELU = ["aten.relu.default", [{"step": 0}], {}]


def _directory(
    path: Path,
    steps: object,
    *,
    tensors: dict[str, Tensor] | None = None,
    output: object = 1,
    **graph: object,
) -> Path:
    """A deployed model as its format has it, with a graph of anybody's."""
    tensors = {} if tensors is None else tensors
    types = [str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()]
    storage.describe(path, "graph", {"compiled": False, "scale": None, "zero_point": 0})
    written = {"steps": steps, "output": output, "types": types} | graph
    save_file(tensors or {}, path / "client.safetensors", {"graph": json.dumps(written)})
    return path


def _never() -> nn.Module:
    raise AssertionError("a graph needs no module")


def _run(path: Path, x: Tensor | None = None) -> Tensor:
    deployed = storage.load(path, _never)
    return deployed.run_quantized(torch.randn(2, 3, 4, 4) if x is None else x).values


def test_graph_of_every_kind_of_argument_gives_the_same_output_from_its_file(tmp_path: Path) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, padding=1)
            self.norm = nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Tensor:
            y = self.norm(self.conv(x)).relu_()
            left, right = y.chunk(2, dim=1)
            product = torch.einsum("nchw,nchv->nwv", left, right)
            return nn.functional.gelu(product.reshape(x.shape[0], -1).to(torch.float64), approximate="tanh")

    module, x = Model().eval(), torch.randn(3, 3, 4, 4)
    shapes = ({0: torch.export.Dim("batch")},)
    with exporting():
        exported = torch.export.export(module, (x[:2],), dynamic_shapes=shapes)
    graph = OperationGraph.of(exported.module())  # type: ignore[arg-type]
    graph.write(tmp_path / "graph.safetensors")
    read = OperationGraph.read(tmp_path / "graph.safetensors")
    read.check(x)
    with torch.no_grad():
        assert torch.equal(read(x), module(x))
        assert torch.equal(graph(x), module(x))


def test_loading_and_running_a_graph_generates_no_source(tmp_path: Path) -> None:
    path = _directory(tmp_path, [["input"], RELU])
    _run(path)  # what torch itself makes of an operation that it meets first
    generated: list[object] = []
    with pytest.MonkeyPatch.context() as patch:
        for name in ("exec", "eval", "compile"):
            original = getattr(builtins, name)

            def recorded(*arguments: Any, original: Any = original, **named: Any) -> object:
                generated.append(arguments[0])
                return original(*arguments, **named)

            patch.setattr(builtins, name, recorded)
        smallest = _run(path).min()
    assert smallest == 0
    assert generated == []


@pytest.mark.parametrize(
    "steps",
    [
        [["tensor", CODE], ["input"]],
        [["tensor", 0], ["input"]],
        [["tensor", -1], ["input"]],
        [["tensor", True], ["input"]],
        [["input"], [CODE, [{"step": 0}], {}]],
        [["input"], ["os.system", ["touch executed"], {}]],
        [["input"], ["aten.from_file.default", ["/etc/hostname"], {}]],
        [["input"], ["aten.set_.source_Tensor", [{"step": 0}, {"step": 0}], {}]],
        [["input"], ["aten.as_strided.default", [{"step": 0}, [9], [9]], {}]],
        [["input"], ["aten.resize_.default", [{"step": 0}, [10**9]], {}]],
        [["input"], ["aten.relu.out", [{"step": 0}], {"out": {"step": 0}}]],
        [["input"], ["aten.relu.__class__", [{"step": 0}], {}]],
        [["input"], ["aten.__class__.default", [{"step": 0}], {}]],
        [["input"], ["prims.add.default", [1, 2], {}]],
        [["input"], ["aten.no_such.default", [], {}]],
        [["input"], ["getitem", [{"step": 0}, CODE], {}]],
        [["input"], ["getitem", [{"step": 0}], {}]],
        [["input"], ["mul", [[{"step": 0}], 10**9], {}]],
        [["input"], ["aten.relu.default", [{"dtype": "load"}], {}]],
        [["input"], ["aten.relu.default", [{"dtype": CODE}], {}]],
        [["input"], ["aten.relu.default", [{"step": 1}], {}]],
        [["input"], ["aten.relu.default", [{"step": 0, "dtype": "float32"}], {}]],
        [["input"], ["aten.relu.default", [{"step": 0}], {CODE: 1}]],
        [["input"], ["aten.relu.default", [CODE], {}]],
        [["input"], ["aten.relu.default", [{"step": 0}, 1], {}]],
        [["input"], ["aten.add.Tensor", [{"step": 0}, "text"], {}]],
        [["input"], ["aten.einsum.default", [CODE, [{"step": 0}]], {}]],
        [["input"], ["aten.add.Tensor", [{"step": 0}, 10**400], {}]],
        [["input"], ["aten.relu.default", [[[[[[[0]]]]]]], {}]],
        [["input"], ["input"]],
        [["input"], ["input", 1, 2]],
        [["input"], []],
        [["input"], "input"],
        [["input"], [["aten.relu.default"], [], {}]],
        [["input"], ["aten.relu.default", {}, []]],
        [["input"], [None, [], {}]],
        [RELU, ["input"]],
        [RELU, RELU],
        [],
        None,
        "steps",
        [["input"], *[RELU] * 20_001],
    ],
    ids=lambda steps: str(steps)[:60],
)
def test_step_that_is_no_operation_on_earlier_steps_is_refused(
    steps: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^deployed=.* cannot be loaded \(.{1,300}\)$"):
        storage.load(_directory(tmp_path / "model", steps), _never)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("tensors", "graph"),
    [
        ({CODE: torch.zeros(1)}, {}),
        ({"t1": torch.zeros(1)}, {}),
        ({"t0": torch.zeros(1)}, {"types": [CODE]}),
        ({"t0": torch.zeros(1)}, {"types": []}),
        ({"t0": torch.zeros(1)}, {"types": None}),
        ({}, {"output": 2}),
        ({}, {"output": -1}),
        ({}, {"output": CODE}),
        ({}, {"output": None}),
        ({}, {"more": 1}),
    ],
)
def test_tensors_and_output_that_are_not_those_of_the_steps_are_refused(
    tensors: dict[str, Tensor], graph: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"^deployed=.* cannot be loaded \(.{1,300}\)$"):
        storage.load(_directory(tmp_path, [["input"], RELU], tensors=tensors, **graph), _never)


@pytest.mark.parametrize(
    "setting",
    [{"compiled": 1}, {"scale": "1"}, {"scale": 0.0}, {"scale": float("inf")}, {"zero_point": None}],
)
def test_settings_of_a_graph_are_checked(setting: dict[str, Any], tmp_path: Path) -> None:
    _directory(tmp_path, [["input"], RELU])
    storage.describe(tmp_path, "graph", {"compiled": False, "scale": None, "zero_point": 0} | setting)
    with pytest.raises(UserError, match="cannot be loaded"):
        storage.load(tmp_path, _never)


@pytest.mark.parametrize(
    "step",
    [
        ["aten.new_zeros.default", [{"step": 0}, [2**40]], {}],
        ["aten.new_zeros.default", [{"step": 0}, [-1]], {}],
        ["aten.expand.default", [{"step": 0}, [2**20, 2**20, 2, 3, 4, 4]], {}],
        ["aten.repeat.default", [{"step": 0}, [2**20, 2**20, 1, 1]], {}],
        ["aten.pad.default", [{"step": 0}, [2**30, 2**30]], {}],
        ["aten.chunk.default", [{"step": 0}, 2], {}],
        ["aten.view.default", [{"step": 0}, [7]], {}],
        ["aten.matmul.default", [{"step": 0}], {}],
        ["aten.add.Tensor", [{"step": 0}, None], {}],
        ["getitem", [{"step": 0}, 99], {}],
    ],
    ids=lambda step: str(step)[:60],
)
def test_step_with_wrong_arguments_or_absurd_shapes_is_refused_before_it_is_computed(
    step: list[object], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"^deployed=graph: cannot be run \(.+\)$"):
        _run(_directory(tmp_path, [["input"], step]))


def test_numbers_that_grow_from_step_to_step_are_refused(tmp_path: Path) -> None:
    size = ["aten.sym_size.int", [{"step": 0}, 2], {}]
    squares = [["mul", [{"step": number}, {"step": number}], {}] for number in range(1, 40)]
    with pytest.raises(UserError, match="a number is beyond all bounds"):
        _run(_directory(tmp_path, [["input"], size, *squares], output=40))
