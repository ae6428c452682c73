import csv
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics

from fedsplit.recording.classification import ConfusionMatrix, RocCurve, RocCurves, log_odds

NAMES = ("cat", "dog", "eel", "fox")


def _drawn(samples: int = 200, classes: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits that know something of the labels."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, classes, samples)
    logits = draw.normal(size=(samples, classes)) + 1.5 * np.eye(classes)[labels]
    return logits, labels


def _probabilities(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits.astype(np.float64))
    return powers / powers.sum(1, keepdims=True)


def _probability_of_right_order(scores: np.ndarray, positive: np.ndarray) -> float:
    """The area under a ROC curve: that of a positive and a negative sample, a tie counted half."""
    differences = scores[positive][:, None] - scores[~positive][None]
    return float(((differences > 0) + 0.5 * (differences == 0)).mean())


def _rows(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_confusion_matrix_counts_each_sample_at_its_true_and_predicted_class(tmp_path: Path) -> None:
    logits, labels = _drawn()
    labels[labels == 2] = 1  # no eel is there
    matrix = ConfusionMatrix.of(logits, labels, NAMES)
    expected = np.zeros((4, 4), dtype=int)
    for row, label in zip(logits, labels, strict=True):
        expected[label, max(range(4), key=lambda c, row=row: row[c])] += 1
    assert (matrix.counts == expected).all()
    assert matrix.counts.sum() == len(labels)
    matrix.write(tmp_path / "confusion.csv")
    header, *rows = _rows(tmp_path / "confusion.csv")
    assert header == ["label", *NAMES]
    assert [row[0] for row in rows] == list(NAMES)
    assert [[int(cell) for cell in row[1:]] for row in rows] == expected.tolist()


def test_class_accuracy_is_that_of_its_samples_and_their_mean_is_that_of_all() -> None:
    logits, labels = _drawn()
    labels[labels == 2] = 1
    found = ConfusionMatrix.of(logits, labels, NAMES).class_accuracy
    correct = logits.argmax(1) == labels
    assert found == {name: correct[labels == c].mean() for c, name in enumerate(NAMES) if name != "eel"}
    weights = [(labels == NAMES.index(name)).sum() for name in found]
    assert np.average(list(found.values()), weights=weights) == pytest.approx(correct.mean())


def test_roc_areas_are_the_probabilities_that_a_pair_is_in_the_right_order() -> None:
    logits, labels = _drawn()
    curves, p = RocCurves.of(logits, labels, NAMES), _probabilities(logits)
    expected = {name: _probability_of_right_order(p[:, c], labels == c) for c, name in enumerate(NAMES)}
    assert curves.areas == pytest.approx(expected, abs=1e-12)
    assert {curve.name: curve.area for curve in curves.classes} == curves.areas
    every = labels[:, None] == np.arange(4)
    assert curves.micro.area == pytest.approx(
        _probability_of_right_order(p.ravel(), every.ravel()), abs=1e-12
    )
    assert curves.macro == pytest.approx(
        sklearn.metrics.roc_auc_score(labels, _probabilities(logits), multi_class="ovr", average="macro"),
        abs=1e-12,
    )


def test_roc_curve_passes_through_the_rates_of_every_threshold() -> None:
    logits, labels = _drawn(60)
    scores, positive = logits[:, 0].round(1), labels == 0  # some are tied
    curve = RocCurve.of("cat", scores, positive)
    thresholds = [np.inf, *sorted(set(scores.tolist()), reverse=True)]
    full = [((scores[~positive] >= t).mean(), (scores[positive] >= t).mean()) for t in thresholds]
    points = list(zip(curve.false_positive_rate.tolist(), curve.true_positive_rate.tolist(), strict=True))
    assert len(points) < len(full)
    for before, here, after in zip(points, points[1:], points[2:], strict=False):
        assert len({before[0], here[0], after[0]}) > 1, "three on a vertical line"
        assert len({before[1], here[1], after[1]}) > 1, "three on a horizontal line"
    assert points[0] == (0, 0)
    assert points[-1] == (1, 1)
    for x, y in full:
        on_a_segment = any(
            x0 <= x <= x1 and y0 <= y <= y1 and abs((x1 - x0) * (y - y0) - (y1 - y0) * (x - x0)) < 1e-12
            for (x0, y0), (x1, y1) in pairwise(points)
        )
        assert on_a_segment, (x, y)


def test_log_odds_rank_where_probabilities_round_to_one() -> None:
    logits = np.array([[30, 0, 0], [31, 0, 0], [200, 0, 0], [-5, 3, 3]], dtype=np.float32)
    found = log_odds(logits)
    assert (np.diff(found[:3, 0]) > 0).all()
    assert (_probabilities(logits).astype(np.float32)[:3, 0] == 1).all()
    p = _probabilities(np.array([[0.3, -2.0, 1.1], [4.0, 4.0, -1.0]]))
    expected = np.log(p / (1 - p))
    assert log_odds(np.array([[0.3, -2.0, 1.1], [4.0, 4.0, -1.0]])) == pytest.approx(expected, rel=1e-12)


def test_roc_curves_leave_out_a_class_that_no_sample_or_every_sample_has() -> None:
    logits, labels = _drawn()
    labels[labels == 2] = 1
    curves = RocCurves.of(logits, labels, NAMES)
    assert list(curves.areas) == ["cat", "dog", "fox"]
    alone = RocCurves.of(logits, np.ones_like(labels), NAMES)
    assert (alone.areas, alone.macro, alone.classes) == ({}, None, ())


def test_roc_file_holds_a_row_for_each_point_of_each_class(tmp_path: Path) -> None:
    logits, labels = _drawn()
    curves = RocCurves.of(logits, labels, NAMES)
    curves.write(tmp_path / "roc.csv")
    header, *rows = _rows(tmp_path / "roc.csv")
    assert header == ["class", "false_positive_rate", "true_positive_rate"]
    for curve in curves.classes:
        points = [(float(x), float(y)) for name, x, y in rows if name == curve.name]
        assert points == list(zip(curve.false_positive_rate, curve.true_positive_rate, strict=True))
    assert len(rows) == sum(len(curve.false_positive_rate) for curve in curves.classes)


def test_roc_of_more_than_a_hundred_classes_has_one_curve_of_all_and_every_area(tmp_path: Path) -> None:
    logits, labels = _drawn(500, 101)
    names = tuple(map(str, range(101)))
    curves = RocCurves.of(logits, labels, names)
    assert curves.classes == ()
    assert len(curves.areas) == len(set(labels.tolist()))
    curves.write(tmp_path / "roc.csv")
    _, *rows = _rows(tmp_path / "roc.csv")
    assert {row[0] for row in rows} == {"micro"}
    assert len(rows) == len(curves.micro.false_positive_rate)
