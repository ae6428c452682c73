"""Checkpoints: safetensors and JSON with checksums; a kill at any moment loses nothing older."""

import json
import os
import shutil
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from fedsplit.errors import UserError
from fedsplit.results.bounded import MIB, json_in, text
from fedsplit.state import State

_TENSORS, _VALUES, _CHECKSUMS = "state.safetensors", "state.json", "SHA256SUMS"
KEPT = 2
"""Checkpoints kept: a damaged one falls back to the one before."""


@dataclass(frozen=True)
class Checkpoint:
    """State after `rounds` rounds."""

    rounds: int
    state: State


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Write `folder/round-<rounds>/`, whole or not at all, and drop all but the last two."""
    folder.mkdir(exist_ok=True)
    partial = _written(folder, checkpoint, durable=True)
    final = _path(folder, checkpoint.rounds)
    if _load(final) is not None:  # run before: to remove what stands there could lose the last one
        shutil.rmtree(partial)
        return
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
    _sync(folder)
    for old in _checkpoints(folder)[:-KEPT]:
        shutil.rmtree(old)


def replace(folder: Path, checkpoint: Checkpoint, *, needed: int, durable: bool) -> None:
    """As `save`, also where that round was run before, and otherwise; a kill meanwhile may lose that one.

    Args:
        folder: holds the checkpoints.
        checkpoint: the newest.
        needed: rounds of the oldest that is still needed.
        durable: whether it must outlive a loss of power, and not only a kill.
    """
    folder.mkdir(parents=True, exist_ok=True)
    partial = _written(folder, checkpoint, durable=durable)
    final = _path(folder, checkpoint.rounds)
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
    for rounds in kept(folder):
        if rounds < needed:
            shutil.rmtree(_path(folder, rounds))


def kept(folder: Path) -> list[int]:
    """After how many rounds there are checkpoints, ascending; some may be damaged."""
    return [int(path.name.removeprefix("round-")) for path in _checkpoints(folder)]


def load(folder: Path, rounds: int) -> Checkpoint | None:
    """The checkpoint after so many rounds; None where it is damaged or not there."""
    return _load(_path(folder, rounds))


def _path(folder: Path, rounds: int) -> Path:
    return folder / f"round-{rounds:06d}"


def _written(folder: Path, checkpoint: Checkpoint, *, durable: bool) -> Path:
    """A checkpoint under a name that is nobody's yet."""
    partial = folder / ".partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    tensors: dict[str, Tensor] = {}
    values = _without_tensors(checkpoint.state, "", tensors)
    save_file(tensors, partial / _TENSORS)
    (partial / _VALUES).write_text(
        json.dumps({"rounds": checkpoint.rounds, "state": values}), encoding="utf-8"
    )
    sums = "".join(f"{_checksum(partial / name)}  {name}\n" for name in (_TENSORS, _VALUES))
    (partial / _CHECKSUMS).write_text(sums, encoding="utf-8")
    if durable:
        for path in (*partial.iterdir(), partial):
            _sync(path)
    return partial


def load_latest(folder: Path) -> Checkpoint | None:
    """The newest undamaged checkpoint; None where none was ever written.

    Raises:
        UserError: there are checkpoints, and all are damaged.
    """
    found = _checkpoints(folder)
    for path in reversed(found):
        if (checkpoint := _load(path)) is not None:
            return checkpoint
    if found:
        raise UserError("resume", folder.parent, f"no undamaged checkpoint left in {folder}")
    return None


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob("round-*"))


def _load(path: Path) -> Checkpoint | None:
    """A checkpoint; None where it is damaged or not there."""
    try:
        lines = text(path / _CHECKSUMS).splitlines()
        sums = {name: checksum for checksum, _, name in (line.partition("  ") for line in lines)}
        if any(sums.get(name) != _checksum(path / name) for name in (_TENSORS, _VALUES)):
            return None
        values = json_in(path / _VALUES, 256 * MIB, most_digits=100)
        rounds, state = values["rounds"], values["state"]
        for key, tensor in load_file(path / _TENSORS).items():
            *folders, name = key.split("/")
            node = state
            for part in folders:
                node = node[part]
            node[name] = tensor
    except (OSError, ValueError, KeyError, TypeError, IndexError, SafetensorError):
        return None
    return Checkpoint(rounds, state) if isinstance(rounds, int) and isinstance(state, dict) else None


def _without_tensors(state: State, prefix: str, tensors: dict[str, Tensor]) -> State:
    """The tree without its tensors, which go to `tensors` under their paths."""
    values: State = {}
    for key, value in state.items():
        if isinstance(value, Tensor):
            # A copy: safetensors refuses memory that two names share.
            tensors[prefix + key] = value.detach().to("cpu").clone(memory_format=torch.contiguous_format)
        elif isinstance(value, dict):
            values[key] = _without_tensors(value, f"{prefix}{key}/", tensors)
        else:
            values[key] = value
    return values


def _checksum(path: Path) -> str:
    digest = sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
