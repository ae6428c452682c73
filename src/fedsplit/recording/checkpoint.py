"""Checkpoints: safetensors and JSON with checksums; a kill at any moment loses nothing older."""

import json
import re
import shutil
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import file_digest, sha256
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from fedsplit.errors import UserError, shorten
from fedsplit.files.bounded import MIB, json_in, text
from fedsplit.files.form import Misfit, check_form, check_keys
from fedsplit.files.whole import appearing
from fedsplit.state.by_client import ByClient
from fedsplit.state.settled import SettledTensors
from fedsplit.state.state import State

_TENSORS, _VALUES, _CHECKSUMS = "state.safetensors", "state.json", "SHA256SUMS"
_SETTLED = re.compile(r"settled-[0-9a-f]{64}\.safetensors")
"""Name of a file of state that never changes, see `Settled`: checkpoints share it, its content names it."""
_CLIENT = re.compile(r"client-(0|[1-9][0-9]*)\.safetensors")
"""Name of a file with one client's state, see `ByClient`: checkpoints share it until a round changes it."""
_PARTIAL = ".partial"
_MOST_VALUES = 256 * MIB
FORMAT = 4
"""Number of the form that checkpoints have; another one where fields come, go or mean something else."""
_NAME = re.compile("round-[0-9]{6,18}")
KEPT = 2
"""Checkpoints kept: a damaged one falls back to the one before."""


@dataclass(frozen=True)
class Since:
    """An earlier checkpoint of the same run, and what has changed since.

    Args:
        rounds: number of rounds of that checkpoint.
        changed_clients: clients whose state may be another now.
    """

    rounds: int
    changed_clients: Collection[int]


@dataclass(frozen=True)
class Checkpoint:
    """State of a run.

    Args:
        rounds: after which it is.
        folder: folder that it was read from.
        since: earlier checkpoint that shares files of clients; None: all are written.
    """

    rounds: int
    state: State
    folder: Path | None = field(default=None, compare=False)
    since: Since | None = field(default=None, compare=False)

    def unfit(self, misfit: Misfit) -> UserError:
        """Error to raise where its state is of another form than what is to take it over."""
        folder = self.folder or Path("checkpoint")
        return _unfit(folder, misfit)


def _unfit(folder: Path, misfit: Misfit) -> UserError:
    file = folder / (_TENSORS if misfit.in_tensors else _VALUES)
    return UserError("resume", folder.parent.parent, f"{file} is not what this version writes: {misfit}")


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Write `folder/round-<rounds>/`, whole or not at all, and drop all but the last two.

    Clients have a file each, which is shared with the checkpoint before where no round has changed them.
    """
    folder.mkdir(exist_ok=True)
    # one that was run before stays: to replace it could lose the last one
    if _is_whole(folder, checkpoint.rounds):
        return
    _write(folder, checkpoint, durable=True, apart=True)
    older = [rounds for rounds in kept_rounds(folder) if rounds < checkpoint.rounds]
    for rounds in older[: -(KEPT - 1)]:
        shutil.rmtree(_path(folder, rounds))


def clear(folder: Path) -> None:
    """Remove all checkpoints, and the folder if nothing else is in it."""
    for rounds in kept_rounds(folder):
        shutil.rmtree(_path(folder, rounds))
    shutil.rmtree(folder / _PARTIAL, ignore_errors=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def replace(folder: Path, checkpoint: Checkpoint, *, needed: int, durable: bool) -> None:
    """Save as `save`, also where that round was run before; a kill meanwhile may lose that one.

    Args:
        needed: rounds of the oldest that is still needed.
        durable: True if the file must outlive a loss of power, and not only a kill.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder, checkpoint, durable=durable, apart=False)
    for rounds in kept_rounds(folder):
        if rounds < needed:
            shutil.rmtree(_path(folder, rounds))


