"""Fixtures: tiny runs, built as a user's command line would build them."""

import gc
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from tempfile import gettempdir
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis.configuration import set_hypothesis_home_dir
from PIL import Image

from fedsplit.building.process import prepare_process
from fedsplit.computing.memory import reuse_freed_memory
from fedsplit.config.choices import CONFIGS
from fedsplit.config.run_config import RunConfig
from fedsplit.training.experiment import Experiment
from tests.cases import mark_long
from tests.configurations import configuration
from tests.fast_hydra import make_hydra_fast
from tests.warm import warm_children

set_hypothesis_home_dir(Path(gettempdir()) / "hypothesis")  # what it notes of the source files it read
settings.register_profile(
    "default",
    max_examples=10,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.register_profile("nightly", settings.get_profile("default"), max_examples=200, derandomize=False)
settings.load_profile("default")  # `--hypothesis-profile=nightly` in `make test-long` comes after this
make_hydra_fast()

TINY = (
    "dataset.max_train=130",
    "dataset.max_test=60",
    "num_clients=3",
    "batch_size=8",
    "rounds=3",
    "progress=false",
    "auxiliary.align_epochs=4",
    "auxiliary.max_dataset_size=24",
    "auxiliary.align_batch_size=10",
)
"""130 samples over three clients: 44, 43 and 43, so that batches are ragged."""

MUCH_MEMORY = 200e6
"""Bytes that a test process grows by before it gives freed memory back, which takes half a second."""

PROCESSES = ("transport", "sweeps", "deployment", "tasks")
"""Rooms whose tests start processes: begun first, they leave no core idle at the end."""

ALGORITHMS = ("fed_avg", "splitfed_v1", "splitfed_v2", "cse_fsl", "fsl_sage")
"""Algorithms with tests of their own beside those that walk all choices."""

METHODS: dict[str, tuple[str, ...]] = {
    "vanilla_sl": (),
    "minibatch_sfl": (),
    "cycle_sl": (),
    "lgl_sl": (),
    "ampere": ("algorithm.device_rounds=1",),
    "fed_adam": (),
    "fed_yogi": (),
    "fed_avgm": (),
    "fed_prox": (),
    "heron": ("algorithm.server_update_interval=1",),
    "scaffold": (),
    "sglr": ("algorithm.phi=1",),
    "splitfed_v3": (),
    "fed_per": (),
    "ho_sfl": ("algorithm.probes=2", "optimizer=sgd"),
}
"""Algorithms that are made of the same moves, and settings with which three rounds show all of each."""

Configure = Callable[..., RunConfig]
Build = Callable[..., Experiment]


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Look for garbage once, and not time and again among all that stays: that takes seconds."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.collect()
        gc.freeze()


@pytest.hookimpl(tryfirst=True)  # before `-m "not long"` is looked at
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is beyond the cover that a test asks for as long; put the longest tests first."""
    mark_long(items)
    items.sort(key=lambda item: item.path.parent.name not in PROCESSES)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """So that processes can be, also where a shell that goes on beside the tests told them to ignore it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def _kept_memory() -> list[int]:
    """Resident bytes when memory was last given back."""
    return [_resident()]


@pytest.fixture(autouse=True)
def _small_worker(_kept_memory: list[int]) -> Iterator[None]:
    """Give freed memory back where much was used, as a run keeps it for its own next tensors."""
    yield
    if _resident() > _kept_memory[0] + MUCH_MEMORY:
        gc.collect()
        reuse_freed_memory()
        _kept_memory[0] = _resident()


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_auto_num_workers() -> int:
    """Workers for `-n auto`: one more than cores, for the time in which tests wait for other processes."""
    return len(os.sched_getaffinity(0)) + 1


_PEAK = "peak_memory"
_PEAKS = pytest.StashKey[list[float]]()
"""GB that each process that ran tests has held at most."""


def pytest_configure(config: pytest.Config) -> None:
    """Make place for what processes tell."""
    config.stash[_PEAKS] = []


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tell the most memory that this process has held."""
    peak = getrusage(RUSAGE_SELF).ru_maxrss / 1e6
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput[_PEAK] = peak
    elif not session.config.stash[_PEAKS]:  # the tests were in this process
        session.config.stash[_PEAKS].append(peak)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Keep what a worker told at its end."""
    if hasattr(node, "workeroutput"):  # one that was killed told nothing
        node.config.stash[_PEAKS].append(node.workeroutput[_PEAK])


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Show the peak memory of the processes that ran tests, beside the slowest tests."""
    peaks = sorted(terminalreporter.config.stash[_PEAKS], reverse=True)
    terminalreporter.write_line(f"peak memory: {', '.join(f'{each:.2f} GB' for each in peaks)}")


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def warm_processes() -> Iterator[None]:
    """What this package starts as a fresh process is one that has imported everything."""
    with warm_children():
        yield


@pytest.fixture
def configured() -> Configure:
    """Composes and checks a configuration from overrides."""

    return configuration


def tiny_experiment(*overrides: str) -> Experiment:
    """A tiny experiment on digits with further overrides, in a process prepared for it."""
    config = configuration(*TINY, *overrides)
    prepare_process(config)
    return Experiment(config)


@pytest.fixture
def tiny() -> Build:
    """Builds a `tiny_experiment`."""
    return tiny_experiment


@pytest.fixture
def float64() -> Iterator[None]:
    """Everything built meanwhile computes in float64."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return CONFIGS.parent


@pytest.fixture(scope="session")
def noise_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of colour images of 32x32 pixels, ten classes: noise."""
    root, draw = tmp_path_factory.mktemp("noise_images"), np.random.default_rng(0)
    for split, images in (("train", 13), ("test", 6)):
        for label in range(10):
            folder = root / split / f"class{label}"
            folder.mkdir(parents=True)
            for number in range(images):
                pixels = draw.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number:02d}.png")
    return root


@pytest.fixture
def cifar_sized(noise_images: Path, tiny: Build) -> Build:
    """Builds a tiny experiment on `noise_images`."""

    def build(*overrides: str) -> Experiment:
        return tiny("dataset=image_folder", f"dataset.root={noise_images}", *overrides)

    return build
