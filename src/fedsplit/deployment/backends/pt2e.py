"""PyTorch's own way to int8: a graph exported, quantized by torchao, and compiled by inductor."""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, fx, nn
from torch._dynamo.exc import BackendCompilerFailed
from torch._inductor import config as inductor
from torch._inductor.exc import InductorError
from typing_extensions import override

from fedsplit.computing.model_state import compute_format
from fedsplit.deployment import storage
from fedsplit.deployment.backends.backend import Backend, Build, DeployedModel, SmashedData
from fedsplit.deployment.backends.exporting import exporting, quietly
from fedsplit.deployment.backends.graph_file import OperationGraph
from fedsplit.deployment.calibration import check_batches
from fedsplit.errors import UserError, first_line

with quietly():  # torchao warns of kernels for other machines
    import torchao.quantization.pt2e.quantizer.x86_inductor_quantizer as x86
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

_FILE = "client.safetensors"
_QUANTIZED = torch.ops.quantized_decomposed
_RESHAPES = (torch.ops.aten.flatten.using_ints, torch.ops.aten.view.default, torch.ops.aten.reshape.default)
_WEIGHTED = (
    *(torch.ops.aten.conv1d.default, torch.ops.aten.conv2d.default, torch.ops.aten.linear.default),
    *(torch.ops.aten.matmul.default, torch.ops.aten.addmm.default, torch.ops.aten.conv3d.default),
)


class Pt2eGraph(DeployedModel):
    """A graph with operations that quantize and decode between its others.

    Not compiled it decodes weights and activations and computes in float32: right, and slow.

    Args:
        compiled: True to compile by inductor, for each number of samples anew; takes up to a minute each.
        scale: scale of the output's codes; None of a graph whose output is no codes.
    """

    def __init__(
        self, graph: OperationGraph, *, compiled: bool, scale: float | None, zero_point: int
    ) -> None:
        self._graph, self._compiled, self._scale, self._zero_point = graph, compiled, scale, zero_point
        self._run: Callable[[Tensor], Tensor] = graph
        if compiled:
            self._run = torch.compile(graph, dynamic=False)
        self._seen: set[torch.Size] = set()

    @classmethod
    def of(cls, graph: fx.GraphModule, *, compiled: bool) -> Self:
        """A graph of `torch.export`; where it decodes its output last, it is made to end with the codes.

        Raises:
            UserError: an operation is none that a deployed graph can hold; says which.
        """
        scale, zero_point = _end_with_codes(graph)
        try:
            operations = OperationGraph.of(graph)
        except ValueError as error:
            raise UserError("model", "PT2E", f"cannot be deployed as a graph ({error})") from error
        return cls(operations, compiled=compiled, scale=scale, zero_point=zero_point)

    @torch.inference_mode()
    @override
    def run_quantized(self, x: Tensor) -> SmashedData:
        x = compute_format(x)
        z = self._run(x) if x.shape in self._seen else self._run_first(x)
        return SmashedData(z, self._scale, self._zero_point)

    def _run_first(self, x: Tensor) -> Tensor:
        """The output for the first inputs of a shape, once all operations were found to fit them."""
        try:
            self._graph.check(x)
        except ValueError as error:
            raise UserError("deployed", "graph", f"cannot be run ({error})") from error
        z = self._compile(x) if self._compiled else self._run(x)
        self._seen.add(x.shape)
        return z

    def _compile(self, x: Tensor) -> Tensor:
        # frozen weights are what inductor needs to put whole numbers into its products
        try:
            with quietly(), inductor.patch(freezing=True, compile_threads=1):
                z = self._run(x)
        except (InductorError, BackendCompilerFailed) as error:
            raise UserError("model", "PT2E", f"cannot be compiled here ({first_line(error)})") from error
        return z

    @override
    def save(self, directory: Path) -> None:
        settings = {"compiled": self._compiled, "scale": self._scale, "zero_point": self._zero_point}
        storage.describe(directory, "graph", settings)
        self._graph.write(directory / _FILE)

    @classmethod
    @override
    def load(cls, directory: Path, build: Build) -> Self:
        settings = storage.description(directory)
        compiled, (scale, zero_point) = settings.get("compiled"), storage.grid(settings)
        if not isinstance(compiled, bool):
            raise ValueError("compiled is true or false")
        graph = OperationGraph.read(directory / _FILE)
        return cls(graph, compiled=compiled, scale=scale, zero_point=zero_point)


def _end_with_codes(module: fx.GraphModule) -> tuple[float | None, int]:
    """Let a graph put out codes that it would decode last, be it before a change of shape; their grid."""
    output = module.graph.output_node()
    (node,) = output.all_input_nodes
    after: fx.Node = output
    while node.target in _RESHAPES and len(node.users) == 1:
        after, node = node, node.all_input_nodes[0]
    if node.target is not _QUANTIZED.dequantize_per_tensor.default:
        return None, 0
    codes, scale, zero_point = node.args[:3]
    after.replace_input_with(node, codes)  # type: ignore[arg-type]
    if not node.users:
        module.graph.erase_node(node)
    module.recompile()
    return float(scale), int(zero_point)  # type: ignore[arg-type]


class Pt2eStatic(Backend):
    """Weights int8, a scale a channel; activations uint8, by ranges of calibration; for x86 processors.

    Args:
        compiled: True if inductor makes the model faster when it first runs. It needs a C++ compiler.
    """

    calibrates = True

    def __init__(self, *, compiled: bool) -> None:
        self._compiled = compiled

    @override
    def prepare(self, module: nn.Module, example: Tensor) -> None:
        self._example = example
        quantizer = x86.X86InductorQuantizer()
        quantizer.set_global(x86.get_default_x86_inductor_quantization_config())
        with exporting():
            self._prepared = prepare_pt2e(export_graph(module, example), quantizer)

    @torch.no_grad()
    @override
    def calibrate(self, batches: Sequence[Tensor]) -> None:
        check_batches(batches, self._example)
        for batch in batches:
            self._prepared(batch)

    @override
    def convert(self) -> DeployedModel:
        with exporting():
            graph = convert_pt2e(self._prepared)
        weighted = [node for node in graph.graph.nodes if node.target in _WEIGHTED]
        self.unquantized = tuple(sorted({_kind(node) for node in weighted if not _decodes(node)}))
        if not any(map(_decodes, weighted)):
            raise UserError("model", type(graph).__name__, "torchao can quantize none of its operations")
        return Pt2eGraph.of(graph, compiled=self._compiled)


def export_graph(module: nn.Module, example: Tensor) -> fx.GraphModule:
    """Export a module in evaluation mode as one graph of torch's operations, for any number of samples.

    Raises:
        UserError: it cannot be made one.
    """
    module = copy.deepcopy(module).eval()
    shapes = ({0: torch.export.Dim("batch")},)
    try:
        program = torch.export.export(module, (example,), dynamic_shapes=shapes, strict=True)
    except Exception as error:  # dynamo raises errors of many kinds
        reason = first_line(error)
        raise UserError("model", type(module).__name__, f"cannot be exported ({reason})") from error
    graph: fx.GraphModule = program.module()
    return graph


def _decodes(node: fx.Node) -> bool:
    first = node.all_input_nodes[0]
    return str(first.target).startswith("quantized_decomposed.dequantize")


def _kind(node: fx.Node) -> str:
    return str(node.target).split(".")[1]
