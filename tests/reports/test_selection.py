from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsplit.errors import UserError
from fedsplit.reports.runs import Run
from fedsplit.reports.selection import fits, missing, settings_of, sweep, unknown_keys
from tests.reports.stored import dirichlet, load_runs, make_run


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
def test_wrong_settings_of_a_selection_are_refused(where: object, told: str) -> None:
    with pytest.raises(UserError, match=told):
        settings_of("x.where", where)


def test_missing_runs_are_all_in_the_commands_that_make_them(runs: Any) -> None:
    skewed = {"distribution.alpha": [0.3, 0.1], "distribution": "dirichlet", "quant": [None, "none"]}
    where = settings_of("where", skewed)
    expects = settings_of("expects", {"algorithm": ["fed_avg", "fsl_sage"], "seed": [0, 1]})
    begins, ends = (
        "python main.py -m distribution=dirichlet algorithm=fed_avg,fsl_sage",
        "distribution.alpha=0.3",
    )
    assert missing(runs, where, expects) == [f"{begins} seed=1 {ends}"]
    assert sweep(where, expects) == f"{begins} seed=0,1 {ends}"
    assert missing(runs, where, settings_of("expects", {"algorithm": ["fed_avg", "sl_multi_server"]})) == []


@given(present=st.sets(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 1))))
def test_commands_for_missing_runs_make_each_once_and_no_other(present: set[tuple[int, int, int]]) -> None:
    keys = ("seed", "rounds", "num_clients")
    chosen = {"choices": {"algorithm": "fed_avg"}}
    runs = [Run(Path(), {**dict(zip(keys, values, strict=True)), **chosen}, "", {}) for values in present]
    expects = settings_of("expects", {"seed": [0, 1, 2], "rounds": [0, 1, 2], "num_clients": [0, 1]})
    made: list[tuple[int, ...]] = []
    for command in missing(runs, {}, expects):
        values = dict(each.split("=") for each in command.split() if "=" in each)
        made += product(*(map(int, values[key].split(",")) for key in keys))
    assert len(made) == len(set(made))
    assert set(made) == set(product(range(3), range(3), range(2))) - present


def test_selection_knows_the_keys_that_no_run_has(runs: Any) -> None:
    asked = settings_of(
        "where", {"distribution.alhpa": 0.3, "distribution.alpha": 9, "dataset.max_train": None}
    )
    assert unknown_keys(runs, asked) == ["distribution.alhpa"]
    assert unknown_keys([], asked) == []