def kept_rounds(folder: Path) -> list[int]:
    """Rounds after which there are checkpoints, ascending; some may be damaged.

    Copies under other names, such as `round-000003.bak`, are not looked at, and never removed.
    """
    found = [path for path in folder.glob("round-*") if _NAME.fullmatch(path.name)]
    own = [path for path in found if path.is_dir() and not path.is_symlink()]
    return sorted(rounds for path in own if _path(folder, rounds := int(path.name[6:])) == path)


def load(folder: Path, rounds: int) -> Checkpoint | None:
    """The checkpoint after so many rounds; None where it is damaged or not there.

    Raises:
        UserError: it is whole, but of another form than this version writes.
    """
    path = _path(folder, rounds)
    try:
        sums = _sums(path)
        shared = [name for name in sums if _SETTLED.fullmatch(name) or _CLIENT.fullmatch(name)]
        if any(sums.get(name) != _checksum(path / name) for name in (_TENSORS, _VALUES, *shared)):
            return None
        values = json_in(path / _VALUES, _MOST_VALUES, most_digits=100)
        tensors = load_file(path / _TENSORS)
        for name in shared:
            tensors |= load_file(path / name)
    except (OSError, ValueError, SafetensorError):
        return None
    try:
        state = _check(rounds, values)
        for key, tensor in tensors.items():
            _place(state, key, tensor)
    except Misfit as misfit:
        raise _unfit(path, misfit) from misfit
    return Checkpoint(rounds, state, path)


def _path(folder: Path, rounds: int) -> Path:
    return folder / f"round-{rounds:06d}"


def _write(folder: Path, checkpoint: Checkpoint, *, durable: bool, apart: bool) -> None:
    """Write a checkpoint, whole or not at all; a damaged one of these rounds goes.

    Args:
        apart: True if clients have files of their own.
    """
    final = _path(folder, checkpoint.rounds)
    tensors: dict[str, Tensor] = {}
    settled: dict[str, SettledTensors] = {}
    clients: dict[str, dict[str, Tensor]] | None = {} if apart else None
    values = _without_tensors(checkpoint.state, "", tensors, settled, clients)
    with appearing(final, beside=_PARTIAL, durable=durable) as partial:
        partial.mkdir()
        save_file({name: _copy(each) for name, each in tensors.items()}, partial / _TENSORS)
        (partial / _VALUES).write_text(
            json.dumps({"format": FORMAT, "rounds": checkpoint.rounds, "state": values}), encoding="utf-8"
        )
        sums = {name: _checksum(partial / name) for name in (_TENSORS, _VALUES)}
        sums |= dict(_settle(partial, prefix, each) for prefix, each in settled.items())
        sums |= _save_clients(partial, clients or {}, checkpoint.since)
        lines = "".join(f"{checksum}  {name}\n" for name, checksum in sums.items())
        (partial / _CHECKSUMS).write_text(lines, encoding="utf-8")
        shutil.rmtree(final, ignore_errors=True)


def _save_clients(
    partial: Path, clients: Mapping[str, Mapping[str, Tensor]], since: Since | None
) -> dict[str, str]:
    """Put files of clients into a checkpoint, as links to those of the one before where nothing has changed.

    Returns:
        Their checksums, by name.
    """
    before, known, changed = partial, dict[str, str](), set[str]()
    if since is not None:
        before, changed = _path(partial.parent, since.rounds), set(map(str, since.changed_clients))
        with suppress(OSError, ValueError):  # a checkpoint that is gone has nothing to share
            known = _sums(before)
    sums = {}
    for client, tensors in clients.items():
        if not tensors:
            continue
        name = f"client-{client}.safetensors"
        if client not in changed and name in known and _link(before / name, partial / name):
            sums[name] = known[name]
        else:
            save_file({key: _copy(each) for key, each in tensors.items()}, partial / name)
            sums[name] = _checksum(partial / name)
    return sums


def _link(file: Path, link: Path) -> bool:
    """True if a file has another name now; not every file system has links."""
    try:
        link.hardlink_to(file)
    except OSError:
        return False
    return True


