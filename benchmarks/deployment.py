"""How much faster and smaller quantized client models are: int8 beside float32, in one thread.

    python benchmarks/deployment.py
    python benchmarks/deployment.py --only mobilenet_v2 --repeats 50 --row 1 --no-compile

Two client models: ResNet-18 with a 3x3 stem, cut after layer2, at 32x32; and the first half of
MobileNetV2, cut after features.9 (nine of its seventeen blocks), at 64x64. Weights are drawn, and BatchNorm
statistics with them: they change neither times nor sizes. What is compared takes turns; the ratio of
medians is what counts. The baseline is the module as torch runs it, in the memory format that torch has by
default, and with freed memory kept as in every run of fedsplit (without, it takes up to twice as long);
the rows `channels_last` and `onnx fp32` say how much of the gain is not that of int8.

Each runs some times in a row when it is its turn, as on a device that runs one model. With `--row 1` each
finds the caches full of another's weights.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from fedsplit.computing.memory import reuse_freed_memory
from fedsplit.deployment import storage
from fedsplit.deployment.backends.backend import Backend, DeployedModel
from fedsplit.deployment.backends.floats import FloatBackend
from fedsplit.deployment.backends.onnx_runtime import OnnxFloat, OnnxStatic
from fedsplit.deployment.backends.openvino_runtime import OpenVinoStatic
from fedsplit.deployment.backends.pt2e import Pt2eStatic
from fedsplit.models.splitting.split import split
from fedsplit.models.zoo.cifar_resnet import resnet_32x32
from fedsplit.models.zoo.classifiers import classifier

_WARM_UP = 3
BATCH_SIZES = (1, 16)


@dataclass(frozen=True)
class Case:
    """A model, its cut, and the side of its images in pixels."""

    make: Callable[[int], nn.Module]
    cut: str
    side: int

    def client(self) -> nn.Module:
        """The client model, with BatchNorm statistics as of a trained one."""
        torch.manual_seed(0)
        whole = self.make(self.side)
        for module in whole.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(std=0.1)
                module.running_var.uniform_(0.5, 2)
        return split(whole, self.cut, torch.randn(2, 3, self.side, self.side)).client.eval()


CASES = {
    "resnet18_32x32": Case(
        lambda side: resnet_32x32(depth=18, num_classes=10, channels=3, image_size=side), "layer2", 32
    ),
    "mobilenet_v2": Case(
        lambda side: classifier(name="mobilenet_v2", num_classes=10, channels=3, image_size=side),
        "features.9",
        64,
    ),
}


def deployed(backend: Backend, client: nn.Module, side: int) -> DeployedModel:
    """Prepared, calibrated on noise and converted."""
    backend.prepare(client, torch.randn(2, 3, side, side))
    backend.calibrate([torch.randn(16, 3, side, side) for _ in range(4)])
    return backend.convert()


def file_size(model: DeployedModel) -> int:
    """Bytes of the model's file."""
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder))
        return storage.size(Path(folder))


def turns(sides: dict[str, Callable[[], object]], repeats: int, row: int = 1) -> dict[str, list[float]]:
    """Seconds of each run; `row` of them in a turn count, behind one that does not if they are several."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(_WARM_UP + repeats):
        for name, run in sides.items():
            if row > 1:
                run()
            for _ in range(row):
                start = time.perf_counter()
                run()
                if turn >= _WARM_UP:
                    seconds[name].append(time.perf_counter() - start)
    return seconds


def measure(case: Case, *, repeats: int, row: int, compiled: bool) -> Table:
    """Times and sizes of a model."""
    client = case.client()
    models = {
        "channels_last": deployed(FloatBackend("float32"), client, case.side),
        "onnx fp32": deployed(OnnxFloat(), client, case.side),
        "onnx int8": deployed(OnnxStatic(), client, case.side),
        "openvino int8": deployed(OpenVinoStatic(), client, case.side),
    }
    if compiled:
        models["pt2e int8, compiled"] = deployed(Pt2eStatic(compiled=True), client, case.side)
    sizes = {name: file_size(model) for name, model in models.items()}
    table = Table("samples", "", *("ms", "p95", "eager / it", "onnx fp32 / it", "file kB", "of fp32"))
    for samples in BATCH_SIZES:
        x = torch.randn(samples, 3, case.side, case.side)

        def eager(x: Tensor = x) -> Tensor:
            with torch.inference_mode():
                return client(x)

        runs = {name: (lambda model=model, x=x: model.run_quantized(x)) for name, model in models.items()}
        seconds = turns({"eager": eager, **runs}, repeats, row)
        medians = {name: median(each) for name, each in seconds.items()}
        for name, each in seconds.items():
            size, kind = sizes.get(name), "onnx fp32" if name.endswith("int8") else "channels_last"
            table.add_row(
                str(samples),
                name,
                f"{1e3 * medians[name]:.2f}",
                f"{1e3 * sorted(each)[int(0.95 * len(each))]:.2f}",
                f"{medians['eager'] / medians[name]:.2f}",
                f"{medians['onnx fp32'] / medians[name]:.2f}",
                f"{size / 1e3:.1f}" if size else "",
                f"{size / sizes[kind]:.3f}" if size else "",
            )
    return table


def main() -> None:
    """Measure models and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--repeats", type=int, default=15, help="turns that count")
    parser.add_argument("--row", type=int, default=5, help="runs of each in a turn that count")
    parser.add_argument("--no-compile", action="store_true", help="without PT2E, which compiles for a minute")
    options = parser.parse_args()
    torch.set_num_threads(1)
    reuse_freed_memory()
    console = Console(width=max(Console().width, 110))
    for name in options.only:
        case = CASES[name]
        console.print(f"\n{name}, cut {case.cut}, {case.side}x{case.side}", highlight=False)
        console.print(
            measure(case, repeats=options.repeats, row=options.row, compiled=not options.no_compile)
        )


if __name__ == "__main__":
    main()
