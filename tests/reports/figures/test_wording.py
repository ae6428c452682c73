import pytest

from fedsplit.reports.figures.figure_type import SeriesLimits, keep_first
from fedsplit.reports.figures.style import looks, wrap_label
from fedsplit.reports.figures.wording import in_words, legend_texts, pieces


@pytest.mark.parametrize(
    ("piece", "words"),
    [
        ("fsl_sage", "FSL-SAGE"),
        ("my_own", "my own"),
        ("lr=0.01", "learning rate 0.01"),
        ("client_optimizer.lr=0.01", "client optimizer lr 0.01"),
        ("qat=true", "QAT"),
        ("qat=false", "no qat"),
        ("client.stateless=true", "client stateless"),
        ("cohort_size=null", "no cohort size"),
        ("quant=int8", "int8 messages"),
        ("run=saves/fsl_sage/digits_cnn/20261129-1", "from 20261129-1"),
        ("model._target_=my_package.MyNet", "MyNet"),
        ("smashed.bits=2", "smashed bits 2"),
        ("local_epochs=1", "1 local epoch"),
        ("local_epochs=10", "10 local epochs"),
        ("align_interval=1", "aligned every round"),
    ],
)
def test_pieces_of_labels_are_told_in_words(piece: str, words: str) -> None:
    assert in_words(piece) == words


@pytest.mark.parametrize(
    ("labels", "texts"),
    [
        (["fsl_sage, engine=sequential, qat=false, run=null"], ["FSL-SAGE"]),
        (["a, qat=false", "a, engine=sequential, qat=true"], ["a", "a, QAT"]),
        (["a, engine=sequential", "a, engine=vectorized"], ["a, sequential engine", "a, vectorized engine"]),
        (["a, x=null", "a, x=false"], ["a, x=null", "a, x=false"]),
        (["a, _target_=my.Net", "a, _target_=your.Net"], ["a, _target_=my.Net", "a, _target_=your.Net"]),
        (["a, stages=[1, 2]", "a, stages=[1, 3]"], ["a, stages [1, 2]", "a, stages [1, 3]"]),
    ],
)
def test_legend_holds_no_more_than_tells_its_labels_apart(labels: list[str], texts: list[str]) -> None:
    assert legend_texts(labels) == texts


def test_pieces_of_a_label_are_not_parted_within_lists() -> None:
    assert pieces("a, stages=[1, 2], b=3") == ["a", "stages=[1, 2]", "b=3"]
    assert pieces("") == []


def test_words_longer_than_a_line_of_a_label_are_broken() -> None:
    label = "FSL-SAGE, from a_run_whose_directory_has_a_name_of_more_than_forty-four_letters, 3 seeds"
    lines = wrap_label(label, 30).splitlines()
    assert max(map(len, lines)) <= 30
    assert "".join(lines).replace("\N{NO-BREAK SPACE}", "") == label.replace(" ", "")


def test_series_kept_are_those_that_differ_least_within_all_limits() -> None:
    series = [(hue, setting) for hue in ("fed_avg", "cse_fsl") for setting in ("a=1, b=2", "b=null", "c=3")]
    assert keep_first(series, SeriesLimits(series=3, settings=6)) == {
        ("fed_avg", "b=null"),
        ("cse_fsl", "b=null"),
        ("fed_avg", "c=3"),
    }
    assert keep_first(series, SeriesLimits(series=9, settings=2)) == {
        each for each in series if each[1] != "a=1, b=2"
    }
    assert keep_first(series, SeriesLimits(series=6, settings=3)) == set(series)


def test_series_kept_have_a_colour_each() -> None:
    own = [(f"mine{i}", "") for i in range(9)]
    limits = SeriesLimits(series=10, settings=6)
    assert keep_first(own, limits) == set(own[:8])
    assert keep_first([("fed_avg", ""), *own], limits) == {("fed_avg", ""), *own}


@pytest.mark.parametrize("hues", [["fed_avg"], ["fed_avg", "fsl_sage"]])
def test_series_that_a_figure_holds_all_look_different_also_without_colour(hues: list[str]) -> None:
    most = 10 if len(hues) == 1 else 5
    series = [(hue, f"lr={i}") for hue in hues for i in range(most)]
    found = looks(series, str)
    assert len({(look.marker, look.dash, look.fill) for look in found.values()}) == len(series)
    if len(hues) == 1:
        assert len({look.colour for look in found.values()}) == 8
    else:
        assert len({(look.colour, look.marker) for look in found.values()}) == 2
