from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex

from fedsplit.errors import UserError
from fedsplit.recording.ledger import DIRECTIONS, KINDS
from fedsplit.reports.figures.bars import Bar, Bars
from tests.reports.stored import load_runs, make_run, table


@pytest.mark.parametrize("of", ["bytes", "seconds"])
def test_bars_have_parts_that_are_sums_of_columns_over_seeds(tmp_path: Path, of: str) -> None:
    paths = {
        (name, seed): make_run(tmp_path / f"{name}{seed}", name, seed=seed)
        for name in ("fsl_sage", "fed_avg")
        for seed in (0, 1)
    }
    figure = Bars(of=of)  # type: ignore[arg-type]
    bars = figure.data(load_runs(list(paths.values())))
    assert [bar.label for bar in bars] == ["fed_avg", "fsl_sage"]
    for bar in bars:
        rows = [table(paths[bar.label, seed]) for seed in (0, 1)]
        columns = {name for name in rows[0] if name.startswith(f"{of}.")}
        assert {name for name, _ in bar.parts} == columns
        for name, value in bar.parts:
            total = np.mean([each[name].sum() for each in rows]) / (1e6 if of == "bytes" else 1)
            assert value == pytest.approx(total, rel=1e-12)
        if of == "bytes":  # all that was sent is in the bar
            load = np.mean([each["load"][-1] for each in rows]) / 1e6
            assert sum(value for _, value in bar.parts) == pytest.approx(load, rel=1e-12)
    (axes,) = figure.draw(bars).axes
    widths = sorted(patch.get_width() for patch in axes.patches)
    np.testing.assert_allclose(widths, sorted(value for bar in bars for _, value in bar.parts))
    assert [label.get_text() for label in axes.get_yticklabels()] == ["FedAvg", "FSL-SAGE"]
    for i, bar in enumerate(bars):  # stacked without gap or overlap
        own = sorted(
            (p for p in axes.patches if round(p.get_y() + p.get_height() / 2) == i), key=lambda p: p.get_x()
        )
        edges = np.cumsum([0.0, *(p.get_width() for p in own)])
        np.testing.assert_allclose([p.get_x() for p in own], edges[:-1], atol=1e-9)
        assert edges[-1] == pytest.approx(sum(value for _, value in bar.parts))


def test_bars_of_up_and_down_of_a_kind_share_a_colour_and_only_down_is_hatched(tmp_path: Path) -> None:
    (bar,) = Bars().data(load_runs([make_run(tmp_path / "a")]))
    names = [name for name, _ in bar.parts]
    assert names.index("bytes.down.client_weights") == names.index("bytes.up.client_weights") + 1
    (axes,) = Bars().draw([bar]).axes
    looks = {
        name: (to_hex(p.get_facecolor()), p.get_hatch()) for name, p in zip(names, axes.patches, strict=True)
    }
    up, down = looks["bytes.up.client_weights"], looks["bytes.down.client_weights"]
    assert up[0] == down[0]
    assert all(bool(hatch) == name.startswith("bytes.down") for name, (_, hatch) in looks.items())
    assert len({colour for colour, _ in looks.values()}) == 4
    labels = [text.get_text() for text in axes.get_figure().legends[0].get_texts()]  # type: ignore[union-attr]
    assert [label.replace("\N{NO-BREAK SPACE}", " ") for label in labels] == [
        *("smashed data", "client weights", "auxiliary weights", "labels", "up", "down"),
    ]


def test_bar_part_too_thin_to_see_is_in_the_data_but_not_in_the_legend() -> None:
    parts = (("bytes.up.smashed", 1000.0), ("bytes.up.labels", 1.0), ("bytes.down.full_weights", 500.0))
    (axes,) = (drawn := Bars().draw([Bar("fed_avg", parts, (0,))])).axes
    assert sorted(patch.get_width() for patch in axes.patches) == [1.0, 500.0, 1000.0]
    labels = [text.get_text() for text in drawn.legends[0].get_texts()]
    assert [label.replace("\N{NO-BREAK SPACE}", " ") for label in labels] == [
        "smashed data",
        "full weights",
        "up",
        "down",
    ]


def test_every_kind_of_message_has_a_colour_of_its_own_whichever_others_are_there() -> None:
    parts = [(f"bytes.{direction}.{kind}", 5.0) for kind in KINDS for direction in DIRECTIONS]
    (axes,) = Bars().draw([Bar("fed_avg", parts, (0,))]).axes
    colours = {
        name.rpartition(".")[2]: patch.get_facecolor()
        for (name, _), patch in zip(parts, axes.patches, strict=True)
    }
    assert len(set(colours.values())) == len(KINDS)
    (alone,) = Bars().draw([Bar("fed_avg", [("bytes.up.scalars", 5.0)], (0,))]).axes
    assert alone.patches[0].get_facecolor() == colours["scalars"]


def test_bars_of_a_run_without_rounds_are_refused(tmp_path: Path) -> None:
    (run,) = load_runs([make_run(tmp_path / "a", ran=0)])
    with pytest.raises(UserError, match="must hold at least one round"):
        Bars().check(run)
