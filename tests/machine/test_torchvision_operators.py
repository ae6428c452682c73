import subprocess
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
import torch
from torch import nn

from fedsplit.machine.torchvision_operators import torchvision


def test_torchvision_import_gives_the_same_module_every_time() -> None:
    module = torchvision()
    assert module.__name__ == "torchvision"
    assert sys.modules["torchvision"] is module
    assert torchvision() is module


def test_torchvision_models_compute_without_the_compiled_operators() -> None:
    block = torchvision().models.resnet.BasicBlock(4, 4).eval()
    x = torch.randn(2, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = block(x)
        hidden = nn.functional.relu(block.bn1(block.conv1(x)))
        expected = nn.functional.relu(block.bn2(block.conv2(hidden)) + x)
    torch.testing.assert_close(found, expected)


class _Failing:
    """Makes the import of torchvision fail."""

    def __init__(self, error: Exception) -> None:
        self.error, self.asked = error, 0

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: object = None
    ) -> ModuleSpec | None:
        if name == "torchvision":
            self.asked += 1
            raise self.error
        return None


@pytest.mark.parametrize("error", [RuntimeError("something else is wrong"), ImportError("not installed")])
def test_torchvision_import_raises_any_other_failure(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    torchvision()
    finder = _Failing(error)
    monkeypatch.delitem(sys.modules, "torchvision")
    monkeypatch.setattr(sys, "meta_path", [finder, *sys.meta_path])
    with pytest.raises(type(error), match=str(error)):
        torchvision.__wrapped__()
    assert finder.asked == 1


def test_torchvision_import_without_compiled_operators_succeeds_with_their_schemas(tmp_path: Path) -> None:
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text(  # as torchvision's own import does
        "import torch\n"
        "for name in ('nms', 'qnms'):\n"
        "    torch.library.register_fake(f'torchvision::{name}')(lambda *arguments: None)\n"
    )
    program = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
try:
    import torchvision
except RuntimeError as error:
    assert "torchvision::nms" in str(error), error
else:
    raise SystemExit("the stand-in should have failed")
from fedsplit.machine.torchvision_operators import torchvision
print(torchvision().__file__)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(package / "__init__.py")
