"""A tracker that fails, or meddles, changes nothing of a run."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from fedsplit.errors import RunFailed, UserError
from fedsplit.machine.extras import install_command
from fedsplit.recording.run_directory import RunDirectory
from fedsplit.trackers.tracker import Row, Tracker
from fedsplit.training.experiment import Experiment
from fedsplit.training.resume import resumed_config
from tests.conftest import Build, Configure, tiny_experiment
from tests.transport.runs import assert_same, metrics, ran


class Recording(Tracker):
    """Keeps what it is told, spoils it, and raises where it is asked to."""

    raises: str | None = None
    told: list[tuple[str, Any]]

    def _take(self, what: str, value: Any) -> None:
        self.told = [*getattr(self, "told", []), (what, value)]
        Recording.last = self
        if self.raises == what:
            raise ValueError("the disk of the tracker is full\nat line 7")

    def start(self, config: Mapping[str, Any], directory: Path, rows: Sequence[Row]) -> None:
        self._take("start", [dict(row) for row in rows])
        config["client"]["stateless"] = True  # type: ignore[index]
        config.clear()  # type: ignore[attr-defined]

    def round(self, row: Row) -> None:
        self._take("round", dict(row))
        row.clear()  # type: ignore[attr-defined]

    def finish(self, results: Mapping[str, object] | None) -> None:
        self._take("finish", results)

    last: "Recording"


class RaisesAtStart(Recording):
    raises = "start"


class RaisesInRound(Recording):
    raises = "round"


class RaisesAtFinish(Recording):
    raises = "finish"


class Leaves(Recording):
    def round(self, row: Row) -> None:
        raise SystemExit(1)


OVERRIDES = ("algorithm=cse_fsl", "rounds=3", "eval_interval=2")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without a tracker."""
    return ran(tiny_experiment(*OVERRIDES), tmp_path_factory.mktemp("runs") / "plain")


@pytest.mark.parametrize("kind", [Recording, RaisesAtStart, RaisesInRound, RaisesAtFinish, Leaves])
def test_files_of_a_run_whose_tracker_meddles_or_fails_are_those_without_it(
    plain: Path, tiny: Build, tmp_path: Path, kind: type[Recording]
) -> None:
    tracked = ran(tiny(*OVERRIDES, f"tracker._target_={__name__}.{kind.__name__}"), tmp_path / "tracked")
    assert_same(plain, tracked)
    names = [sorted(str(p.relative_to(run)) for p in run.rglob("*")) for run in (plain, tracked)]
    assert names[0] == names[1]
    for name in ("confusion.csv", "roc.csv", "class_counts.csv"):
        assert (plain / name).read_bytes() == (tracked / name).read_bytes()
    configs = [yaml.safe_load((run / "config.yaml").read_text()) for run in (plain, tracked)]
    assert configs[0].pop("tracker") != configs[1].pop("tracker")
    assert [config["choices"].pop("tracker") for config in configs] == ["none", kind.__name__]
    assert configs[0] == configs[1]
    warnings = [line for line in (tracked / "run.log").read_text().splitlines() if "WARNING" in line]
    reason = "SystemExit: 1" if kind is Leaves else "ValueError: the disk of the tracker is full"
    expected = f"{kind.__name__} is off from here on ({reason}); the run goes on"
    assert [line.partition(" WARNING ")[2] for line in warnings] == [expected] * (kind is not Recording)


def test_tracker_is_given_every_row_of_the_metrics_and_the_results(tiny: Build, tmp_path: Path) -> None:
    run = tiny(*OVERRIDES, f"tracker._target_={__name__}.Recording")
    directory = ran(run, tmp_path / "run")
    told = Recording.last.told
    assert [what for what, _ in told] == ["start", "round", "round", "round", "round", "finish"]
    rows = [value for what, value in told if what == "round"]
    assert set(rows[3]) == {"round", "test_accuracy", "test_loss"}  # the last is evaluated at the end
    together = [*rows[:2], rows[2] | rows[3]]
    written = [{column: "" if v is None else str(v) for column, v in row.items()} for row in together]
    for row, expected in zip(written, metrics(directory), strict=True):
        assert {column: row[column] for column in expected} == expected
    assert told[-1][1]["final_accuracy"] == rows[3]["test_accuracy"]


