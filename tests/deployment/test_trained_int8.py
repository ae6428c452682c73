"""Client models that were trained for int8 give, deployed, what they gave in training's arithmetic."""

from pathlib import Path

import pytest
import torch
from torch import nn

from fedsplit.deployment import storage
from fedsplit.deployment.precisions import Int8Backend
from fedsplit.deployment.trained_int8 import TrainedInt8
from fedsplit.errors import UserError
from fedsplit.models.split import split
from tests.deployment.fresh_process import run_elsewhere
from tests.deployment.models import client_of
from tests.models.test_int8_graph import SHAPE, plain, residual, trained
from tests.quant.test_weight_grid import drawn

RUNTIMES: tuple[Int8Backend, ...] = ("onnx", "openvino", "pt2e")


@pytest.mark.parametrize(("model", "cut"), [(plain, "3"), (residual, "layer1")])
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_codes_are_those_of_training_to_some_steps_and_the_same_when_loaded(
    model: type[nn.Module], cut: str, runtime: Int8Backend, tmp_path: Path
) -> None:
    client, x = trained(model(), cut), drawn(64, *SHAPE)
    with torch.no_grad():
        expected = client(x)
    step = float(torch.unique(expected).diff().min())
    backend = TrainedInt8(runtime)
    backend.prepare(client, x[:2])
    deployed = backend.convert()
    assert backend.unquantized == ()
    sent = deployed.run_quantized(x)
    assert sent.values.dtype == torch.uint8
    assert sent.scale == pytest.approx(step, rel=1e-4)
    steps = (deployed.run(x) - expected).abs() / step
    assert steps.max() < 6  # one operation's rounding moves that of the next
    assert steps.mean() < 0.6
    deployed.save(tmp_path / "model")
    again = storage.load(tmp_path / "model", lambda: client)
    assert torch.equal(again.run(x), deployed.run(x))


def test_the_same_bits_in_a_fresh_process(tmp_path: Path) -> None:
    client, x = trained(residual(), "layer1"), drawn(64, *SHAPE)
    models = {}
    for runtime in RUNTIMES:
        backend = TrainedInt8(runtime)
        backend.prepare(client, x[:2])
        models[runtime] = backend.convert()
    found = run_elsewhere(models, client_of("resnet20").architecture, x, tmp_path)
    for runtime, model in models.items():
        assert torch.equal(found[runtime], model.run(x))


def test_a_model_that_was_not_trained_for_it_is_refused() -> None:
    client = split(plain(), "3", drawn(2, *SHAPE)).client
    with pytest.raises(UserError, match=r"^precision=qat_int8: only of a run trained with qat=true$"):
        TrainedInt8("onnx").prepare(client, drawn(2, *SHAPE))
