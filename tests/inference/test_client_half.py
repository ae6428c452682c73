import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from fedsplit.building.client_model import ClientArchitecture
from fedsplit.deployment.floats import Floats
from fedsplit.errors import RunFailed
from fedsplit.inference.process import ClientHalf
from tests.conftest import Configure

MEGABYTE = 10**6


def architecture(configured: Configure) -> ClientArchitecture:
    return ClientArchitecture(configured()["model"], "relu1", num_classes=10, channels=1, image_size=8)


def deployed(configured: Configure, folder: Path) -> tuple[ClientArchitecture, nn.Module]:
    made = architecture(configured)
    module = made.build()
    for parameter in module.parameters():
        nn.init.normal_(parameter, generator=torch.Generator().manual_seed(0))
    Floats(module, torch.float32).save(folder)
    return made, module


def test_another_process_gives_what_this_one_would(configured: Configure, tmp_path: Path) -> None:
    made, module = deployed(configured, tmp_path / "fp32")
    x = torch.randn(4, 1, 8, 8)
    with ClientHalf(tmp_path / "fp32", made, threads=1) as half:
        first, second = half.run(x), half.run(2 * x)
    with torch.inference_mode():
        assert torch.equal(first.smashed.decoded(), module(x))
        assert torch.equal(second.smashed.decoded(), module(2 * x))
    assert first.seconds > 0
    assert half.file_bytes == (tmp_path / "fp32" / "client.safetensors").stat().st_size
    assert 0 < half.memory_before <= first.peak_memory <= second.peak_memory


def test_memory_is_that_of_the_process_itself_and_not_of_who_started_it() -> None:
    """`ru_maxrss` of a process begins with what the process held that started it."""
    held = 400 * MEGABYTE
    begin = f"memory = bytearray({held}); import subprocess, sys; "
    inner = "from fedsplit.deployment.probe import peak_memory; print(peak_memory())"
    outer = begin + f"subprocess.run([sys.executable, '-c', 'import resource'], check=True); {inner}"
    bare = (
        begin
        + f"print(subprocess.run([sys.executable, '-c', {inner!r}], capture_output=True).stdout.decode())"
    )
    own, child = (
        int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout)
        for code in (outer, bare)
    )
    assert held < child + held - 100 * MEGABYTE < own


def test_a_process_that_cannot_load_says_why(configured: Configure, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunFailed, match=r"ended: .*holds no deployed client model"):
        ClientHalf(tmp_path / "empty", architecture(configured), threads=1).__enter__()
