"""The process of a device that the server of split inference starts on its own machine.

`python -m fedsplit.tasks.spawned_device` reads what it is from the first line of its standard input, and
ends with the process that started it.
"""

import json
import logging
import os
import sys
from pathlib import Path

from fedsplit.errors import RunFailed, UserError
from fedsplit.inference.grpc.device import Device
from fedsplit.processes.lifeline import end_with_parent


def main() -> int:
    """A device's life; its exit code."""
    end_with_parent()
    asked = json.loads(sys.stdin.readline())
    sys.path.append(asked["here"])  # as main.py does: a model may be in a file there
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    device = Device(
        server=asked["server"],
        client=asked["client"],
        tls=None,
        model=Path(asked["model"]),
        own={"device": "cpu", **asked["own"]},
    )
    try:
        device.attend()
    except (UserError, RunFailed) as error:
        print(error, file=sys.stderr, flush=True)
        return error.exit_code
    return 0


if __name__ == "__main__":
    os._exit(main())  # taking down all that was imported takes time, and nobody needs it
