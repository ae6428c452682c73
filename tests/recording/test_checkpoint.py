import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fedsplit.errors import UserError
from fedsplit.recording import checkpoint
from fedsplit.recording.checkpoint import Checkpoint, load_latest, save
from fedsplit.state.settled import SettledTensors

FILES = ("state.safetensors", "state.json", "SHA256SUMS")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "checkpoint"


def _state(number: int) -> dict[str, Any]:
    return {"weights": {"w": torch.full((3,), float(number))}, "number": number}


def _saved(folder: Path, *rounds: int) -> None:
    for each in rounds:
        save(folder, Checkpoint(each, _state(each)))


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, dict):
        return (
            isinstance(right, dict)
            and set(left) == set(right)
            and all(_same(left[key], right[key]) for key in left)
        )
    if isinstance(left, Tensor):
        return (
            isinstance(right, Tensor)
            and left.dtype == right.dtype
            and left.shape == right.shape
            and left.contiguous().view(-1).view(torch.uint8).tolist()
            == right.contiguous().view(-1).view(torch.uint8).tolist()
        )
    return type(left) is type(right) and bool(left == right)


def _trees() -> dict[str, dict[str, Any]]:
    draw = torch.Generator().manual_seed(0)
    image = torch.randn(2, 3, 4, 5, generator=draw)
    return {
        "empty": {},
        "values": {"a": 1, "b": 0.1, "c": "text é", "d": True, "e": None, "f": [1, 2.5, None, "x"], "g": []},
        "floats": {"f": [1e-310, 1 / 3, -0.0, 1e300], "inf": float("inf"), "big": 2**80},
        "no tensors": {"a": {"b": {}}, "c": {}},
        "nested": {"a": {"b": {"c": torch.arange(3), "d": None}, "e": {}}, "f.g": {"h.i": torch.ones(2)}},
        "0-d": {"step": torch.tensor(3.0), "count": torch.tensor(2**60), "true": torch.tensor(True)},
        "dtypes": {
            str(dtype)[6:]: torch.randn(4, generator=draw).to(dtype)
            for dtype in (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool)
        },
        "odd values": {"x": torch.tensor([float("nan"), -0.0, float("inf"), 1e-45])},
        "empty tensors": {"a": torch.zeros(0, 3), "b": torch.zeros(2, 0, dtype=torch.int64)},
        "channels_last": {"w": image.contiguous(memory_format=torch.channels_last)},
        "not contiguous": {
            "t": image.transpose(0, 3),
            "s": image[:, ::2],
            "e": torch.ones(1, 3).expand(4, 3),
        },
        "shared memory": {"a": image, "b": {"c": image, "d": image[0], "e": image.flatten()[3:9]}},
        "with gradient": {"p": torch.randn(3, generator=draw, requires_grad=True)},
        "next to values": {"clients": {"0": {"z": torch.ones(2), "last_round": 4}, "1": {"z": None}}},
    }


@pytest.mark.parametrize("name", sorted(_trees()))
def test_checkpoint_state_comes_back_bit_for_bit(folder: Path, name: str) -> None:
    save(folder, Checkpoint(7, _trees()[name]))
    loaded = load_latest(folder)
    assert loaded is not None
    assert loaded.rounds == 7
    assert _same(loaded.state, _trees()[name])


def test_loaded_checkpoint_shares_no_memory_between_names_or_with_the_file(folder: Path) -> None:
    save(folder, Checkpoint(1, _trees()["shared memory"]))
    loaded, again = load_latest(folder), load_latest(folder)
    assert loaded is not None
    assert again is not None
    loaded.state["a"].zero_()
    assert _same(loaded.state["b"], again.state["b"])
    reread = load_latest(folder)
    assert reread is not None
    assert _same(reread.state, again.state)


def test_saving_a_checkpoint_leaves_the_state_alone(folder: Path) -> None:
    state = _trees()["next to values"]
    save(folder, Checkpoint(1, state))
    assert _same(state, _trees()["next to values"])


def test_latest_checkpoint_is_none_where_none_was_written(folder: Path) -> None:
    assert load_latest(folder) is None
    folder.mkdir()
    assert load_latest(folder) is None


