"""Client models that were trained for int8 give, deployed, what they gave in training's arithmetic."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from fedsplit.deployment import storage
from fedsplit.deployment.backends.trained_int8 import TrainedInt8
from fedsplit.deployment.precisions import Int8Backend
from fedsplit.errors import UserError
from fedsplit.models.splitting.split import split
from tests.deployment.models import deployed_as_trained, trained_client, trained_inputs
from tests.models.test_int8_graph import SHAPE, plain, residual
from tests.quant.test_weight_grid import drawn

RUNTIMES: tuple[Int8Backend, ...] = ("onnx", "openvino", "pt2e")


@pytest.mark.parametrize(
    ("runtime", "model", "cut"),
    [
        *((runtime, residual, "layer1") for runtime in RUNTIMES),
        *((runtime, plain, "3") for runtime in ("onnx", "pt2e")),
        pytest.param("openvino", plain, "3", marks=pytest.mark.long),  # reads what ONNX Runtime reads
    ],
)
def test_client_trained_for_int8_gives_its_codes_of_training_to_some_steps_also_when_loaded(
    runtime: Int8Backend, model: Callable[[], nn.Module], cut: str, tmp_path: Path
) -> None:
    client, x = trained_client(model, cut), trained_inputs()
    with torch.no_grad():
        expected = client(x)
    step = float(torch.unique(expected).diff().min())
    deployed = deployed_as_trained(runtime, model, cut)
    sent = deployed.run_quantized(x)
    assert sent.values.dtype == torch.uint8
    assert sent.scale == pytest.approx(step, rel=1e-4)
    steps = (deployed.run(x) - expected).abs() / step
    # One operation's rounding moves that of the next: a few values are several steps off, how many depends on
    # the processor: OpenVINO was seen with a mean of 0.62 steps, 0.3% beyond three, relative error 0.011. A
    # zero point that is off by one moves every value by a step; a scale 5% off, a third of them beyond three.
    assert steps.mean() < 0.85
    assert (steps > 3.5).double().mean() < 0.05
    assert (deployed.run(x) - expected).norm() < 0.03 * expected.norm()
    deployed.save(tmp_path / "model")
    again = storage.load(tmp_path / "model", lambda: client)
    assert torch.equal(again.run(x), deployed.run(x))


def test_client_not_trained_for_int8_is_refused_by_the_backend_of_trained_ones() -> None:
    client = split(plain(), "3", drawn(2, *SHAPE)).client
    with pytest.raises(UserError, match=r"^precision=qat_int8: needs a run that was trained with qat=true$"):
        TrainedInt8("onnx").prepare(client, drawn(2, *SHAPE))
