from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from fedsplit.errors import UserError
from fedsplit.reports.figures.scatter import Scatter, Spot
from fedsplit.reports.figures.style import FILLS, algorithm_looks
from tests.reports.stored import dirichlet, load_runs, make_run, table


def test_scatter_point_is_the_last_csv_row_over_seeds_and_grows_with_alpha(tmp_path: Path) -> None:
    settings: dict[Any, dict[str, Any]] = {"iid": {}}
    for alpha in (0.1, 1.0):
        settings[alpha] = {"distribution": dirichlet(alpha), "choices": {"distribution": "dirichlet"}}
    paths = {
        (name, x, seed): make_run(tmp_path / f"{name}{x}{seed}", name, seed=seed, **own)
        for name in ("fed_avg", "cse_fsl")
        for x, own in settings.items()
        for seed in (0, 1)
    }
    figure = Scatter()
    spots = figure.data(load_runs(list(paths.values())))
    assert {(spot.hue, spot.size) for spot in spots} == {(name, x) for name, x, _ in paths}
    for spot in spots:
        rows = [table(paths[spot.hue, spot.size, seed]) for seed in (0, 1)]
        last = [each["test_accuracy"][-1] for each in rows]
        assert spot.x == pytest.approx(np.mean([each["load"][-1] for each in rows]) / 1e6, rel=1e-12)
        assert (spot.mean, spot.low, spot.high) == (pytest.approx(np.mean(last)), min(last), max(last))
        assert spot.setting == ""
    drawn = figure.draw(spots)
    (axes,) = drawn.axes
    (sizes,) = [axes.get_legend()]
    assert sizes is not None
    assert [text.get_text() for text in sizes.get_texts()] == [
        "\N{GREEK SMALL LETTER ALPHA} = 0.1",
        "\N{GREEK SMALL LETTER ALPHA} = 1",
        "iid",
    ]
    drawn_sizes = {
        (round(float(line.get_xdata()[0]), 9), round(float(line.get_ydata()[0]), 9)): line.get_markersize()
        for line in axes.get_lines()
        if len(line.get_xdata()) == 1
    }
    by_alpha = {
        x: {drawn_sizes[round(s.x, 9), round(s.mean, 9)] for s in spots if s.size == x} for x in settings
    }
    assert all(len(each) == 1 for each in by_alpha.values())
    assert max(by_alpha[0.1]) < max(by_alpha[1.0]) < max(by_alpha["iid"])


def test_scatter_settings_have_a_filling_of_their_own_up_to_six() -> None:
    spots = [
        Spot(hue, f"q={i}", 0.1, 1.0 + i, 0.5, 0.5, 0.5, (0,))
        for i in range(7)
        for hue in ("fed_avg", "cse_fsl")
    ]
    (axes,) = Scatter().draw(spots[:12]).axes
    points = [line for line in axes.get_lines() if len(line.get_xdata()) == 1]
    assert {line.get_fillstyle() for line in points} == set(FILLS)
    with pytest.raises(UserError, match=r"^settings=q=0; .*: must be at most 6"):
        Scatter().draw(spots)
    with pytest.raises(UserError, match=r"^sizes=0, .*: must be at most 6"):
        Scatter().draw([Spot("fed_avg", "", i, 1.0, 0.5, 0.5, 0.5, (0,)) for i in range(7)])


def test_scatter_against_a_column_has_its_last_value_and_intervals(tmp_path: Path) -> None:
    paths = [make_run(tmp_path / str(seed), seed=seed) for seed in range(3)]
    (spot,) = Scatter(x="gradient_error", spread="interval").data(load_runs(paths))
    rows = [table(path) for path in paths]
    last = np.array([each["test_accuracy"][-1] for each in rows])
    half = stats.t.ppf(0.975, 2) * last.std(ddof=1) / np.sqrt(3)
    assert spot.x == pytest.approx(np.mean([each["gradient_error"][-1] for each in rows]), rel=1e-12)
    assert (spot.low, spot.high) == pytest.approx((last.mean() - half, last.mean() + half), rel=1e-9)
    with pytest.raises(UserError, match=r"^run=.*: has no memory in metrics.csv, but round, test_accuracy"):
        Scatter(x="memory").check(load_runs(paths)[0])


@pytest.mark.parametrize("log", [(), ("x",)])
def test_points_at_one_place_stand_apart_only_where_their_bars_meet(log: Any) -> None:
    def drawn(*ranges: tuple[float, float]) -> list[float]:
        names = ("fed_avg", "cse_fsl", "fsl_sage")
        spots = [
            Spot(name, "", "iid", 2.0, (low + high) / 2, low, high, (0, 1))
            for name, (low, high) in zip(names, ranges, strict=True)
        ]
        far = Spot("ampere", "", "iid", 8.0, 0.5, 0.4, 0.6, (0, 1))
        (axes,) = Scatter(log=log).draw([*spots, far]).axes
        points = [line for line in axes.get_lines() if len(line.get_xdata()) == 1]
        places = [float(line.get_xdata()[0]) for line in points]
        assert places[-1] == pytest.approx(8.0)
        return places[:-1]

    assert drawn((0.1, 0.2), (0.3, 0.4), (0.5, 0.6)) == pytest.approx([2.0] * 3)
    left, middle, right = drawn((0.1, 0.2), (0.15, 0.4), (0.5, 0.6))
    assert middle == pytest.approx(2.0)
    assert 1.7 < left < 1.96
    assert 2.04 < right < 2.3


def test_scatter_holds_every_algorithm_with_a_look() -> None:
    spots = [Spot(name, "", 0.1, 1.0, 0.5, 0.5, 0.5, (0,)) for name in list(algorithm_looks())[:18]]
    assert Scatter().within_limits(spots) == (spots, [])


def test_points_of_one_series_at_one_place_stay_together() -> None:
    spots = [
        Spot(name, "", alpha, 2.0, 0.5, 0.4, 0.6, (0, 1))
        for name in ("fed_avg", "cse_fsl")
        for alpha in (0.1, 1.0)
    ]
    far = Spot("ampere", "", 0.1, 8.0, 0.5, 0.4, 0.6, (0, 1))
    (axes,) = Scatter().draw([*spots, far]).axes
    points = [line for line in axes.get_lines() if len(line.get_xdata()) == 1]
    places: dict[str, set[float]] = {}
    for line in points:
        places.setdefault(line.get_marker(), set()).add(round(float(line.get_xdata()[0]), 9))
    one, other, alone = places.values()
    assert len(one) == len(other) == len(alone) == 1
    assert one != other
