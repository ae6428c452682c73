"""The file with a client's secret, which stays on its machine."""

import os
import stat
from pathlib import Path

from fedsplit.errors import UserError
from fedsplit.files.paths import in_one_line
from fedsplit.files.whole import appearing
from fedsplit.privacy.noise import SECRET_BYTES

NAME = "secret"


def client_secret(folder: Path) -> bytes:
    """Secret in a client's folder: 32 random bytes, made and stored where there are none yet.

    Raises:
        UserError: the file cannot be used, or others may read it.
    """
    path = folder / NAME
    with in_one_line("client.directory", folder, f"its file {NAME} cannot be used"):
        folder.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            with appearing(path, durable=True) as partial:
                descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(descriptor, "wb") as file:
                    file.write(os.urandom(SECRET_BYTES))
        with path.open("rb") as file:
            others = stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077
            found = file.read(SECRET_BYTES + 1)
    if others:
        raise UserError("client.directory", folder, f"others may read its file {NAME}: chmod 600 {path}")
    if len(found) != SECRET_BYTES:
        raise UserError("client.directory", folder, f"its file {NAME} is damaged: not {SECRET_BYTES} bytes")
    return found
