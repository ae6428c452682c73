"""What is told where a part of the installation is missing."""

import shlex
from pathlib import Path

import pytest

from fedsplit.errors import UserError
from fedsplit.machine import extras
from fedsplit.machine.extras import extra, install_command


@pytest.mark.parametrize("package", ["google", "google.protobuf", "grpc", "grpc_health.v1"])
def test_missing_package_of_grpc_is_told_by_the_names_that_pip_knows(package: str) -> None:
    with pytest.raises(UserError) as caught, extra("transport", "grpc"):
        raise ModuleNotFoundError(name=package)
    assert str(caught.value) == f"transport=grpc: needs grpcio and protobuf: {install_command('grpc')}"


def test_install_command_of_a_checkout_is_pinned_and_names_the_checkout(root: Path) -> None:
    pinned = str(root / "constraints.txt")
    assert shlex.split(install_command("plot")) == ["pip", "install", "-c", pinned, "-e", f"{root}[plot]"]


def test_install_command_of_an_installed_package_names_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extras, "__file__", str(tmp_path / "lib/site-packages/fedsplit/machine/extras.py"))
    assert install_command("plot") == "pip install 'fedsplit[plot]'"
