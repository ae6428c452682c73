"""Precision and compilation of training passes."""

from collections.abc import Callable

import pytest
import torch

from fedsplit.building.process import prepare_process
from fedsplit.errors import UserError
from tests.cases import long_but
from tests.conftest import ALGORITHMS, Build


# not resnet18: on 8x8 images its last stages see single pixels, whose weight gradients in bf16 torch's CPU
# kernels of 3x3 convolutions with stride 2 read from memory that nobody wrote
@pytest.mark.parametrize("engine", ["auto", "sequential"])
@pytest.mark.parametrize("model", ["digits_cnn", "simple_conv"])
def test_bf16_rounds_passes_but_neither_weights_nor_messages(tiny: Build, model: str, engine: str) -> None:
    settings = [f"model={model}", f"engine={engine}", "algorithm=splitfed_v1", "dataset.max_train=50"]
    exact, rounded = tiny(*settings), tiny(*settings, "precision=bf16")
    ours, theirs = exact.run_round(0), rounded.run_round(0)
    assert ours.train_loss != theirs.train_loss
    assert ours.train_loss == pytest.approx(theirs.train_loss, rel=0.05)
    assert ours.bytes == theirs.bytes
    assert {t.dtype for t in rounded.algorithm.full_weights().values()} <= {torch.float32, torch.int64}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_algorithm_in_bf16_lowers_its_loss(tiny: Build, algorithm: str) -> None:
    run = tiny(f"algorithm={algorithm}", "precision=bf16")
    losses = [run.run_round(t).train_loss for t in range(2)]
    assert losses[1] < losses[0] < 2.5


def test_tf32_is_refused_on_a_cpu_and_float32_is_exact_by_default(tiny: Build) -> None:
    with pytest.raises(UserError, match="precision=tf32: must be fp32 or bf16 on device=cpu"):
        tiny("precision=tf32", "device=cpu")
    prepare_process(tiny().config)
    assert torch.backends.cuda.matmul.fp32_precision == "ieee"
    assert torch.backends.cudnn.fp32_precision == "ieee"


@pytest.mark.filterwarnings("ignore:.*script_method:DeprecationWarning")  # torch's own, on import
@pytest.mark.parametrize("algorithm", long_but(["fsl_sage"], ["splitfed_v2", "fsl_sage"]))
def test_compiled_run_has_the_losses_of_an_uncompiled_one(
    tiny: Build, algorithm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    traced: list[Callable[..., object]] = []

    def traced_only(function: Callable[..., object]) -> Callable[..., object]:
        traced.append(function)
        compiled: Callable[..., object] = compile_(function, backend="aot_eager")
        return compiled

    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", traced_only)  # without the minute that a real backend takes
    plain = tiny(f"algorithm={algorithm}", "engine=sequential")
    compiled = tiny(f"algorithm={algorithm}", "compile=true")
    assert len(traced) == 2
    for t in range(2):
        assert plain.run_round(t).train_loss == pytest.approx(compiled.run_round(t).train_loss, rel=1e-5)


def test_compile_with_the_vectorized_engine_is_refused(tiny: Build) -> None:
    with pytest.raises(UserError, match="compile=True: must be false with engine=vectorized"):
        tiny("compile=true", "engine=vectorized")