def test_only_the_last_two_checkpoints_are_kept_and_the_newest_is_loaded(folder: Path) -> None:
    for number, rounds in enumerate((5, 9, 10, 100, 1000)):
        _saved(folder, rounds)
        loaded = load_latest(folder)
        assert loaded is not None
        assert loaded.rounds == rounds
        assert len(list(folder.iterdir())) == min(number + 1, checkpoint.KEPT)
    assert sorted(path.name for path in folder.iterdir()) == ["round-000100", "round-001000"]
    assert {path.name for path in (folder / "round-001000").iterdir()} == set(FILES)


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _emptied(path: Path) -> None:
    path.write_bytes(b"")


def _flipped(position: float) -> Callable[[Path], None]:
    def flip(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[int(position * (len(content) - 1))] ^= 0x80  # no longer UTF-8 where it is text
        path.write_bytes(content)

    return flip


DAMAGES = [
    pytest.param(_truncated, id="truncated"),
    pytest.param(_emptied, id="emptied"),
    pytest.param(Path.unlink, id="removed"),
    *(pytest.param(_flipped(position), id=f"flipped-{position}") for position in (0.0, 0.3, 0.6, 1.0)),
]


def _digit_changed(path: Path) -> None:
    """Damage that is still valid text."""
    content = path.read_bytes()
    for old, new in ((b"1", b"2"), (b"0", b"1")):
        if old in content:
            path.write_bytes(content.replace(old, new, 1))
            return


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", [*DAMAGES, pytest.param(_digit_changed, id="digit")])
def test_damaged_checkpoint_falls_back_to_the_one_before(
    folder: Path, name: str, damage: Callable[[Path], None]
) -> None:
    _saved(folder, 10, 20)
    damage(folder / "round-000020" / name)
    loaded = load_latest(folder)
    assert loaded is not None
    # A last newline is no part of a list of checksums.
    intact = name == "SHA256SUMS" and damage is _truncated
    assert loaded.rounds == (20 if intact else 10)
    assert _same(loaded.state, _state(loaded.rounds))


def test_files_of_two_checkpoints_do_not_pass_as_one(folder: Path) -> None:
    _saved(folder, 10, 20)
    shutil.copy(folder / "round-000010" / "state.json", folder / "round-000020" / "state.json")
    loaded = load_latest(folder)
    assert loaded is not None
    assert loaded.rounds == 10


@pytest.mark.parametrize("damage", DAMAGES)
def test_checkpoints_that_are_all_damaged_are_refused(folder: Path, damage: Callable[[Path], None]) -> None:
    _saved(folder, 10, 20)
    for path in folder.iterdir():
        damage(path / "state.safetensors")
    with pytest.raises(UserError, match="no undamaged checkpoint left") as caught:
        load_latest(folder)
    assert (caught.value.key, caught.value.value) == ("resume", folder.parent)


def test_damaged_checkpoint_is_replaced_by_a_run_that_fell_back(folder: Path) -> None:
    _saved(folder, 10, 20)
    _truncated(folder / "round-000020" / "state.json")
    _saved(folder, 20)
    loaded = load_latest(folder)
    assert loaded is not None
    assert loaded.rounds == 20
    _truncated(folder / "round-000020" / "state.json")
    loaded = load_latest(folder)
    assert loaded is not None
    assert loaded.rounds == 10


def test_checkpoints_are_read_and_written_beside_what_a_killed_write_left(folder: Path) -> None:
    _saved(folder, 10)
    partial = folder / ".partial"
    partial.mkdir()
    (partial / "state.safetensors").write_bytes(b"half")
    (partial / "another").mkdir()
    loaded = load_latest(folder)
    assert loaded is not None
    assert loaded.rounds == 10
    _saved(folder, 20)
    assert sorted(path.name for path in folder.iterdir()) == ["round-000010", "round-000020"]
    assert {path.name for path in (folder / "round-000020").iterdir()} == set(FILES)


@pytest.mark.parametrize(
    ("owner", "step"),
    [(checkpoint, "save_file"), (checkpoint, "_checksum"), (os, "fsync"), (Path, "replace")],
)
def test_checkpoint_write_that_breaks_off_loses_no_older_checkpoint(
    folder: Path, monkeypatch: pytest.MonkeyPatch, owner: object, step: str
) -> None:
    _saved(folder, 10)

    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(owner, step, killed)
        with pytest.raises(KeyboardInterrupt):
            _saved(folder, 20)
    loaded = load_latest(folder)
    assert loaded is not None
    assert _same(loaded.state, _state(10))


def test_writing_the_only_checkpoint_again_never_leaves_none(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _saved(folder, 10)

    def killed(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", killed)
        patched.setattr(Path, "replace", killed)
        with suppress(KeyboardInterrupt):
            _saved(folder, 10)
    loaded = load_latest(folder)
    assert loaded is not None
    assert _same(loaded.state, _state(10))


def test_checkpoints_of_the_same_state_have_the_same_bytes(folder: Path) -> None:
    contents = []
    for _ in range(2):
        save(folder, Checkpoint(3, _trees()["nested"]))
        contents.append([(folder / "round-000003" / name).read_bytes() for name in FILES])
    assert contents[0] == contents[1]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_checkpoint_reads_as_none(folder: Path, name: str, damage: Callable[[Path], None]) -> None:
    _saved(folder, 10)
    whole = checkpoint.load(folder, 10)
    assert whole is not None
    assert whole.rounds == 10
    assert _same(whole.state, _state(10))
    damage(folder / "round-000010" / name)
    found = checkpoint.load(folder, 10)
    # A last newline is no part of a list of checksums.
    assert (found is not None) == (name == "SHA256SUMS" and damage is _truncated)


def test_path_that_is_no_checkpoint_reads_as_none(folder: Path) -> None:
    folder.mkdir()
    assert checkpoint.load(folder, 1) is None
    (folder / "round-000001").mkdir()
    assert checkpoint.load(folder, 1) is None
    (folder / "round-000002").write_text("a file")
    assert checkpoint.load(folder, 2) is None


@pytest.mark.parametrize("name", ["state.safetensors", "state.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"\x08" + bytes(20)])
def test_checkpoint_that_does_not_read_is_damaged_though_its_checksum_fits(
    folder: Path, name: str, content: bytes
) -> None:
    _saved(folder, 10, 20)
    newest = folder / "round-000020"
    (newest / name).write_bytes(content)
    sums = [
        f"{sha256((newest / each).read_bytes()).hexdigest()}  {each}\n"
        for each in ("state.safetensors", "state.json")
    ]
    (newest / "SHA256SUMS").write_text("".join(sums))
    assert checkpoint.load(folder, 20) is None
    loaded = load_latest(folder)
    assert loaded is not None
    assert loaded.rounds == 10


def test_whole_checkpoint_is_not_written_again(folder: Path) -> None:
    _saved(folder, 10)
    file = folder / "round-000010" / "state.safetensors"
    inode = file.stat().st_ino
    _saved(folder, 10)
    assert file.stat().st_ino == inode
    assert [path.name for path in folder.iterdir()] == ["round-000010"]


COPIES = (
    "round-3 (copy)",
    "round-000003.bak",
    "round-x",
    "round-",
    "round-3",
    "round-0000030",
    "round-000099~",
)
"""Names that users give to copies; sorted as texts, some come after any of a checkpoint's own."""


def _with_copies(folder: Path, rounds: int) -> None:
    _saved(folder, rounds)
    for name in COPIES:
        shutil.copytree(folder / f"round-{rounds:06d}", folder / name)
    (folder / "round-000500").write_text("a file")
    (folder / "round-000600").symlink_to(folder / "round-x")
    (folder / f"round-{chr(0x661) * 6}").mkdir()


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_copies_of_checkpoints_are_neither_counted_nor_loaded_nor_removed(folder: Path) -> None:
    _with_copies(folder, 10)
    copies = _names(folder) - {"round-000010"}
    for rounds in (11, 12, 13):
        _saved(folder, rounds)
        loaded = load_latest(folder)
        assert loaded is not None
        assert loaded.rounds == rounds
    assert checkpoint.kept_rounds(folder) == [12, 13]
    assert _names(folder) == copies | {"round-000012", "round-000013"}
    checkpoint.replace(folder, Checkpoint(14, _state(14)), needed=13, durable=False)
    assert checkpoint.kept_rounds(folder) == [13, 14]
    checkpoint.clear(folder)
    assert _names(folder) == copies
    assert load_latest(folder) is None


def test_damaged_checkpoint_of_a_later_round_does_not_push_out_new_ones(folder: Path) -> None:
    _saved(folder, 10, 30)
    shutil.copytree(folder / "round-000030", folder / "round-000040")
    for rounds in (30, 40):
        _truncated(folder / f"round-{rounds:06d}" / "state.json")
    _saved(folder, 11)
    loaded = load_latest(folder)
    assert loaded is not None
    assert loaded.rounds == 11
    assert (folder / "round-000010").is_dir()


def _rewritten(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the values of a checkpoint; its checksums fit again."""
    values = json.loads((path / "state.json").read_text())
    changed = change(values)
    (path / "state.json").write_text(json.dumps(values if changed is None else changed))
    sums = [f"{sha256((path / name).read_bytes()).hexdigest()}  {name}\n" for name in FILES[:2]]
    (path / "SHA256SUMS").write_text("".join(sums))


@pytest.mark.parametrize(
    ("change", "file", "words"),
    [
        (lambda values: values.pop("format"), "json", "it has no format number, and must have 4"),
        (lambda values: [values], "json", "it has no format number, and must have 4"),
        (lambda values: values.update(format=1), "json", "format is 1, and must be 4"),
        (lambda values: values.update(format=5), "json", "format is 5, and must be 4"),
        (lambda values: values.update(format="4"), "json", "format is '4', and must be 4"),
        (lambda values: values.update(more=1), "json", "it must not have more"),
        (lambda values: values.pop("rounds") and None, "json", "it must have rounds"),
        (lambda values: values.update(rounds="20"), "json", "rounds must be a whole number"),
        (lambda values: values.update(rounds=True), "json", "rounds must be a whole number"),
        (
            lambda values: values.update(rounds=19),
            "json",
            "rounds is 19, and must be that of the folder's name",
        ),
        (lambda values: values.update(state=[]), "json", "state must hold keys and values"),
        (lambda values: values["state"].clear(), "safetensors", "tensor weights/w has no place in the state"),
        (lambda values: values["state"].update(weights=3), "safetensors", "tensor weights/w has no place"),
        (
            lambda values: values["state"]["weights"].update(w=3),
            "safetensors",
            "tensor weights/w has no place",
        ),
    ],
)
def test_whole_checkpoint_of_another_form_is_refused_by_its_file_and_what_is_wrong(
    folder: Path, change: Callable[[dict[str, Any]], object], file: str, words: str
) -> None:
    def changed(values: dict[str, Any]) -> object:
        found = change(values)
        return found if isinstance(found, list) else None

    _saved(folder, 10, 20)
    _rewritten(folder / "round-000020", changed)
    with pytest.raises(UserError) as caught:
        load_latest(folder)
    path = folder / "round-000020" / f"state.{file}"
    assert str(caught.value).startswith(
        f"resume={folder.parent}: {path} is not what this version writes: {words}"
    )
    assert str(caught.value).count("\n") == 0
    with pytest.raises(UserError):
        checkpoint.load(folder, 20)
    _saved(folder, 20)  # is written over
    loaded = load_latest(folder)
    assert loaded is not None
    assert loaded.rounds == 20


def _settled_state(number: int) -> dict[str, Any]:
    kept = {"z": torch.arange(12.0).view(3, 4).t(), "y": torch.arange(3, dtype=torch.uint8)}
    return _state(number) | {"uploads": {"0": {"samples": SettledTensors(kept), "batches": number}}}


def _settled_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("round-*/settled-*.safetensors"))


def test_settled_tensors_are_written_once_for_all_checkpoints(folder: Path) -> None:
    for rounds in (1, 2, 3):
        save(folder, Checkpoint(rounds, _settled_state(rounds)))
    files = _settled_files(folder)
    assert [path.parent.name for path in files] == ["round-000002", "round-000003"]
    assert len({path.stat().st_ino for path in files}) == 1
    found = load_latest(folder)
    assert found is not None
    assert _same(found.state, _settled_state(3))
    save(
        folder,
        Checkpoint(4, found.state | {"uploads": {"0": {"samples": SettledTensors({"z": torch.ones(1)})}}}),
    )
    assert len({path.name for path in _settled_files(folder)}) == 2


def test_settled_tensors_that_are_damaged_are_written_anew(folder: Path) -> None:
    save(folder, Checkpoint(1, _settled_state(1)))
    (file,) = _settled_files(folder)
    file.write_bytes(file.read_bytes()[:-1])
    assert checkpoint.load(folder, 1) is None
    save(folder, Checkpoint(2, _settled_state(2)))
    found = load_latest(folder)
    assert found is not None
    assert _same(found.state, _settled_state(2))


def test_settled_tensors_are_copied_where_there_are_no_links(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    for rounds in (1, 2):
        save(folder, Checkpoint(rounds, _settled_state(rounds)))
    one, other = _settled_files(folder)
    assert one.stat().st_ino != other.stat().st_ino
    assert one.read_bytes() == other.read_bytes()
