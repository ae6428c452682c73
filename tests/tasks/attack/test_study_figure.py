"""The figure of a study shows each attacker's PSNR by cut, defence and codec."""

import csv
from io import StringIO

import pytest

from fedsplit.errors import UserError
from fedsplit.tasks.attack.study_figure import Leak, leaks, study_figure

TABLE = """job,model.cut,seed,defence,attacker,adapted,cut,precision,codec,model,mode,psnr,test_accuracy
0,1,0,none,mean,,conv1,fp32,none,trained,train,11.0,0.5
0,1,0,none,linear,True,conv1,fp32,none,trained,train,20.0,0.5
0,1,0,none,labels,True,conv1,fp32,none,trained,train,,0.5
1,1,1,none,linear,True,conv1,fp32,none,trained,train,24.0,0.7
2,1,0,gaussian,linear,True,conv1,fp32,none,trained,train,14.0,0.3
3,1,0,none,linear,True,conv1,fp32,int8_channel,trained,train,21.0,0.6
3,1,0,none,linear,False,conv1,fp32,int8_channel,trained,train,19.0,0.6
4,2,0,none,linear,True,pool1,fp32,none,trained,train,16.0,0.4
"""


def rows(table: str = TABLE) -> list[dict[str, str]]:
    return list(csv.DictReader(StringIO(table)))


def test_leaks_are_means_over_seeds_defence_by_defence_and_codec_by_codec() -> None:
    assert leaks(rows()) == [
        Leak("conv1", "no defence, exact", "mean", 11.0, 0.5),
        Leak("conv1", "no defence, exact", "linear", 22.0, 0.6),
        Leak("pool1", "no defence, exact", "linear", 16.0, 0.4),
        Leak("conv1", "no defence, int8 channel", "linear", 21.0, 0.6),
        Leak("conv1", "no defence, int8 channel", "linear, not adapted", 19.0, 0.6),
        Leak("conv1", "gaussian, exact", "linear", 14.0, 0.3),
    ]


def test_leaks_of_jobs_that_differ_in_another_key_are_told_apart_by_it() -> None:
    both = [{"optimizer.lr": rate, **row, "job": rate} for rate in ("0.1", "0.2") for row in rows()[1:2]]
    assert [leak.way for leak in leaks(both)] == ["no defence, exact, lr 0.1", "no defence, exact, lr 0.2"]


def test_study_figure_has_a_panel_for_each_cut_and_a_line_for_each_way() -> None:
    figure = study_figure(rows())
    left, right = figure.axes
    assert [axes.get_title() for axes in (left, right)] == ["cut after conv1", "cut after pool1"]
    ways = [text.get_text().replace("\N{NO-BREAK SPACE}", " ") for text in left.get_yticklabels()]
    assert ways == ["no defence, exact", "no defence, int8 channel", "gaussian, exact"]
    points = {
        (float(x), ways[int(y)])
        for line in left.get_lines()
        if line.get_linestyle() == "None"
        for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)
    }
    assert points == {
        (22.0, "no defence, exact"),
        (21.0, "no defence, int8 channel"),
        (19.0, "no defence, int8 channel"),
        (14.0, "gaussian, exact"),
    }
    upright = [line.get_xdata()[0] for line in left.get_lines() if line.get_linestyle() == "--"]
    assert upright == [11.0]
    assert [text.get_text() for text in left.texts] == ["60.0", "60.0", "30.0"]
    low, high = left.get_xlim()
    assert low < 11.0
    assert right.get_xlim() == (low, high)
    assert high > 22.0
    (legend,) = figure.legends
    assert [" ".join(text.get_text().split()) for text in legend.get_texts()] == [
        "linear",
        "linear, not adapted",
        "mean image",
    ]


@pytest.mark.parametrize(("before", "after"), [("24.0", "much"), ("test_accuracy", "accuracy"), ("0.7", "")])
def test_damaged_rows_are_told_in_one_line(before: str, after: str) -> None:
    with pytest.raises(UserError, match=r"^hydra\.sweep\.dir=attack\.csv: is damaged"):
        study_figure(rows(TABLE.replace(before, after)))


def test_study_without_reconstructions_or_with_too_many_attackers_is_refused() -> None:
    with pytest.raises(UserError, match=r"^task\.attackers=: must be 1 to 8 with reconstructions"):
        study_figure(rows()[:1])
    many = [{**rows()[1], "attacker": f"mine{i}"} for i in range(9)]
    with pytest.raises(UserError, match=r"^task\.attackers=mine0, .*, mine8: must be 1 to 8"):
        study_figure(many)