def _settle(partial: Path, prefix: str, settled: SettledTensors) -> tuple[str, str]:
    """Put tensors that stay as they are into a checkpoint: as a link, if another has them whole.

    Returns:
        The name of their file, and its checksum.
    """
    place = sha256(f"{prefix} {settled.digest}".encode()).hexdigest()
    name = f"settled-{place}.safetensors"
    for other in partial.parent.glob(f"round-*/{name}"):
        with suppress(OSError, ValueError):  # not every file system has links
            if (checksum := _checksum(other)) == _sums(other.parent).get(name):
                (partial / name).hardlink_to(other)
                return name, checksum
    save_file({prefix + key: _copy(each) for key, each in settled.items()}, partial / name)
    return name, _checksum(partial / name)


def _sums(path: Path) -> dict[str, str]:
    """Checksums that a checkpoint has of its files, by name.

    Raises:
        OSError, ValueError: they cannot be read.
    """
    lines = text(path / _CHECKSUMS, _MOST_VALUES).splitlines()
    return {name: checksum for checksum, _, name in (line.partition("  ") for line in lines)}


def load_latest(folder: Path) -> Checkpoint | None:
    """The newest undamaged checkpoint; None where none was ever written.

    Raises:
        UserError: there are checkpoints, and all are damaged, or the newest undamaged one is of another form
            than this version writes.
    """
    found = kept_rounds(folder)
    for rounds in reversed(found):
        if (checkpoint := load(folder, rounds)) is not None:
            return checkpoint
    if found:
        raise UserError("resume", folder.parent, f"no undamaged checkpoint left in {folder}")
    return None


def _is_whole(folder: Path, rounds: int) -> bool:
    """True if there is a checkpoint that a run can go on from."""
    try:
        return load(folder, rounds) is not None
    except UserError:
        return False


def _check(rounds: int, values: object) -> State:
    if not isinstance(values, dict) or "format" not in values:
        raise Misfit("it", f"has no format number, and must have {FORMAT}")
    if values["format"] != FORMAT:
        raise Misfit("format", f"is {shorten(repr(values['format']))}, and must be {FORMAT}")
    check_keys(values, ("format", "rounds", "state"), "it")
    check_form(values["rounds"], int, "rounds")
    if values["rounds"] != rounds:
        raise Misfit("rounds", f"is {values['rounds']}, and must be that of the folder's name")
    check_keys(values["state"], None, "state")
    state: State = values["state"]
    return state


def _place(state: State, key: str, tensor: Tensor) -> None:
    """Put a tensor where its name says."""
    *folders, name = key.split("/")
    node: object = state
    for part in folders:
        node = node.get(part) if isinstance(node, dict) else None
    if not isinstance(node, dict) or name in node:
        raise Misfit(f"tensor {key}", "has no place in the state", in_tensors=True)
    node[name] = tensor


def _without_tensors(
    state: State,
    prefix: str,
    tensors: dict[str, Tensor],
    settled: dict[str, SettledTensors],
    clients: dict[str, dict[str, Tensor]] | None,
) -> State:
    """The tree without its tensors, which go to `tensors` under their paths, or with others to `settled`.

    Args:
        clients: tensors of each client; None: these go to `tensors` too.
    """
    values: State = {}
    for key, value in state.items():
        if isinstance(value, Tensor):
            tensors[prefix + key] = value
        elif isinstance(value, SettledTensors):
            settled[f"{prefix}{key}/"], values[key] = value, {}
        elif isinstance(value, dict):
            own = tensors
            if clients is not None and isinstance(state, ByClient):
                own = clients.setdefault(key, {})
            values[key] = _without_tensors(value, f"{prefix}{key}/", own, settled, clients)
        else:
            values[key] = value
    return values


def _copy(tensor: Tensor) -> Tensor:
    """A copy: safetensors refuses memory that two names share."""
    return tensor.detach().to("cpu").clone(memory_format=torch.contiguous_format)


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
