"""A process that holds one deployed client half and nothing else, and runs it on the inputs it is given.

`python -m fedsplit.inference.client_half` reads lines of JSON and answers each with one: first what to load,
then where inputs are and where the smashed data go, both as safetensors. Its end of input ends it.
"""

import json
import os
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from fedsplit.building.client_model import ClientArchitecture
from fedsplit.deployment import storage
from fedsplit.deployment.probe import peak_memory
from fedsplit.errors import UserError
from fedsplit.processes.lifeline import end_with_parent


def main() -> int:
    """Answer until the input ends; the exit code."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is no answer
    end_with_parent()

    def answer(**told: object) -> None:
        print(json.dumps(told), file=answers)

    asked = json.loads(sys.stdin.readline())
    sys.path.append(asked["here"])  # as main.py does: a model may be in a file there
    torch.set_num_threads(asked["threads"])
    directory = Path(asked["directory"])
    try:
        storage.reader(directory)
        before = peak_memory()
        deployed = storage.load(directory, ClientArchitecture.of(asked["architecture"]).build)
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    answer(memory_before=before)
    for line in sys.stdin:
        asked = json.loads(line)
        x = load_file(asked["inputs"])["x"]
        start = time.perf_counter()
        smashed = deployed.run_quantized(x)
        seconds = time.perf_counter() - start
        peak = peak_memory()
        save_file({"z": smashed.values.contiguous()}, asked["outputs"])
        answer(seconds=seconds, peak_memory=peak, scale=smashed.scale, zero_point=smashed.zero_point)
    return 0


if __name__ == "__main__":
    os._exit(main())  # taking down all that was imported takes time, and nobody needs it
