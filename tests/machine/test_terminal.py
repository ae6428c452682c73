"""Standard output and error: closed, full, without a reader, or of few characters."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = f"""
import sys
sys.path.insert(0, {str(ROOT / "src")!r})
from fedsplit.machine.terminal import with_tolerant_output

def main():
    print({{text!r}})
    print("error: \\xe9", file=sys.stderr)
    return 2

sys.exit(with_tolerant_output(main))
"""


def _ended(text: str, redirected: str = "", encoding: str = "utf-8") -> "subprocess.CompletedProcess[bytes]":
    command = ["sh", "-c", f'"$0" -S -c "$1" {redirected}', sys.executable, PROGRAM.format(text=text)]
    return subprocess.run(
        command, capture_output=True, check=False, env={**os.environ, "PYTHONIOENCODING": encoding}
    )


@pytest.mark.parametrize(
    ("redirected", "told"),
    [
        (">&-", b""),
        (">&- 2>&-", None),
        ("> /dev/full", b"note: standard output could not be written (No space left on device)\n"),
        ("> /dev/full 2> /dev/full", None),
    ],
)
def test_output_that_cannot_be_written_leaves_the_exit_code_as_it_is(
    redirected: str, told: bytes | None
) -> None:
    ended = _ended("saves/run", redirected)
    assert ended.returncode == 2
    assert ended.stdout == b""
    assert ended.stderr == (b"" if told is None else "error: é\n".encode() + told)


def test_output_whose_reader_is_gone_is_dropped_without_a_word() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-S", "-c", PROGRAM.format(text="a" * 100_000)]
    ended = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (2, "error: é\n".encode())


@pytest.mark.parametrize(
    ("encoding", "shown", "error"),
    [
        ("ascii", b"\\xe9\\u2191\xff", b"error: \\xe9"),
        ("ascii:strict", b"\\xe9\\u2191\xff", b"error: \\xe9"),
        ("latin-1", b"\xe9\\u2191\xff", b"error: \xe9"),
        ("utf-8", "é↑".encode() + b"\xff", "error: é".encode()),
    ],
)
def test_characters_that_an_encoding_lacks_are_escaped_and_bytes_of_names_stay_bytes(
    encoding: str, shown: bytes, error: bytes
) -> None:
    ended = _ended("é↑\udcff", encoding=encoding)
    assert (ended.returncode, ended.stdout, ended.stderr) == (2, shown + b"\n", error + b"\n")


@pytest.mark.parametrize("program", ["main.py", "plot_results.py"])
def test_interruption_while_importing_is_one_line(tmp_path: Path, program: str) -> None:
    for module in ("hydra", "yaml"):
        (tmp_path / f"{module}.py").write_text("raise KeyboardInterrupt")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT / 'src'}"}
    command = [sys.executable, str(ROOT / program)]
    ended = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, b"", b"interrupted\n")
