from pathlib import Path

from fedsplit.reports.page import Differing, differences
from tests.reports.chosen import store_run
from tests.reports.stored import load_runs


def test_differences_of_runs_hold_what_is_shared_and_what_differs(tmp_path: Path) -> None:
    runs = load_runs(
        [
            store_run(tmp_path / "a", "cse_fsl", optimizer={"lr": 10.0}),
            store_run(tmp_path / "b", seed=7, optimizer={"lr": 2.0}, cohort_size=None),
            store_run(tmp_path / "c", optimizer={"lr": 10.0}, cohort_size=3),
        ]
    )
    found = differences(runs)
    assert found.shared["num_clients"] == "10"
    assert "seed" not in found.shared
    named = {each.key: each.values for each in found.differing}
    assert named["algorithm"] == (("cse_fsl", (0,)), ("fsl_sage", (1, 2)))
    assert named["optimizer.lr"] == (("2", (1,)), ("10", (0, 2)))
    assert named["cohort_size"] == (("3", (2,)), ("null", (1,)), (None, (0,)))
    told = {key for run in runs for key in (*run.settings, *run.choices)}
    assert {*found.shared, *named} == told - {"algorithm._target_"}


def test_differences_of_runs_name_a_class_that_no_choice_names(tmp_path: Path) -> None:
    mine, theirs = ({"_target_": name} for name in ("my.Net", "their.Net"))
    runs = load_runs([store_run(tmp_path / "a", model=mine), store_run(tmp_path / "b", model=theirs)])
    assert differences(runs).differing == (
        Differing("model._target_", (("my.Net", (0,)), ("their.Net", (1,)))),
    )


def test_differences_of_one_run_are_none(tmp_path: Path) -> None:
    (run,) = load_runs([store_run(tmp_path / "a")])
    assert differences([run]).differing == ()
    assert differences([run]).shared == {**run.settings, **run.choices}


def test_differences_of_runs_have_values_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    clients = {"a": 3, "b": 20, "c": 3}
    runs = load_runs([store_run(tmp_path / name, num_clients=n) for name, n in clients.items()])
    assert differences(runs).differing == (Differing("num_clients", (("3", (0, 2)), ("20", (1,)))),)
