"""Recorded results of the runs of `cases.py`, which show that a change of structure changes no bit.

    python tests/recordings/record.py            record what the starting commit computes on this machine
    python tests/recordings/record.py --check    compare what this checkout computes; exit code 1: it differs

The last bits of a result depend on the kind of processor and on the build of torch, so each such pair has a
file of its own beside this one. On a machine without one, the first command writes it: always from the
starting commit, whose files git unpacks into a temporary folder, so that no change is recorded by mistake.
"""

import argparse
import csv
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # for `tests`, where this file is run as a program

from tests.recordings.cases import BASE, CASES  # noqa: E402

START = "91c106a4a222c31d1c70d105739319feb553d8c6"
"""The commit before the change of structure."""

LATER = (
    *("test_perplexity", "final_perplexity", "best_perplexity", "bytes_to_perplexity"),
    *("text_scores", "bleu", "chrf", "rouge_l", "nist", "cider", "meteor"),
    "frozen_bytes",
    "evaluated_auxiliary",
    *("client_memory_mb", "held_mb"),
)
"""Keys of `results.json` and columns of `metrics.csv` that came after that commit."""

Command = Callable[..., "subprocess.CompletedProcess[str]"]
"""Runs `main.py` with arguments, to its end."""


def recording() -> Path:
    """Recording for this kind of processor and build of torch, whether it exists or not."""
    told = Path("/proc/cpuinfo").read_text("utf-8") if sys.platform == "linux" else ""
    about = dict(re.findall(r"^([^\t:]+?)\s*: (.*)$", told, flags=re.MULTILINE))
    parts = [about.get(key, "") for key in ("model name", "cpu family", "model")]
    kind = " ".join(filter(None, parts)) or platform.machine()
    slug = re.sub(r"[^a-z0-9]+", "-", kind.lower()).strip("-")
    return Path(__file__).with_name(f"{slug}-torch-{version('torch')}.json")


def process_of(tree: Path) -> Command:
    """Commands as processes of the source tree `tree`."""
    environment = {**os.environ, "PYTHONPATH": str(tree / "src")}

    def command(*arguments: str) -> "subprocess.CompletedProcess[str]":
        program = [sys.executable, str(tree / "main.py"), *arguments]
        return subprocess.run(program, capture_output=True, text=True, check=False, env=environment)

    return command


def hashes(commands: Sequence[str], command: Command) -> dict[str, str]:
    """Run the command lines of a case; SHA-256 of each result of the last, by the path in its directory.

    Raises:
        RuntimeError: a command failed.
    """
    with TemporaryDirectory() as folder:
        directory = Path(folder)
        for number, overrides in enumerate(commands):
            arguments = overrides.replace("RUN", str(directory)).split()
            if not overrides.startswith("resume="):
                directory = Path(folder, str(number))
                arguments = [*BASE, *arguments, f"hydra.run.dir={directory}"]
            done = command(*arguments)
            if done.returncode != 0:
                raise RuntimeError(f"{overrides}: {done.stderr.strip()}")
        return {
            str(path.relative_to(directory)): hashlib.sha256(_lasting(path)).hexdigest()
            for pattern in ("model/*.safetensors", "*.csv", "results.json")
            for path in sorted(directory.glob(pattern))
        }


def _lasting(path: Path) -> bytes:
    """Content of a result, without what clocks and versions of packages give."""
    if path.name == "results.json":
        content = json.loads(path.read_text("utf-8"))
        passing = ("seconds", "seconds_to_accuracy", "versions", *LATER)
        return json.dumps({key: content[key] for key in content if key not in passing}).encode()
    if path.name == "metrics.csv":
        with path.open(newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
        kept = [n for n, column in enumerate(header) if not column.startswith(("seconds.", *LATER))]
        return json.dumps([[row[n] for n in kept] for row in (header, *rows)]).encode()
    return path.read_bytes()


def _record() -> None:
    found = {}
    with TemporaryDirectory() as tree:
        packed = subprocess.run(["git", "archive", START], cwd=ROOT, stdout=subprocess.PIPE, check=True)
        subprocess.run(["tar", "-x", "-C", tree], input=packed.stdout, check=True)
        for name, commands in CASES.items():
            print(name, flush=True)
            found[name] = hashes(commands, process_of(Path(tree)))
    recording().write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(recording())


def _check() -> int:
    """Number of cases that differ, each of which is printed with its files that do."""
    known, different = json.loads(recording().read_text("utf-8")), 0
    for name, commands in CASES.items():
        try:
            found, expected = hashes(commands, process_of(ROOT)), known.get(name, {})
            files = sorted(path for path in found | expected if found.get(path) != expected.get(path))
        except RuntimeError as error:
            files = [str(error)]
        if files:
            different += 1
            print(f"{name}: {', '.join(files)}", flush=True)
    print(f"{different} of {len(CASES)} differ")
    return different


if __name__ == "__main__":
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--check", action="store_true", help="compare this checkout; write nothing")
    if not parser.parse_args().check:
        _record()
    elif not recording().exists():
        sys.exit(f"no {recording().name} yet: python tests/recordings/record.py")
    elif _check():
        sys.exit(1)
