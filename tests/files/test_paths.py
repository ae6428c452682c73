"""`~` is the home directory wherever a user names a path."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedsplit.building.trained_start import TrainedStart
from fedsplit.config.compose import compose_config, composing, hydra_path
from fedsplit.config.overrides import spell_out
from fedsplit.data.sources.femnist import Femnist
from fedsplit.data.sources.image_folder import ImageFolder
from fedsplit.errors import UserError
from fedsplit.files.paths import user_path
from fedsplit.recording.run_directory import RunDirectory
from fedsplit.reports.runs import runs_at
from fedsplit.sweeps import record
from fedsplit.sweeps.record import Job
from fedsplit.tasks.certificates.certificates import Certificates
from fedsplit.tasks.cuts.cuts import CutTable
from fedsplit.transport.grpc.protocol.tls import Tls


def _refused(call: Callable[[], Any]) -> str:
    with pytest.raises(UserError) as caught:
        call()
    return str(caught.value)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def _hydra_path(key: str, value: str) -> Path:
    with composing():
        return hydra_path(compose_config(spell_out(f"{key}={value}")), key)


def test_home_is_spelled_out_and_other_paths_stay(home: Path) -> None:
    assert user_path("~", "run") == home
    assert user_path("~/a/~", "run") == home / "a/~"
    assert user_path("a/~", "run") == Path("a/~")
    assert user_path("~root", "run") == Path(os.path.expanduser("~root"))
    told = "run=~nobody-of-this-name/a: begins with ~ and names no user with a home directory"
    assert _refused(lambda: user_path("~nobody-of-this-name/a", "run")) == told


@pytest.mark.parametrize("key", ["hydra.run.dir", "hydra.sweep.dir"])
def test_directories_of_results_may_be_at_home(home: Path, key: str) -> None:
    assert _hydra_path(key, "~/a") == home / "a"


@pytest.mark.parametrize(
    "named",
    [
        lambda: RunDirectory.existing("~/a", "resume"),
        lambda: TrainedStart.of("~/a"),
        lambda: Tls.read("~/a"),
        lambda: ImageFolder(root="~/a").read(),
        lambda: Femnist(root="~/a", download=False).read(),
    ],
)
def test_what_is_read_may_be_at_home(home: Path, named: Callable[[], Any]) -> None:
    assert "no user" not in _refused(named)  # it is looked for, and not there
    (home / "a").write_text("no directory")
    assert str(home) in _refused(named) or "~/a" in _refused(named)


def test_what_is_written_may_be_at_home(home: Path) -> None:
    assert Certificates(hosts=["localhost"], clients=1, days=1, out="~/a").out == home / "a"
    intervals = {"server_update_interval": 5, "align_interval": 10}
    assert (
        CutTable(format="table", among="all", plot="~/a.png", columns=None, **intervals).file
        == home / "a.png"
    )


def test_runs_to_draw_may_be_at_home(home: Path) -> None:
    run = home / "saves" / "run"
    run.mkdir(parents=True)
    for name in ("config.yaml", "metrics.csv"):
        (run / name).touch()
    for place in ("~/saves", "~/saves/run", "~/saves/*"):
        assert runs_at(place, "RUN_DIR").runs == (run,)


def test_sweep_to_go_on_with_may_be_at_home(home: Path) -> None:
    sweep = home / "sweeps" / "1"
    sweep.mkdir(parents=True)
    record.write(sweep, [], [Job(0, "0", [], "abc")])
    assert record.newest("~/sweeps/${now:%Y}", {"abc"}) == sweep
