from itertools import chain
from math import inf, nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats

from fedsplit.recording.ledger import DIRECTIONS, KINDS
from fedsplit.recording.metrics import Record, summarise
from fedsplit.reports.runs import Run
from fedsplit.reports.tables.table import Table, TableRequest, decimals_for, table_of
from tests.reports.chosen import store_run
from tests.reports.stored import load_runs


def made(*paths: Path, **request: Any) -> Table:
    return table_of(TableRequest(**request), load_runs(paths), name="mine", title="Mine")


def column(table: Table, key: str) -> list[tuple[float, ...]]:
    """The seeds' numbers, a row after the other."""
    place = [each.key for each in table.columns].index(key)
    return [row.cells[place].values for row in table.rows]


def shown(table: Table, key: str) -> list[str]:
    place = [each.key for each in table.columns].index(key)
    cells = [cells[place] for _, cells in table.lines()]
    return [
        " ".join(filter(None, ["*" * c.best + c.mean, c.spread and f"± {c.spread}", c.share_at_target]))
        for c in cells
    ]


def csv_of(path: Path) -> dict[str, np.ndarray]:
    read = np.genfromtxt(path / "metrics.csv", delimiter=",", names=True, deletechars="")
    return {name: np.atleast_1d(read[name]) for name in read.dtype.names or ()}


@pytest.fixture
def random_runs(tmp_path: Path) -> dict[str, list[Path]]:
    """Three seeds of each of three algorithms, evaluated in two rounds of three."""
    drawn = np.random.default_rng(0)
    paths: dict[str, list[Path]] = {}
    for algorithm in ("fed_avg", "cse_fsl", "fsl_sage"):
        for seed in (2, 0, 1):
            accuracy = np.sort(drawn.uniform(size=12)).tolist()
            seconds = {f"seconds.{each}": drawn.uniform(size=12) for each in ("clients", "evaluate")}
            path = store_run(
                tmp_path / algorithm / str(seed),
                algorithm,
                seed=seed,
                accuracy=[a if t % 3 else None for t, a in enumerate(accuracy)],
                load=int(drawn.integers(1_000_000, 9_000_000)),
                columns={"simulated_seconds": np.cumsum(drawn.uniform(size=12)), **seconds},
            )
            paths.setdefault(algorithm, []).append(path)
    return paths


def test_numbers_of_a_table_are_those_of_metrics_csv(random_runs: dict[str, list[Path]]) -> None:
    names = ("final_accuracy", "best_accuracy", "load", "seconds", "simulated_seconds")
    table = made(*chain(*random_runs.values()), columns=names)
    assert [(row.algorithm, row.setting, row.seeds) for row in table.rows] == [
        (name, "", (0, 1, 2)) for name in random_runs
    ]
    for place, paths in enumerate(random_runs.values()):
        read = [csv_of(path) for path in paths]
        accuracies = [each["test_accuracy"][~np.isnan(each["test_accuracy"])] for each in read]
        expected = {
            "final_accuracy": [each[-1] for each in accuracies],
            "best_accuracy": [each.max() for each in accuracies],
            "load": [each["load"][-1] for each in read],
            "seconds": [each["seconds.clients"].sum() + each["seconds.evaluate"].sum() for each in read],
            "simulated_seconds": [each["simulated_seconds"][-1] for each in read],
        }
        for cell, name in zip(table.rows[place].cells, names, strict=True):
            assert sorted(cell.values) == pytest.approx(sorted(expected[name]), rel=1e-12)
            assert cell.mean == pytest.approx(np.mean(expected[name]), rel=1e-12)
            assert cell.deviation == pytest.approx(np.std(expected[name], ddof=1), rel=1e-9)


def test_interval_of_a_mean_is_that_of_students_t(random_runs: dict[str, list[Path]]) -> None:
    table = made(*random_runs["fed_avg"], columns=("final_accuracy",), spread="interval")
    ((cell,),) = (row.cells for row in table.rows)
    low, high = scipy.stats.t.interval(0.95, 2, np.mean(cell.values), scipy.stats.sem(cell.values))
    assert cell.interval == pytest.approx((high - low) / 2)
    assert shown(table, "final_accuracy") == [f"{100 * np.mean(cell.values):.1f} ± {50 * (high - low):.1f}"]
    assert table.note().startswith("Mean over seeds ± 95 % interval of that mean")
    alone = made(random_runs["fed_avg"][0], columns=("final_accuracy",), spread="interval")
    assert alone.rows[0].cells[0].interval is None


