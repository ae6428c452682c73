from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import auc, roc_curve

from fedsplit.errors import UserError
from fedsplit.reports.figures.roc import Roc
from tests.reports.stored import load_runs, make_run


def curves(path: Path) -> list[np.ndarray]:
    """An array of points for each class."""
    rows = np.genfromtxt(path / "roc.csv", delimiter=",", skip_header=1, dtype=None, encoding="utf-8")
    names = sorted({str(row[0]) for row in rows})
    return [np.array([(row[1], row[2]) for row in rows if row[0] == name]) for name in names]


def test_roc_figure_has_mean_and_area_of_the_csv_over_classes_and_seeds(tmp_path: Path) -> None:
    paths = [make_run(tmp_path / str(seed), seed=seed) for seed in (0, 1)]
    (line,) = Roc().data(load_runs(paths))
    every = [points for path in paths for points in curves(path)]
    assert len(every) == 6
    assert line.area == pytest.approx(
        np.mean([auc(points[:, 0], points[:, 1]) for points in every]), rel=1e-12
    )
    # between any two rates that a curve has a point at, all curves are straight: so is their mean
    rates = sorted({x for points in every for x in points[:, 0].tolist()})
    assert line.false_positive_rate == tuple(x for x in rates for _ in range(2))
    middles = (np.array(rates[:-1]) + np.array(rates[1:])) / 2
    expected = np.mean([np.interp(middles, points[:, 0], points[:, 1]) for points in every], axis=0)
    found = np.interp(middles, line.false_positive_rate, line.true_positive_rate)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert auc(line.false_positive_rate, line.true_positive_rate) == pytest.approx(line.area, rel=1e-12)
    assert (line.true_positive_rate[0], line.true_positive_rate[-1]) == (0.0, 1.0)


def test_roc_figure_has_the_curve_and_area_of_a_classifiers_scores(tmp_path: Path) -> None:
    drawn = np.random.default_rng(3)
    truth = drawn.integers(0, 2, 60)
    x, y, _ = roc_curve(truth, truth + drawn.normal(size=60))
    path = make_run(tmp_path / "a")
    rows = "".join(f"micro,{a},{b}\n" for a, b in zip(x, y, strict=True))
    (path / "roc.csv").write_text(f"class,false_positive_rate,true_positive_rate\n{rows}")
    (line,) = Roc().data(load_runs([path]))
    assert line.area == pytest.approx(auc(x, y), rel=1e-12)
    figure = Roc(log=("x",)).draw([line])
    (legend,) = figure.legends
    assert legend.get_title().get_text() == "Mean over all decisions, and area under it"
    assert legend.get_texts()[0].get_text().endswith(f"{auc(x, y):.4f}")
    drawn_line = figure.axes[0].get_lines()[1]
    np.testing.assert_array_equal(drawn_line.get_ydata(), line.true_positive_rate)
    assert min(drawn_line.get_xdata()) > 0  # on a logarithmic axis all that is at 0 starts at its left


@pytest.mark.parametrize("rows", ["a,0,0\n", "a,0,0\na,0.5,0.7\na,0.4,0.8\na,1,1\n", "a,0,0\na,x,1\na,1,1\n"])
def test_roc_figure_of_a_damaged_file_is_refused(tmp_path: Path, rows: str) -> None:
    path = make_run(tmp_path / "a")
    (path / "roc.csv").write_text(f"class,false_positive_rate,true_positive_rate\n{rows}")
    with pytest.raises(UserError, match=r"roc.csv must not be damaged"):
        Roc().check(load_runs([path])[0])


def test_roc_figure_of_a_run_without_curves_is_refused(tmp_path: Path) -> None:
    (run,) = load_runs([make_run(tmp_path / "a", ended=False)])
    with pytest.raises(UserError, match=r"must hold roc.csv"):
        Roc().check(run)


def test_roc_figure_of_a_run_on_a_single_class_is_refused(tmp_path: Path) -> None:
    path = make_run(tmp_path / "a")
    (path / "roc.csv").write_text("class,false_positive_rate,true_positive_rate\n")
    with pytest.raises(UserError, match=r"roc.csv must hold curves; of a single class there are none"):
        Roc().check(load_runs([path])[0])
