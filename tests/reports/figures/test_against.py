import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedsplit.errors import UserError
from fedsplit.reports.figures.against import Against
from fedsplit.reports.figures.measures import at_moment
from tests.reports.stored import dirichlet, load_runs, make_run, table


def skewed(alpha: float) -> dict[str, Any]:
    return {"distribution": dirichlet(alpha), "choices": {"distribution": "dirichlet"}}


def test_against_figure_has_points_of_the_last_csv_rows_over_seeds_and_iid_as_the_last_tick(
    tmp_path: Path,
) -> None:
    settings: dict[Any, dict[str, Any]] = {10.0: skewed(10.0), "iid": {}, 0.1: skewed(0.1)}
    paths = {
        (name, x, seed): make_run(tmp_path / f"{name}-{x}-{seed}", name, seed=seed, evaluated=2, **own)
        for name in ("fed_avg", "fsl_sage")
        for x, own in settings.items()
        for seed in (0, 1, 2)
    }
    figure = Against()
    lines = figure.data(load_runs(list(paths.values())))
    assert [(line.label, line.hue, line.setting) for line in lines] == [
        ("fed_avg", "fed_avg", ""),
        ("fsl_sage", "fsl_sage", ""),
    ]
    for line in lines:
        assert [point.x for point in line.points] == [0.1, 10.0, "iid"]
        for point in line.points:
            last = [table(paths[line.hue, point.x, seed])["test_accuracy"][3] for seed in (0, 1, 2)]
            assert point.seeds == (0, 1, 2)
            np.testing.assert_allclose(
                [point.mean, point.low, point.high], [np.mean(last), min(last), max(last)]
            )
    drawn = figure.draw(lines)
    (axes,) = drawn.axes
    assert axes.get_xscale() == "log"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.1", "10", "iid"]
    assert axes.get_xticks()[-1] > 10
    bars = [segment for container in axes.containers for segment in container[2][0].get_segments()]
    ends = sorted((round(float(low), 9), round(float(high), 9)) for (_, low), (_, high) in bars)
    assert ends == sorted((round(p.low, 9), round(p.high, 9)) for line in lines for p in line.points)


def test_against_figure_of_auxiliary_models_has_the_parameters_of_the_results(tmp_path: Path) -> None:
    paths = [
        make_run(
            tmp_path / f"{name}{seed}",
            seed=seed,
            auxiliary_size=size,
            choices={"auxiliary": name},
            **{"auxiliary._target_": f"f.{name}"},
        )
        for name, size in (("mlp", 5000), ("linear", 650))
        for seed in (0, 1)
    ]
    (line,) = Against(x="auxiliary", y="train_loss").data(load_runs(paths))
    assert [point.x for point in line.points] == [650, 5000]
    for point, name in zip(line.points, ("linear", "mlp"), strict=True):
        last = [table(tmp_path / f"{name}{seed}")["train_loss"][-1] for seed in (0, 1)]
        assert point.mean == pytest.approx(np.mean(last))
    (tmp_path / "mlp0" / "results.json").write_text(json.dumps({"parameters": {"auxiliary": 0}}))
    with pytest.raises(UserError, match="must have an auxiliary model"):
        Against(x="auxiliary").check(load_runs([tmp_path / "mlp0"])[0])


def test_against_figure_of_bits_divides_all_bits_by_all_values_sent_but_labels(tmp_path: Path) -> None:
    path = make_run(tmp_path / "a", bits=4.0, choices={"quant": "int4"}, **{"quant.bits": 4})
    lines = (path / "metrics.csv").read_text().splitlines()
    header = lines[0].split(",")
    cells = [line.split(",") for line in lines[1:]]
    for row in cells:  # half of the links are wider
        row[header.index("bits.up.smashed")] = "16.0"
    (path / "metrics.csv").write_text("\n".join([lines[0], *(",".join(row) for row in cells), ""]))
    sent = values = 0.0
    for row in cells:
        for name in header:
            if name.startswith("bits.") and "labels" not in name and row[header.index(name)]:
                size = float(row[header.index(name.replace("bits", "bytes"))])
                sent, values = sent + 8 * size, values + 8 * size / float(row[header.index(name)])
    (line,) = Against(x="bits").data(load_runs([path]))
    assert line.points[0].x == pytest.approx(sent / values, rel=1e-12)
    assert 4 < sent / values < 16


def test_against_figure_takes_any_dotted_key_sorting_numbers_and_names(tmp_path: Path) -> None:
    paths = [make_run(tmp_path / f"l{n}", **{"algorithm.align_interval": n}) for n in (10, 1, 2)]
    (line,) = Against(x="algorithm.align_interval").data(load_runs(paths))
    assert [point.x for point in line.points] == [1, 2, 10]
    assert line.setting == ""
    named = [
        make_run(tmp_path / name, choices={"model": name}, **{"model.name": name}) for name in ("b", "a")
    ]
    (line,) = Against(x="model").data(load_runs(named))
    assert [point.x for point in line.points] == ["a", "b"]
    (axes,) = Against(x="model").draw([line]).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b"]
    with pytest.raises(UserError, match=r"has no algorithm\.align_interval"):
        Against(x="algorithm.align_interval").check(load_runs(named)[0])


def test_measure_is_taken_at_the_end_at_the_best_or_within_a_budget(tmp_path: Path) -> None:
    (run,) = load_runs([make_run(tmp_path / "a", ran=9, evaluated=2)])
    rows = table(run.path)
    accuracy, load = rows["test_accuracy"], rows["load"]
    assert at_moment(run, "accuracy", "final") == accuracy[7]
    assert at_moment(run, "accuracy", "best") == np.nanmax(accuracy)
    assert at_moment(run, "loss", "best") == np.nanmin(rows["test_loss"])
    assert at_moment(run, "accuracy", f"load:{load[5] / 1e6 + 1e-9:.9f}") == accuracy[5]
    assert at_moment(run, "accuracy", f"load:{load[5] / 1e6 - 1e-3:.9f}") == accuracy[3]
    assert at_moment(run, "accuracy", "round:100") == accuracy[7]
    with pytest.raises(UserError, match=r"must have a test_accuracy within load 0\.001"):
        at_moment(run, "accuracy", "load:0.001")


def test_value_within_a_budget_is_that_of_the_last_evaluation_it_pays_for(tmp_path: Path) -> None:
    (run,) = load_runs([make_run(tmp_path / "run", ran=9, evaluated=2)])
    accuracy = table(run.path)["test_accuracy"]
    within = [at_moment(run, "accuracy", f"round:{budget}") for budget in (2, 3, 4)]
    assert within == [accuracy[round_] for round_ in (1, 3, 3)]
