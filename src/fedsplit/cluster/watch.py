"""Watch over processes that must not outlive this one, however it ends."""

import subprocess
from collections.abc import Iterable
from pathlib import Path

_WATCH = 'read -r _; folder=$1; shift; kill "$@"; sleep 2; kill -9 "$@"; rm -rf "$folder"'
"""Shell script that ends the processes of a cluster started here once the driver, and its pipe, are gone.

Ray's own processes notice it too, some of them after minutes.
"""


def start_watch(folder: str, pids: Iterable[int]) -> subprocess.Popen[bytes]:
    """Start a process that ends others, and their children, once this process is gone.

    Args:
        folder: folder of theirs that goes with them.
        pids: numbers of the processes.
    """
    named = [str(pid) for pid in pids]
    named += [child for pid in named for child in _children(pid)]
    output = subprocess.DEVNULL
    return subprocess.Popen(
        ["/bin/sh", "-c", _WATCH, "sh", folder, *named],
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=output,
        start_new_session=True,
    )


def _children(pid: str) -> list[str]:
    """Processes that a process of this machine has started; none where that cannot be looked up."""
    try:
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
