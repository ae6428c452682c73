"""What names a run at its clients, the same when it is resumed."""

from pathlib import Path
from secrets import token_bytes

from fedsplit.errors import UserError
from fedsplit.files.bounded import json_in
from fedsplit.files.whole import write_json

_RUN_BYTES = 16


def run_id(directory: Path) -> bytes:
    """The 16 bytes that name the run of a directory; drawn where it has none yet.

    Raises:
        UserError: what the run was named before is damaged.
    """
    path = directory / "network.json"
    if path.is_file():
        try:
            run = bytes.fromhex(json_in(path)["run"])
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise _damaged(path) from error
        if len(run) != _RUN_BYTES:
            raise _damaged(path)
        return run
    run = token_bytes(_RUN_BYTES)
    write_json(path, {"run": run.hex()})
    return run


def _damaged(path: Path) -> UserError:
    told = (
        'its network.json is damaged: it holds {"run": the 32 digits that each file run of its clients holds}'
    )
    return UserError("resume", path.parent, told)
