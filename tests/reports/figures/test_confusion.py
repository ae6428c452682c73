from pathlib import Path

import numpy as np
import pytest

from fedsplit.errors import UserError
from fedsplit.reports.figures.confusion import Confusion, Matrix
from tests.reports.stored import load_runs, make_run


def matrix(path: Path) -> np.ndarray:
    return np.genfromtxt(path / "confusion.csv", delimiter=",", skip_header=1)[:, 1:]


def test_confusion_figure_sums_counts_over_seeds_and_shows_shares_of_the_true_class(tmp_path: Path) -> None:
    paths = [make_run(tmp_path / str(seed), seed=seed) for seed in range(3)]
    other = make_run(tmp_path / "other", "cse_fsl")
    first, found = Confusion().data(load_runs([*paths, other]))
    np.testing.assert_array_equal(first.counts, matrix(other))
    expected = sum(matrix(path) for path in paths)
    np.testing.assert_array_equal(found.counts, expected)
    assert (found.label, found.classes, found.seeds) == ("fsl_sage", ("a", "b", "c"), (0, 1, 2))
    np.testing.assert_allclose(found.shares, expected / expected.sum(1, keepdims=True))
    drawn = Confusion().draw([first, found])
    image = drawn.axes[1].images[0].get_array()
    np.testing.assert_allclose(np.asarray(image), 100 * np.array(found.shares))
    assert drawn.axes[1].get_title().split() == ["FSL-SAGE,", "3", "seeds"]


def test_confusion_figure_writes_percentages_in_the_cells_where_they_fit(tmp_path: Path) -> None:
    names = ("a", "b")
    (axes, _) = Confusion().draw([Matrix("x", names, ((1, 999), (0, 5)), (0,))]).axes
    assert {text.get_position(): text.get_text() for text in axes.texts} == {
        (0, 0): "<1",
        (1, 0): "100",
        (1, 1): "100",
    }
    many = Matrix("x", tuple(map(str, range(40))), tuple((1,) * 40 for _ in range(40)), (0,))
    (axes, _) = Confusion().draw([many]).axes
    assert not axes.texts


@pytest.mark.parametrize(
    "content", ["", "label,a,b\na,1,2\n", "label,a\na,x\n", "label,a\na,-1\n", "label,a\na,1,2\n"]
)
def test_confusion_figure_of_a_damaged_file_is_refused(tmp_path: Path, content: str) -> None:
    path = make_run(tmp_path / "a")
    (path / "confusion.csv").write_text(content)
    with pytest.raises(UserError, match=r"confusion.csv must not be damaged"):
        Confusion().check(load_runs([path])[0])


def test_confusion_figure_of_runs_without_a_matrix_or_with_other_classes_is_refused(tmp_path: Path) -> None:
    (run,) = load_runs([make_run(tmp_path / "a", ended=False)])
    with pytest.raises(UserError, match=r"must hold confusion.csv"):
        Confusion().check(run)
    one, other = make_run(tmp_path / "b"), make_run(tmp_path / "c", seed=1)
    (other / "confusion.csv").write_text("label,z\nz,1\n")
    with pytest.raises(UserError, match="must have the classes of"):
        Confusion().data(load_runs([one, other]))