@pytest.mark.parametrize("spent", ["load", "seconds", "simulated_seconds"])
def test_table_of_what_an_accuracy_took_is_that_of_metrics_csv(
    random_runs: dict[str, list[Path]], spent: str
) -> None:
    targets = (0.1234, 0.5, 0.95, 0.99999)
    name = {"load": "bytes"}.get(spent, spent) + "_to_accuracy"
    table = made(*chain(*random_runs.values()), columns=(name,), targets=targets)
    assert [each.key for each in table.columns] == [f"{name}.{target:g}" for target in targets]
    counts = set()
    for place, paths in enumerate(random_runs.values()):
        for cell, target in zip(table.rows[place].cells, targets, strict=True):
            expected = []
            for path in paths:
                read = csv_of(path)
                read["seconds"] = np.cumsum(read["seconds.clients"] + read["seconds.evaluate"])
                reached = np.flatnonzero(read["test_accuracy"] >= target)
                expected += [read[spent][reached[0]]] if len(reached) else []
            assert sorted(cell.values) == pytest.approx(sorted(expected), rel=1e-12)
            assert cell.seeds == 3
            counts.add(len(expected))
    assert {0, 3} < counts  # some, too


def test_loads_and_seconds_of_a_table_are_those_of_results_json(tmp_path: Path) -> None:
    accuracies = [0.07, None, 0.31, 0.3, None, 0.52, 0.5]
    records = [
        Record(
            round=t,
            test_accuracy=accuracy,
            test_loss=None if accuracy is None else 1.0,
            train_loss=1.0,
            load=1000 * (t + 1),
            bytes={d: dict.fromkeys(KINDS, 0) for d in DIRECTIONS},
            seconds={"clients": 1.0, "server": 0.5, "evaluate": 0.25 * t},
        )
        for t, accuracy in enumerate(accuracies)
    ]
    summary: dict[str, Any] = summarise(
        records, stopped_by="rounds", target_accuracy=0.511, parameters={}, frozen_bytes={}
    )
    seconds = {f"seconds.{name}": [r.seconds[name] for r in records] for name in records[0].seconds}
    path = store_run(tmp_path / "a", accuracy=accuracies, load=1000, columns=seconds)
    targets = [float(a) for a in summary["bytes_to_accuracy"]]
    assert len(targets) == 11
    names = ("final_accuracy", "best_accuracy", "load", "rounds_run", "seconds")
    both = ("bytes_to_accuracy", "seconds_to_accuracy")
    table = made(path, columns=(*names, *both), targets=tuple(targets))
    for name in names:
        assert column(table, name) == [(pytest.approx(summary[name]),)]
    for name in both:
        for target, amount in summary[name].items():
            assert column(table, f"{name}.{target}") == [(pytest.approx(amount),)]


def test_table_cell_says_how_many_seeds_reached_an_accuracy_where_not_all_did(tmp_path: Path) -> None:
    paths = [
        store_run(tmp_path / f"{seed}", seed=seed, accuracy=accuracy)
        for seed, accuracy in enumerate([(0.5, 0.9), (0.5, 0.6), (0.9, 0.2)])
    ]
    paths.append(store_run(tmp_path / "other", "cse_fsl", accuracy=(0.4, 0.5, 0.8), load=3_000_000))
    table = made(*paths, targets=(0.5, 0.8, 0.95), columns=("bytes_to_accuracy",))
    assert [row.seeds for row in table.rows] == [(0,), (0, 1, 2)]
    assert shown(table, "bytes_to_accuracy.0.5") == ["6.00", "*1.00"]
    # 1.5 MB of two seeds cannot be compared with 9 MB of all: the third never reached it.
    assert shown(table, "bytes_to_accuracy.0.8") == ["*9.00", "1.50 ± 0.71 2 of 3 seeds"]
    assert shown(table, "bytes_to_accuracy.0.95") == ["-", "-"]
    assert "-: not reached, or not measured." in table.note()


def test_means_of_some_seeds_are_never_the_best(tmp_path: Path) -> None:
    runs = {("ampere", 0): 0.9, ("ampere", 1): 0.2, ("cse_fsl", 0): 0.9, ("cse_fsl", 1): 0.2}
    paths = [
        store_run(
            tmp_path / f"{name}{seed}", name, seed=seed, accuracy=(0.1, last), load=1_000_000 * len(name)
        )
        for (name, seed), last in runs.items()
    ]
    cells = shown(made(*paths, targets=(0.8,), columns=("bytes_to_accuracy",)), "bytes_to_accuracy.0.8")
    assert len(set(cells)) == 2
    assert all("1 of 2 seeds" in cell and "*" not in cell for cell in cells)


@pytest.mark.parametrize(
    ("accuracies", "expected"),
    [
        ((0.91, 0.92), ["91.0", "*92.0"]),
        ((0.92, 0.92), ["92.0", "92.0"]),
        ((0.9201, 0.9204, 0.9), ["*92.0", "*92.0", "90.0"]),
        ((0.92,), ["92.0"]),
        ((0.92, None), ["*92.0", "-"]),
        ((0.92, nan), ["*92.0", "-"]),
    ],
)
def test_best_of_a_table_column_stands_out_where_there_is_a_better_and_a_worse(
    tmp_path: Path, accuracies: tuple[float | None, ...], expected: list[str]
) -> None:
    paths = [store_run(tmp_path / str(n), accuracy=(a,), num_clients=n) for n, a in enumerate(accuracies)]
    assert shown(made(*paths, columns=("final_accuracy",)), "final_accuracy") == expected


