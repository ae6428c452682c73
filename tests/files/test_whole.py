import os
from contextlib import suppress
from pathlib import Path

import pytest

from fedsplit.files.whole import appearing, write_csv, write_text


def test_file_is_replaced_at_the_end_and_not_before(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with appearing(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
        assert partial.parent == tmp_path  # a rename across file systems is a copy
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_error_leaves_what_was_there_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with suppress(error), appearing(path) as partial:
        partial.write_text("half")
        raise error
    with suppress(error), appearing(tmp_path / "folder") as partial:
        partial.mkdir()
        (partial / "a").touch()
        raise error
    assert os.listdir(tmp_path) == ["a.txt"]
    assert path.read_text() == "old"


def test_folder_appears_but_not_where_another_is(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()  # empty
    with appearing(path) as partial:
        partial.mkdir(0o700)
        (partial / "a").write_text("first")
    with suppress(OSError), appearing(path) as partial:
        partial.mkdir()
        (partial / "a").write_text("second")
    assert (path / "a").read_text() == "first"
    assert path.stat().st_mode & 0o777 == 0o700
    assert os.listdir(tmp_path) == ["folder"]


@pytest.mark.parametrize("beside", [None, ".half"])
def test_what_a_killed_process_left_half_written_is_no_part_of_what_appears(
    tmp_path: Path, beside: str | None
) -> None:
    for _ in range(2):
        pid = os.fork()
        if pid == 0:
            with appearing(tmp_path / "folder", beside=beside) as partial:
                partial.mkdir()
                (partial / "half").touch()
                os._exit(0)
        os.waitpid(pid, 0)
    assert len(os.listdir(tmp_path)) == 1  # and not one a time
    with appearing(tmp_path / "folder", beside=beside) as partial:
        partial.mkdir()
        (partial / "a").touch()
    assert [os.listdir(path) for path in tmp_path.iterdir()] == [["a"]]


def test_what_is_durable_is_on_the_disk_before_it_appears(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    rename = Path.replace

    def sync(descriptor: int) -> None:
        done.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)

    def replace(path: Path, target: Path) -> Path:
        done.append("renamed")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "replace", replace)
    for durable in (False, True):
        with appearing(tmp_path / str(durable), beside="half", durable=durable) as partial:
            partial.mkdir()
            (partial / "a").touch()
            (partial / "b").touch()
    assert done[0] == "renamed"
    assert set(done[1:3]) == {"a", "b"}
    assert done[3:] == ["half", "renamed", tmp_path.name]


def test_csv_has_an_empty_cell_for_none_and_keeps_bytes_that_are_no_text(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    write_csv(tmp_path / "a.csv", ["class", "value"], [[name, None], ["b", 0.1]])
    assert (tmp_path / "a.csv").read_bytes() == b"class,value\r\ncaf\xe9,\r\nb,0.1\r\n"
