import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from fedsplit.building.client_model import ClientArchitecture
from fedsplit.data.images import image_sizes
from fedsplit.deployment.backends.floats import Floats
from fedsplit.deployment.probe import peak_memory
from fedsplit.errors import RunFailed
from fedsplit.inference.client_half import ClientHalf
from tests.conftest import Configure

MEGABYTE = 10**6
PAGE = os.sysconf("SC_PAGE_SIZE")


def architecture_of_digits(configured: Configure) -> ClientArchitecture:
    config = configured()
    return ClientArchitecture(
        config.model, config.adapter, untie=False, cut="relu1", sizes=image_sizes(10, 1, 8)
    )


def save_client_half(configured: Configure, folder: Path) -> tuple[ClientArchitecture, nn.Module]:
    made = architecture_of_digits(configured)
    module = made.build()
    for parameter in module.parameters():
        nn.init.normal_(parameter, generator=torch.Generator().manual_seed(0))
    Floats(module, torch.float32).save(folder)
    return made, module


def test_client_half_in_another_process_gives_what_the_module_gives_here(
    configured: Configure, tmp_path: Path
) -> None:
    made, module = save_client_half(configured, tmp_path / "fp32")
    x = torch.randn(4, 1, 8, 8)
    with ClientHalf(tmp_path / "fp32", made, threads=1) as half:
        first, second = half.run(x), half.run(2 * x)
    with torch.inference_mode():
        assert torch.equal(first.smashed.decode(), module(x))
        assert torch.equal(second.smashed.decode(), module(2 * x))
    assert first.seconds > 0
    assert half.file_bytes == (tmp_path / "fp32" / "client.safetensors").stat().st_size
    assert 0 < half.memory_before <= first.peak_memory <= second.peak_memory


def test_peak_memory_is_that_of_the_process_itself_and_not_of_who_started_it() -> None:
    """`ru_maxrss` of a process begins with what the process held that started it."""
    code = "from fedsplit.deployment.probe import peak_memory; print(peak_memory())"
    held = bytearray(200 * MEGABYTE)
    own, now = peak_memory(), int(Path("/proc/self/statm").read_text().split()[1]) * PAGE
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert own > now - 10 * MEGABYTE  # the system counts pages a little late
    assert 100 * MEGABYTE < int(done.stdout) < own - len(held)


@pytest.mark.usefixtures("warm_processes")
@pytest.mark.usefixtures("warm_processes")
def test_client_half_that_cannot_be_loaded_ends_with_the_reason(
    configured: Configure, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunFailed, match=r"ended: .*holds no deployed client model"):
        ClientHalf(tmp_path / "empty", architecture_of_digits(configured), threads=1).__enter__()