def test_tracker_that_has_failed_is_given_nothing_more(tiny: Build, tmp_path: Path) -> None:
    ran(tiny(*OVERRIDES, f"tracker._target_={__name__}.RaisesInRound"), tmp_path / "run")
    assert [what for what, _ in Recording.last.told] == ["start", "round"]


def test_tracker_of_a_run_that_fails_finishes_without_results(tiny: Build, tmp_path: Path) -> None:
    run = tiny("optimizer=sgd", "optimizer.lr=1e30", f"tracker._target_={__name__}.Recording")
    with pytest.raises(RunFailed, match="round 0"):
        run.run(RunDirectory(tmp_path / "run"))
    assert Recording.last.told == [("start", []), ("finish", None)]


def test_tracker_chosen_at_a_resume_begins_with_the_rows_of_the_rounds_before(
    tiny: Build, tmp_path: Path
) -> None:
    ran(tiny("rounds=2"), tmp_path / "run")
    directory = RunDirectory.existing(tmp_path / "run")
    resumed = Experiment(
        resumed_config(directory, {"rounds": 3, "tracker._target_": f"{__name__}.Recording"})
    )
    checkpoint = directory.latest_checkpoint()
    assert checkpoint is not None
    resumed.restore(checkpoint)
    resumed.run(directory)
    (_, rows), (_, row), _ = Recording.last.told
    assert [each["round"] for each in [*rows, row]] == [0, 1, 2]
    assert [each["load"] for each in [*rows, row]] == [record.load for record in resumed.records]


def test_tracker_given_at_a_resume_is_composed_and_checked(tiny: Build, tmp_path: Path) -> None:
    ran(tiny("rounds=1"), tmp_path / "run")
    directory = RunDirectory.existing(tmp_path / "run")
    config = resumed_config(directory, {"tracker": "wandb", "tracker.mode": "offline"})
    assert config.choices["tracker"] == "wandb"
    assert config.tracker.plain() == {
        "_target_": "fedsplit.trackers.wandb.WeightsAndBiases",
        "mode": "offline",
        "project": "fedsplit",
        "entity": None,
    }
    for changes, told in (
        ({"tracker": "abacus"}, "tracker=abacus: no such choice; allowed: none, tensorboard, wandb"),
        ({"tracker.mode": "offline"}, "tracker.mode=offline: no such key"),
        ({"tracker": "wandb", "tracker.mode": "loud"}, "tracker.mode=loud: must be one of online, offline"),
    ):
        with pytest.raises(UserError) as caught:
            resumed_config(directory, changes)
        assert str(caught.value).startswith(told)


def test_tracker_whose_package_is_missing_says_how_to_install_it(
    configured: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys  # noqa: PLC0415

    for name in [name for name in sys.modules if name.partition(".")[0] == "tensorboard"]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("torch.utils.tensorboard", "fedsplit.trackers.tensorboard"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.delattr("fedsplit.trackers.tensorboard", raising=False)  # what an earlier import left there

    class Absent:
        def find_spec(self, name: str, path: object = None, target: object = None) -> None:
            if name.partition(".")[0] == "tensorboard":
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(sys, "meta_path", [Absent(), *sys.meta_path])
    with pytest.raises(UserError) as caught:
        Experiment(configured("tracker=tensorboard"))
    told = f"tracker=tensorboard: needs tensorboard: {install_command('tensorboard')}"
    assert str(caught.value) == told


@pytest.fixture(autouse=True)
def _logger_as_it_was() -> Any:
    log = logging.getLogger("fedsplit")
    before = log.level
    yield
    log.setLevel(before)
