from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedsplit.recording.class_counts import CLASS_COUNTS, ClassCounts
from fedsplit.reports.figures.classes import Classes, Division
from fedsplit.reports.runs import Run

ROWS = ((0, 0, 5), (0, 2, 20), (1, 1, 10))


def _run(path: Path, rows: tuple[tuple[int, int, int], ...], seed: int = 0, **distribution: Any) -> Run:
    path.mkdir(parents=True)
    ClassCounts(np.array(rows)).write(path / CLASS_COUNTS)
    chosen = {"_target_": "fedsplit.data.distributions.dirichlet.Dirichlet", "attempts": 9, **distribution}
    config = {
        "seed": seed,
        "algorithm": {"_target_": "fedsplit.algorithms.fed_avg.FedAvg"},
        "dataset": {"_target_": "fedsplit.data.sources.digits.Digits"},
        "distribution": chosen,
        "choices": {"algorithm": "fed_avg", "dataset": "digits", "distribution": "noniid_dirichlet"},
    }
    return Run(path, config, "fed_avg", {"round": (0,), "load": (1,)})


def _division(label: str, rows: Any, names: tuple[str, ...] = ()) -> Division:
    counts = ClassCounts(np.array(rows), names)
    return Division(label, counts, counts.clients)


def test_classes_figure_draws_the_same_division_once_and_names_what_made_it(tmp_path: Path) -> None:
    runs = [
        _run(tmp_path / "a", ROWS, alpha=0.3),
        _run(tmp_path / "b", ROWS, alpha=0.3),
        _run(tmp_path / "c", ROWS[:2], seed=4, alpha=0.1),
    ]
    first, second = Classes().data(runs)
    assert (first.label, first.counts, first.clients) == (
        *("digits, dirichlet, alpha=0.3, seed=0", ClassCounts(np.array(ROWS))),
        2,
    )
    assert (second.label, second.counts) == (
        "digits, dirichlet, alpha=0.1, seed=4",
        ClassCounts(np.array(ROWS[:2])),
    )


def test_classes_figure_has_bubbles_at_client_and_class_with_an_area_of_the_samples() -> None:
    (axes,) = Classes().draw([_division("mine", ROWS, ("ant", "bee", "cat"))]).axes
    (bubbles,) = axes.collections
    assert bubbles.get_offsets().tolist() == [[0, 0], [0, 2], [1, 1]]
    sizes = bubbles.get_sizes()
    np.testing.assert_allclose(sizes / sizes[0], [1, 4, 2])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["ant", "bee", "cat"]
    assert "20 samples" in axes.get_xlabel()
    assert axes.get_title() == "mine"


@pytest.mark.parametrize(("clients", "classes"), [(2, 3), (10, 10), (100, 10), (200, 100), (3, 100)])
def test_classes_figure_has_no_bubble_that_covers_another(clients: int, classes: int) -> None:
    rows = tuple((client, label, 7) for client in range(clients) for label in range(classes))
    image = Classes().draw([_division("even", rows)])
    image.draw_without_rendering()
    (axes,) = image.axes
    width = np.sqrt(axes.collections[0].get_sizes().max()) * image.dpi / 72  # of a bubble, in pixels
    places = axes.transData.transform([(0, 0), (1, 1)])
    assert width <= 1.01 * np.abs(places[1] - places[0]).min()


def test_classes_figure_has_a_panel_for_every_division() -> None:
    image = Classes().draw([_division(f"{i}", ROWS) for i in range(3)])
    assert [axes.get_title() for axes in image.axes] == ["0", "1", "2"]
    alone = Classes().draw([_division("0", ROWS)])
    assert image.get_figheight() == pytest.approx(3 * alone.get_figheight())


def test_classes_figure_of_many_clients_draws_a_sample_and_says_so(tmp_path: Path) -> None:
    rows = tuple((client, client % 3, 1 + client) for client in range(1000))
    (division,) = Classes().data([_run(tmp_path / "a", rows)])
    (axes,) = Classes().draw([division]).axes
    places = axes.collections[0].get_offsets().tolist()  # type: ignore[attr-defined]
    assert places == [[place, 5 * place % 3] for place in range(200)]
    assert axes.get_xlabel() == "Client (200 of 1,000, evenly spaced; largest area: 996 samples)"


def test_classes_figure_leaves_out_what_is_beyond_eight_divisions() -> None:
    drawn, left_out = Classes().within_limits([_division(str(i), ROWS) for i in range(9)])
    assert [each.label for each in drawn] == [str(i) for i in range(8)]
    assert left_out == ["8"]


def test_long_title_stays_within_the_classes_figure() -> None:
    title = "digits, quantity_skew, exponent=1, min_samples=2, seed=0"
    drawn = Classes().draw([_division(title, ROWS)])
    drawn.draw_without_rendering()
    extent = drawn.axes[0].title.get_window_extent()
    assert 0 <= extent.x0 < extent.x1 <= drawn.bbox.width
