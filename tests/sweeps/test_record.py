"""Which jobs are the same, and which sweep is gone on with."""

import os
from pathlib import Path

import pytest

from fedsplit.errors import UserError
from fedsplit.sweeps.record import Job, differing, fingerprint, newest, read, write
from fedsplit.sweeps.status import lock_job, lock_sweep
from tests.conftest import Configure


def job(number: int, *overrides: str, configuration: str = "") -> Job:
    return Job(number, str(number), list(overrides), configuration or str(number))


def test_job_is_identified_by_its_configuration_not_by_its_overrides(configured: Configure) -> None:
    def of(*overrides: str) -> str:
        config = configured(*overrides).plain()
        del config["choices"]
        return fingerprint(config)

    assert of("dataset.distribution=noniid_dirichlet", "seed=1") == of("seed=1", "distribution=dirichlet")
    assert of("progress=false", "sweep.skip_finished=true") == of()
    assert len({of(), of("seed=1"), of("rounds=21"), of("optimizer.lr=0.1")}) == 4


def test_differing_overrides_of_jobs_are_shown_with_the_last_of_a_key() -> None:
    jobs = [job(0, "rounds=3", "seed=0", "+model.width=2"), job(1, "rounds=3", "seed=0", "seed=1")]
    assert differing(jobs) == [["seed=0", "+model.width=2"], ["seed=1"]]
    assert differing(jobs[:1]) == [[]]


def test_newest_sweep_with_a_job_in_common_is_found(tmp_path: Path) -> None:
    for age, (name, configurations) in enumerate([("a", "xy"), ("b", "yz"), ("c", "z")]):
        directory = tmp_path / "day" / name
        directory.mkdir(parents=True)
        write(directory, ["seed=0"], [job(i, configuration=each) for i, each in enumerate(configurations)])
        os.utime(directory / "sweep.yaml", (age, age))
    unresolved = f"{tmp_path}/${{now:%Y}}/${{now:%H}}"
    found = [newest(unresolved, set(each)) for each in ("x", "y", "xz", "w")]
    assert found == [tmp_path / "day/a", tmp_path / "day/b", tmp_path / "day/c", None]
    assert [each.configuration for each in read(tmp_path / "day/b")] == ["y", "z"]


def test_damaged_record_of_a_sweep_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text("jobs: [{number: 0}]")
    with pytest.raises(UserError, match=r"its sweep\.yaml is damaged"):
        read(tmp_path)


def test_sweep_does_not_begin_where_another_or_its_jobs_are_at_work(tmp_path: Path) -> None:
    with (
        lock_sweep(tmp_path),
        pytest.raises(UserError, match="a sweep is at work there"),
        lock_sweep(tmp_path),
    ):
        pass
    with (
        lock_job(tmp_path / ".jobs"),
        pytest.raises(UserError, match="jobs of an earlier sweep are still at work"),
        lock_sweep(tmp_path, patience_s=0.0),
    ):
        pass
    with lock_sweep(tmp_path), lock_job(tmp_path / ".jobs"):
        pass
