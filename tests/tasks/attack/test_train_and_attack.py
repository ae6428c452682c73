"""One command that trains runs, attacks each and gathers all rows; defences with keys of their own."""

import csv
import shutil
from pathlib import Path
from typing import Any

import pytest

from fedsplit.errors import UserError
from fedsplit.privacy.defences.gaussian import Gaussian
from fedsplit.sweeps.status import is_finished
from fedsplit.tasks.attack.channels import defence_asked_for
from fedsplit.tasks.attack.rows import gathered_table
from fedsplit.tasks.attack.train_and_attack import TrainAndAttack
from tests.conftest import TINY
from tests.tasks.attack.test_attack import ASKED, rows_in, run, trained_run

SWEEP = (
    "-m",
    *(each for each in TINY if not each.startswith("rounds=")),
    "task=train_and_attack",
    "algorithm=splitfed_v1",
    "defence=none,gaussian",
    "rounds=1",
    "task.attackers=[linear]",
    *ASKED,
)


def gathered(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_sweep_attacks_each_run_that_it_trained_and_one_gone_on_with_is_attacked_too(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    sweep = tmp_path / "sweep"
    asked = (*SWEEP, f"hydra.sweep.dir={sweep}", "hydra.launcher.n_jobs=1")
    assert run(*asked) == 0
    rows = gathered(sweep / "attack.csv")
    own = [rows_in(sweep / str(job)) for job in range(2)]
    assert rows == [{"job": str(job), **row} for job in range(2) for row in own[job]]
    assert [(row["job"], row["defence"], row["attacker"]) for row in rows] == [
        (str(job), defence, attacker)
        for job, defence in enumerate(("none", "gaussian"))
        for attacker in ("mean", "linear")
    ]
    printed = capfd.readouterr().out
    assert "PSNR dB" in "".join(printed.splitlines()[-8:])
    assert (sweep / "attack.png").read_bytes().startswith(b"\x89PNG")
    assert not list(sweep.glob("*/attack/leakage.png"))  # a run has one cut and one way, which is one point
    shutil.rmtree(sweep / "1" / "attack")
    assert is_finished(sweep / "1")
    assert [is_finished(sweep / str(job), TrainAndAttack.gathered) for job in range(2)] == [True, False]
    assert run(f"resume={sweep / '1'}") == 0
    assert rows_in(sweep / "1") == own[1]


@pytest.mark.parametrize("damage", [{"psnr": "much"}, {"test_accuracy": ""}])
def test_gathered_rows_that_are_damaged_are_told_in_one_line(damage: dict[str, str]) -> None:
    names = ("psnr", "ssim", "reidentified", "distance_correlation", "bytes_per_sample", "test_accuracy")
    row = {"job": "0", "cut": "[red]", "attacker": "linear", **dict.fromkeys(names, "0.5")}
    assert gathered_table([row]).row_count == 1
    with pytest.raises(UserError, match=r"attack\.csv: is damaged"):
        gathered_table([row | damage])
    with pytest.raises(UserError, match=r"attack\.csv: is damaged"):
        gathered_table([{"ssim": "0.5"}])


def test_run_that_is_attacked_as_no_defence_can_be_is_refused_before_it_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("task=train_and_attack", "algorithm=splitfed_v1", "task.defences=[{gaussian:{sigmo:1}}]")
    assert run(*TINY, *asked, f"hydra.run.dir={tmp_path / 'run'}") == 2
    told = "task.defences=gaussian.sigmo: a key of defence=gaussian: sigma, clip, delta, unit"
    assert told in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_defences_with_keys_of_their_own_are_told_apart(tmp_path: Path) -> None:
    path = trained_run(tmp_path / "run", "algorithm=splitfed_v1")
    defences = "[none,{gaussian:{sigma:0.1,clip:null}},{gaussian:{sigma:10,clip:null}}]"
    assert (
        run("task=attack", f"run={path}", "task.attackers=[linear]", f"task.defences={defences}", *ASKED) == 0
    )
    linear = {row["defence"]: row for row in rows_in(path) if row["attacker"] == "linear"}
    assert list(linear) == ["none", "gaussian sigma=0.1 clip=null", "gaussian sigma=10 clip=null"]
    assert len({row["smashed_std"] for row in linear.values()}) == 1
    exact, little, much = (float(row["psnr"]) for row in linear.values())
    assert exact > little + 1 > much + 2


def test_defence_with_keys_has_these_and_the_others_as_by_default() -> None:
    title, component = defence_asked_for({"gaussian": {"sigma": 0.5}})
    assert title == "gaussian sigma=0.5"
    built = component.build(Gaussian)
    assert (built.sigma, built.clip) == (0.5, 40)
    assert defence_asked_for("gaussian")[1].arguments["sigma"] == 0.05


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"gauss": {}}, "each one of .*gaussian"),
        ({"gaussian": 3}, "each one of .*gaussian"),
        ({}, "each one of .*gaussian"),
        ({"none": {}, "gaussian": {}}, "each one of .*gaussian"),
        ({"gaussian": {"sigma": -1}}, r"defence\.sigma=-1: must be a number, 0 or greater"),
        ({"none": {"sigma": 1}}, "none, for it has no keys"),
    ],
)
def test_defence_that_cannot_be_is_refused_with_what_can(given: Any, told: str) -> None:
    with pytest.raises(UserError, match=told):
        defence_asked_for(given)
