"""Client processes for many runs, without the seconds that importing everything costs each of them.

`python -m tests.transport.nursery` imports once, and forks for each run a process that does what
`python -m fedsplit.transport.grpc.spawning` does from there on.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Any

from fedsplit.composition import CONFIGS
from fedsplit.transport.grpc import spawning


class Nursery:
    """Stands in for `spawning.spawned`, for as many runs as there are."""

    def __enter__(self) -> "Nursery":
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.transport.nursery", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                cwd=CONFIGS.parent,
                start_new_session=True,
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()
        self._process.wait(30)

    @contextmanager
    def spawned(
        self,
        server: str,
        clients: int,
        folder: Path,
        config: Mapping[str, Any],
        fail: Callable[[str], None],
    ) -> Iterator[None]:
        """As `spawning.spawned`."""
        asked = spawning._Asked.of(server, clients, folder, config)
        input_, ours = os.pipe()
        told, output = os.pipe()
        with os.fdopen(ours, "w") as keeps_them, os.fdopen(told) as lines:
            socket.send_fds(self._socket, [b"."], [input_, output])
            os.close(input_)
            os.close(output)
            ended = False

            def listen() -> None:
                for line in lines:
                    fail(line.strip())
                if not ended:
                    fail("the process that starts clients has ended")

            listener = Thread(target=listen, daemon=True)
            listener.start()
            keeps_them.write(json.dumps(asdict(asked)) + "\n")
            keeps_them.flush()
            try:
                yield
            finally:
                ended = True
                keeps_them.close()
                listener.join(30)  # until all of them have ended
                assert not listener.is_alive()


def main(asked_at: int) -> int:
    """Fork a process for each run that is asked for, until the socket is closed."""
    import sklearn.datasets  # noqa: F401, PLC0415
    import torch._dynamo  # noqa: F401, PLC0415

    import fedsplit.transport.grpc.client  # noqa: F401, PLC0415

    with socket.socket(fileno=asked_at) as asked:
        while True:
            message, descriptors, _, _ = socket.recv_fds(asked, 1, 2)
            if not message:
                break
            if os.fork() == 0:
                asked.close()
                for descriptor, standard in zip(descriptors, (0, 1), strict=True):
                    os.dup2(descriptor, standard)
                    os.close(descriptor)
                os.setsid()
                os._exit(spawning.main())
            for descriptor in descriptors:
                os.close(descriptor)
            with suppress(ChildProcessError):  # there is none left
                while os.waitpid(-1, os.WNOHANG) != (0, 0):
                    pass
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
