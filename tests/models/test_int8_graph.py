"""Models trained for int8, in whole numbers: they give what they gave in training's arithmetic."""

import io
import warnings

import pytest
import torch
from torch import Tensor, fx, nn

from fedsplit.models.rounding.int8_graph import int8_graph
from fedsplit.models.rounding.quantized_training import FakeQuantization, build_fake_quantized
from fedsplit.models.splitting.split import split
from fedsplit.models.zoo.cifar_resnet import cifar_resnet
from fedsplit.quant.weight_grid import WeightBits
from tests.quant.test_weight_grid import drawn

SHAPE = (3, 8, 8)


def plain() -> nn.Module:
    """A convolution without batch normalisation, with padding of another kind, and a linear layer."""
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, padding_mode="reflect"),
        nn.ReLU6(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(96, 12),
        nn.ReLU(),
        nn.Linear(12, 10),
    )


def residual() -> nn.Module:
    """Convolutions with batch normalisation, and sums."""
    return cifar_resnet(num_classes=10, channels=3, image_size=8, depth=20)


def trained(whole: nn.Module, cut: str, bits: WeightBits = 8) -> fx.GraphModule:
    """The client model with ranges and statistics of some batches, and scales that are negative, or zero."""
    torch.manual_seed(0)
    client = split(whole.train(), cut, drawn(2, *SHAPE)).client
    made = build_fake_quantized(client, drawn(2, *SHAPE), FakeQuantization(bits, activations=True))
    norms = [each for each in made.modules() if isinstance(each, nn.BatchNorm2d)]
    with torch.no_grad():
        for norm in norms:
            norm.weight.uniform_(-1.5, 1.5)
            norm.weight[0] = 0
            norm.bias.normal_()
        for _ in range(5):
            made(torch.randn(32, *SHAPE))
    return made.eval()


CASES = [(plain, "5"), (plain, "3"), (residual, "layer1")]


@pytest.mark.parametrize(("model", "cut"), CASES)
@pytest.mark.parametrize("bits", [8, 4, 1])
def test_int8_graph_gives_the_outputs_of_the_fake_quantized_model(
    model: type[nn.Module], cut: str, bits: WeightBits
) -> None:
    client, x = trained(model(), cut, bits), drawn(64, *SHAPE)
    with torch.no_grad():
        ours, theirs = int8_graph(client)(x), client(x)
    steps = (ours - theirs).abs() / _step(theirs)
    assert steps.max() < 2.5
    assert (steps > 0.5).float().mean() < 0.01
    assert len(torch.unique(theirs)) > 20


def test_int8_graph_holds_8_bit_codes_and_no_floating_point_weights() -> None:
    graph = int8_graph(trained(residual(), "layer1"))
    held = graph.state_dict()
    codes = {name: each for name, each in held.items() if name.endswith(".codes")}
    assert len(codes) == 7
    assert all(each.dtype == torch.int8 for each in codes.values())
    assert {name.rpartition(".")[2] for name in held} == {"codes", "scales", "zeros", "bias"}
    assert not any(isinstance(each, nn.BatchNorm2d) for each in graph.modules())
    assert all(bool((each > 0).all()) for name, each in held.items() if name.endswith(".scales"))


def test_int8_graph_of_a_model_without_ranges_is_refused() -> None:
    client = split(plain().train(), "3", drawn(2, *SHAPE)).client
    made = build_fake_quantized(client, drawn(2, *SHAPE), FakeQuantization(8, activations=True))
    with pytest.raises(ValueError, match="knows no ranges"):
        int8_graph(made)


@pytest.mark.parametrize(("model", "cut"), [(plain, "3"), (residual, "layer1")])
def test_int8_graph_exported_to_onnx_runtime_gives_the_same_outputs(
    model: type[nn.Module], cut: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    client, x = trained(model(), cut), drawn(64, *SHAPE)
    # exporters read this flag by an old name, which torch refuses once another test has set it by its new one
    monkeypatch.setattr(torch.backends.cudnn, "fp32_precision", "tf32")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        batch = {0: torch.export.Dim("batch")}
        program = torch.onnx.export(
            int8_graph(client), (x,), dynamo=True, dynamic_shapes=(batch,), verbose=False
        )
    assert program is not None
    file = io.BytesIO()
    program.save(file)
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    ours = torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])
    with torch.no_grad():
        theirs = client(x)
    steps = (ours - theirs).abs() / _step(theirs)
    assert steps.max() < 8.5  # its sums of codes round once more, and what follows them multiplies that
    assert steps.mean() < 0.2


def _step(z: Tensor) -> float:
    """The scale of smashed data: the least distance between two of their values."""
    values = torch.unique(z)
    return float(values.diff().min())
