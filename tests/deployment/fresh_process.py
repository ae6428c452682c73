"""Deployed client models, loaded and run by a process that knows nothing but their directories."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from fedsplit.building.client_model import ClientArchitecture
from fedsplit.deployment.backend import Deployed

_CODE = """
import json, sys, torch
from pathlib import Path
from safetensors.torch import load_file, save_file
from fedsplit.building.client_model import ClientArchitecture
from fedsplit.deployment import storage
torch.set_num_threads(1)
folder, architecture = Path(sys.argv[1]), json.loads(sys.argv[2])
x = load_file(folder / "x.safetensors")["x"]
build = ClientArchitecture(**architecture).build
models = sorted(path for path in folder.iterdir() if path.is_dir())
z = {path.name: storage.load(path, build).run(x).contiguous() for path in models}
save_file(z, folder / "z.safetensors")
assert "openvino_telemetry" not in sys.modules or sys.modules["openvino_telemetry"] is None
"""


def run_elsewhere(
    models: Mapping[str, Deployed], architecture: ClientArchitecture, x: Tensor, folder: Path
) -> dict[str, Tensor]:
    """What each model gives for `x` in a fresh process, which loads it from `folder`, where it is saved."""
    for name, model in models.items():
        model.save(folder / name)
    save_file({"x": x.contiguous()}, folder / "x.safetensors")
    command = [sys.executable, "-c", _CODE, str(folder), json.dumps(architecture.plain())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return load_file(folder / "z.safetensors")
