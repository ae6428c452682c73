"""The task in Flower, by `flwr run`: `python flower.py TASK`."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.request import urlopen

import numpy as np
import torch
from shared import PeerTask, prepare, tell

HERE = Path(__file__).resolve().parent
PROJECT = """\
[project]
name = "peer"
version = "1.0.0"
description = "One task, as others have it"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "peer"

[tool.flwr.app.components]
serverapp = "flower_app:server"
clientapp = "flower_app:client"

[tool.flwr.app.config]
task = {task}
"""
_PATIENCE_S = 900.0
_ADDRESS = "127.0.0.1"
_PORT = 39091
"""Port where `flwr run` looks for a SuperLink before it starts one, for which it waits 15 seconds."""


def main(task_folder: str) -> None:
    """Run the app, wait for what it leaves, and tell it."""
    prepare()
    task, left = PeerTask.load(task_folder), Path(task_folder, "flower.npz")
    left.unlink(missing_ok=True)
    own = Path(sys.executable).parent
    with TemporaryDirectory() as folder:
        app = Path(folder, "app")
        app.mkdir()
        for name in ("flower_app.py", "shared.py", "models.py"):
            shutil.copy(HERE / name, app)
        (app / "pyproject.toml").write_text(PROJECT.format(task=json.dumps(task_folder)))
        environment = os.environ | {
            "FLWR_HOME": str(Path(folder, "home")),
            "FLWR_TELEMETRY_ENABLED": "0",
            "RAY_worker_niceness": "0",  # as all other sides have it
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "PATH": f"{own}{os.pathsep}{os.environ['PATH']}",
        }
        with superlink(own, environment):
            command = [str(own / "flwr"), "run", str(app), "--federation-config"]
            command.append(f"num-supernodes={task.clients} client-resources-num-cpus=1 init-args-num-cpus=1")
            subprocess.run(command, env=environment, stdout=sys.stderr, check=True)
            wait_for(left.is_file)
    with np.load(left, allow_pickle=False) as file:
        found = {name: torch.from_numpy(file[name]) for name in file.files}
    seconds = found.pop("seconds").tolist()
    tell(task, found, seconds)


@contextmanager
def superlink(own: Path, environment: Mapping[str, str]) -> Iterator[None]:
    """While a SuperLink for simulations is there, started as `flwr run` would start it."""
    command = [str(own / "flower-superlink"), "--insecure", "--simulation", "--isolation", "subprocess"]
    command += ["--host", _ADDRESS, "--port", str(_PORT)]
    process = subprocess.Popen(command, env=environment, stdout=sys.stderr, start_new_session=True)
    try:
        wait_for(is_there)
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def is_there() -> bool:
    """True once the SuperLink answers."""
    try:
        with urlopen(f"http://{_ADDRESS}:{_PORT}/health", timeout=1) as answer:
            return bool(answer.status == HTTPStatus.OK)
    except OSError:
        return False


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds; SystemExit where it does not in a quarter of an hour."""
    end = time.monotonic() + _PATIENCE_S
    while not condition():
        if time.monotonic() > end:
            raise SystemExit("waited in vain")
        time.sleep(0.2)


if __name__ == "__main__":
    main(sys.argv[1])
