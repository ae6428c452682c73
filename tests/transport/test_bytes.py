"""The communication load is what gRPC really carries: there is little else on the socket.

That payloads are what is counted, to the byte, is a part of `test_same_bits.py`.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedsplit.recording.ledger import DIRECTIONS
from fedsplit.training.experiment import Experiment
from fedsplit.transport.grpc.server import spawning, transport
from fedsplit.transport.transport import RunSetting
from tests.conftest import ALGORITHMS, Configure
from tests.transport.proxy import Proxy
from tests.transport.runs import ran
from tests.transport.weighing import counted

AT_MOST = 1.02
"""Bytes on the socket for each byte of load.

What is more is, for each client, about 4 kB of plan when it comes in, and for each message some 30 bytes of
identity, 60 bytes for each tensor that is announced, frames of HTTP/2 (9 bytes for each 16 kB), and what
gRPC sends back to say how much was read. Three rounds, so that plans do not count for more than they do.
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the shape of CIFAR-10: noise, 512 to train on and ten to test with."""
    root, draw = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for split, number in (("train", 512), ("test", 10)):
        for image in range(number):
            folder = root / split / f"class{image % 10}"
            folder.mkdir(parents=True, exist_ok=True)
            pixels = draw.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{image:03d}.png", compress_level=0)
    return root


@pytest.mark.parametrize(
    ("algorithm", "quant"),
    [
        *(pytest.param(each, "none", marks=pytest.mark.long) for each in ALGORITHMS),
        pytest.param("fsl_sage", "int8", marks=pytest.mark.long),
    ],
)
def test_bytes_on_the_socket_are_hardly_more_than_the_communication_load(
    *,
    configured: Configure,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    warm_processes: None,
    record_property: Callable[[str, object], None],
    algorithm: str,
    quant: str,
) -> None:
    seen: Counter[str] = Counter()

    @contextmanager
    def spawned(
        server: str, folder: Path, run: RunSetting, fail: Callable[[str], None], *, in_turn: bool
    ) -> Iterator[None]:
        with Proxy(int(server.rpartition(":")[2])) as proxy:
            with spawning.spawn(f"127.0.0.1:{proxy.port}", folder, run, fail, in_turn=in_turn):
                yield
            seen.update(up=proxy.up, down=proxy.down)

    monkeypatch.setattr(transport, "spawn", spawned)
    overrides = ["dataset=image_folder", f"dataset.root={images}", "model=simple_conv", "batch_size=128"]
    overrides += [f"algorithm={algorithm}", f"quant={quant}", "num_clients=2", "rounds=3", "progress=false"]
    overrides += ["auxiliary.align_epochs=1", "auxiliary.max_dataset_size=128", "transport=grpc"]
    experiment = Experiment(configured(*overrides))
    ran(experiment, tmp_path / "run")
    load = Counter[str]()
    for (_, direction), size in counted(experiment).items():
        load[direction] += size
    for direction in DIRECTIONS:
        share = seen[direction] / load[direction]
        told = f"{load[direction]} B of load, {seen[direction]} on the socket, {100 * (share - 1):.3f} % more"
        record_property(direction, told)
        print(f"{algorithm} {quant} {direction}: {told}")
        assert 1 < share <= AT_MOST
