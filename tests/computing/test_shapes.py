import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp, TensorMetadata
from typing_extensions import override

from fedsplit.computing.shapes import TensorShape, note_shapes, shape_at


class Mixed(nn.Module):
    """Gives tensors of several types, a number, a pair and a size."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3)

    @override
    def forward(self, x: Tensor) -> Tensor:
        low, high = self.convolution(x).split(2, dim=1)
        chosen = (low > high).to(torch.float64)
        return chosen.reshape(x.size(0), -1)


def test_noted_shapes_are_those_of_shape_prop() -> None:
    module, x = fx.symbolic_trace(Mixed()), torch.randn(5, 3, 6, 6)
    note_shapes(module, x)
    ShapeProp(module).propagate(x)
    expected = {node.name: node.meta.get("tensor_meta") for node in module.graph.nodes}
    single = {name: each for name, each in expected.items() if isinstance(each, TensorMetadata)}
    assert len(expected) - len(single) == 2  # the pair and the size
    assert {node.name: shape_at(node) for node in module.graph.nodes} == {
        name: TensorShape(single[name].shape, single[name].dtype) if name in single else None
        for name in expected
    }
