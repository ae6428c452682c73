"""Deployed client models, loaded and run by a process that knows nothing but their directories."""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from fedsplit.building.client_model import ClientArchitecture
from fedsplit.deployment.backends.backend import DeployedModel

_CODE = """
import json, sys, torch
from pathlib import Path
from safetensors.torch import load_file, save_file
from fedsplit.building.client_model import ClientArchitecture
from fedsplit.deployment import storage
torch.set_num_threads(1)
folder, architectures = Path(sys.argv[1]), json.loads(sys.argv[2])
inputs = load_file(folder / "inputs.safetensors")
smashed = {}
for name, architecture in architectures.items():
    model = storage.load(folder / name, ClientArchitecture.of(architecture).build)
    smashed[name] = model.run(inputs[name]).contiguous()
save_file(smashed, folder / "smashed.safetensors")
assert "openvino_telemetry" not in sys.modules or sys.modules["openvino_telemetry"] is None
"""


@dataclass(frozen=True)
class Task:
    """A deployed client model, what its module is made from, and inputs to run it on."""

    model: DeployedModel
    architecture: ClientArchitecture
    inputs: Tensor


def run_elsewhere(tasks: Mapping[str, Task], folder: Path) -> dict[str, Tensor]:
    """Smashed data by name, of a fresh process that loads all models from `folder`, where they are saved."""
    for name, task in tasks.items():
        task.model.save(folder / name)
    save_file({name: task.inputs.clone() for name, task in tasks.items()}, folder / "inputs.safetensors")
    architectures = json.dumps({name: task.architecture.plain() for name, task in tasks.items()})
    command = [sys.executable, "-c", _CODE, str(folder), architectures]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return load_file(folder / "smashed.safetensors")
