from pathlib import Path
from typing import Any

import pytest

from fedsplit.errors import UserError
from fedsplit.results.runs import load_runs
from fedsplit.results.selection import fits, missing, settings_of, sweep, unknown_keys
from tests.results.stored import dirichlet, make_run


@pytest.fixture
def runs(tmp_path: Path) -> Any:
    skewed: dict[str, Any] = {"distribution": dirichlet(0.3), "choices": {"distribution": "noniid_dirichlet"}}
    paths = [
        make_run(tmp_path / "a", "fed_avg"),
        make_run(tmp_path / "b", "sl_multi_server", seed=1),
        make_run(tmp_path / "c", "fsl_sage", **skewed),
        make_run(
            tmp_path / "d",
            "fsl_sage",
            num_clients=100,
            choices={"codec@quant.smashed": "sign"},
            **{"optimizer.lr": 1e-4, "quant.smashed.zstd": None},
        ),
    ]
    return load_runs(paths)


@pytest.mark.parametrize(
    ("where", "names"),
    [
        ({}, "abcd"),
        ({"algorithm": "fsl_sage"}, "cd"),
        ({"algorithm": ["fed_avg", "splitfed_v1"]}, "ab"),  # older names and canonical ones are the same
        ({"algorithm": "sl_multi_server"}, "b"),
        ({"distribution": "dirichlet"}, "c"),
        ({"distribution": "noniid_dirichlet"}, "c"),
        ({"distribution.alpha": 0.3}, "c"),
        ({"distribution.alpha": ".30"}, "c"),
        ({"distribution.alpha": [None, 0.1]}, "abd"),  # null: also where there is none
        ({"optimizer.lr": "1e-4"}, "d"),
        ({"optimizer.lr": 0.001, "num_clients": 10, "seed": [0, 2]}, "ac"),
        ({"quant.smashed": "sign"}, "d"),
        ({"client_optimizer": None, "experiment": None}, "abcd"),
        ({"experiment": "paper_cifar10"}, ""),
        ({"algorithm": "fsl_sage", "seed": 7}, ""),
    ],
)
def test_runs_are_selected_by_groups_and_values(runs: Any, where: dict[str, Any], names: str) -> None:
    asked = settings_of("where", where)
    assert "".join(run.path.name for run in runs if fits(run, asked)) == names


@pytest.mark.parametrize(
    ("where", "told"),
    [
        (["fsl_sage"], r"^x\.where=.*: must be \{group or dotted key"),
        (
            {"algoritm": "fsl_sage"},
            r"^x\.where\.algoritm=fsl_sage: no such key; did you mean algorithm\? known: seed",
        ),
        ({3: "fsl_sage"}, r"^x\.where\.3=fsl_sage: no such key; known"),
        ({"seed": []}, r"^x\.where\.seed=\[\]: must be a value or a list of values"),
        ({"model": {"cut": 3}}, r"^x\.where\.model=\{'cut': 3\}: must be a value or a list"),
    ],
)
def test_wrong_settings_are_told(where: object, told: str) -> None:
    with pytest.raises(UserError, match=told):
        settings_of("x.where", where)


def test_every_missing_combination_has_its_command(runs: Any) -> None:
    where = settings_of(
        "where", {"distribution.alpha": [0.3, 0.1], "distribution": "dirichlet", "quant": [None, "none"]}
    )
    expects = settings_of("expects", {"algorithm": ["fed_avg", "fsl_sage"], "seed": [0, 1]})
    begins = "python main.py distribution=dirichlet"
    assert missing(runs, where, expects) == [
        f"{begins} algorithm=fed_avg seed=1 distribution.alpha=0.3",
        f"{begins} algorithm=fsl_sage seed=1 distribution.alpha=0.3",
    ]
    assert missing(runs, where, settings_of("expects", {"algorithm": ["fed_avg", "sl_multi_server"]})) == []
    asked = (
        "python main.py -m distribution=dirichlet algorithm=fed_avg,fsl_sage seed=0,1 distribution.alpha=0.3"
    )
    assert sweep(where, expects) == asked


def test_keys_that_no_run_has_are_known(runs: Any) -> None:
    asked = settings_of(
        "where", {"distribution.alhpa": 0.3, "distribution.alpha": 9, "dataset.max_train": None}
    )
    assert unknown_keys(runs, asked) == ["distribution.alhpa"]
    assert unknown_keys([], asked) == []