def test_table_takes_less_load_as_better_and_parameters_as_neither(tmp_path: Path) -> None:
    paths = [store_run(tmp_path / name, name, load=load) for name, load in (("fed_avg", 9), ("cse_fsl", 5))]
    fewer = {"parameters": {"client": 5, "server": 4, "auxiliary": 0}}
    paths.append(store_run(tmp_path / "sage", results=fewer))
    table = made(*paths, columns=("load", "parameters"))
    assert [cell.startswith("*") for cell in shown(table, "load")] == [False, True, False]
    assert shown(table, "parameters.server") == ["17,098", "17,098", "4"]


def test_table_columns_that_no_run_has_are_left_out_unless_asked_for(tmp_path: Path) -> None:
    plain = store_run(tmp_path / "a")
    keys = [each.key for each in made(plain, targets=(0.99,)).columns]
    assert keys == ["final_accuracy", "best_accuracy", "load", "bytes_to_accuracy.0.99"]
    assert shown(made(plain, columns=("cost",)), "cost") == ["-"]
    local = {"local_accuracy.mean": [None, None, 0.5], "local_accuracy.worst": [None, None, 0.25]}
    more = {"simulated_seconds": [1, 2, 3], "cost": [0.1, 0.2, 0.3]}
    measured = store_run(tmp_path / "b", seed=1, columns={**local, **more})
    table = made(plain, measured, targets=(0.99,))
    assert [each.key for each in table.columns] == [
        *("final_accuracy", "best_accuracy", "local_accuracy.mean", "local_accuracy.worst"),
        *("load", "bytes_to_accuracy.0.99"),
        *("simulated_seconds", "simulated_seconds_to_accuracy.0.99", "cost"),
    ]
    assert shown(table, "local_accuracy.worst") == ["25.0 1 of 2 seeds"]
    assert shown(table, "cost") == ["0.300 1 of 2 seeds"]
    private = {
        "released_accuracy": [0.2, None, 0.4],
        "epsilon.smashed": [1, 2, 3],
        "epsilon.weights": [inf] * 3,
    }
    defended = made(store_run(tmp_path / "c", columns=private), columns=("released_accuracy", "epsilon"))
    cells = [shown(defended, key) for key in ("released_accuracy", "epsilon.smashed", "epsilon.weights")]
    assert cells == [["40.0"], ["3.00"], ["-"]]


def test_table_compares_parameters_where_rows_differ_in_them(tmp_path: Path) -> None:
    without = {"parameters": {"client": 1248, "server": 17098, "auxiliary": 0}}
    paths = [store_run(tmp_path / "a"), store_run(tmp_path / "b", "fed_avg", results=without)]
    assert made(*paths).columns[-1].title == "Parameters, auxiliary"
    assert shown(made(*paths), "parameters.auxiliary") == ["0", "650"]
    assert not any(each.key == "parameters.client" for each in made(*paths).columns)


@pytest.mark.parametrize("accuracy", [(), (None, None), (nan, nan), (0.5, inf), (0.9, nan)])
def test_table_of_runs_without_finite_accuracies_has_gaps(
    tmp_path: Path, accuracy: tuple[float | None, ...]
) -> None:
    odd = store_run(tmp_path / "odd", accuracy=accuracy, ended=False)
    table = made(odd, columns=("final_accuracy", "load", "parameters"))
    assert shown(table, "final_accuracy") == ["-"]
    assert shown(table, "load") == (["2.00"] if accuracy else ["-"])
    assert shown(table, "parameters.client") == ["-"]
    assert "Runs that have not ended count with what they have." in table.note()
    made(odd, targets=(0.5,)).lines()


def test_table_rows_of_different_settings_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    paths = [
        store_run(tmp_path / f"{n}-{seed}", seed=seed, num_clients=n) for n in (100, 5) for seed in (0, 1)
    ]
    paths.append(store_run(tmp_path / "own", "my_own", num_clients=5))
    table = made(*paths, columns=("load",))
    assert [list(names.values()) for names, _ in table.lines()] == [
        ["FSL-SAGE", "num_clients=5", "2"],
        ["FSL-SAGE", "num_clients=100", "2"],
        ["my own", "num_clients=5", "1"],
    ]


def test_numbers_of_a_table_column_have_the_decimals_that_the_least_needs() -> None:
    assert decimals_for([]) == 2
    assert decimals_for([147.2, 895.3]) == 0
    assert decimals_for([14.72, 895.3]) == 1
    assert decimals_for([0.0, 0.874]) == 3
    assert decimals_for([1e-9]) == 6
    assert decimals_for([999.9]) == 0


def test_table_keeps_the_runs_that_it_was_made_of(tmp_path: Path) -> None:
    runs: list[Run] = load_runs([store_run(tmp_path / "a")])
    assert list(table_of(TableRequest(), runs, name="n", title="t").runs) == runs
