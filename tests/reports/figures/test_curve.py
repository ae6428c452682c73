import struct
from collections import Counter
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from scipy import stats

from fedsplit.errors import UserError
from fedsplit.recording.config_file import FORMAT
from fedsplit.reports.figures.curve import Curve
from fedsplit.reports.figures.lines import Line
from fedsplit.reports.figures.style import DASHES, PALE, algorithm_looks, free_looks
from fedsplit.reports.figures.wording import legend_texts
from fedsplit.reports.runs import Run, without_repeats
from tests.reports.stored import dirichlet, load_runs, make_run, table


def axes_of(figure: Figure) -> Any:
    """The axes, without the targets' lines."""
    (axes,) = figure.axes
    return axes


def labels(*paths: Path) -> list[str]:
    return [run.label for run in load_runs(paths)]


def test_stored_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    (run,) = load_runs([make_run(tmp_path / "a", evaluated=2, ran=5)])
    expected = table(run.path)
    assert run.seed == 0
    assert run.columns["round"] == (0, 1, 2, 3, 4)
    for name, column in expected.items():
        np.testing.assert_array_equal(np.array(run.columns[name], dtype=float), column)
    assert run.values("test_accuracy") == {t: expected["test_accuracy"][t] for t in (1, 3)}


@pytest.mark.parametrize("x", ["round", "load", "simulated_seconds", "seconds"])
@pytest.mark.parametrize(
    "y", ["test_accuracy", "test_loss", "train_loss", "local_accuracy.worst", "gradient_error"]
)
def test_curve_drawn_is_that_of_metrics_csv(tmp_path: Path, x: Any, y: str) -> None:
    run = make_run(tmp_path / "a", ran=7, evaluated=3)
    figure = Curve(x=x, y=y)
    drawn = axes_of(figure.draw(figure.data(load_runs([run]))))
    (line,) = drawn.get_lines()
    rows = table(run)
    rows["seconds"] = np.cumsum(sum(rows[name] for name in rows if name.startswith("seconds.")))
    there = ~np.isnan(rows[y])
    assert there.sum() == (7 if y in ("train_loss", "gradient_error") else 2)
    np.testing.assert_allclose(
        np.asarray(line.get_xdata()), rows[x][there] / (1e6 if x == "load" else 1), rtol=1e-12
    )
    np.testing.assert_array_equal(line.get_ydata(), rows[y][there])
    labels = {"round": "Round", "load": "Communication load (MB)", "seconds": "Time (s)"}
    assert drawn.get_xlabel() == labels.get(x, "Simulated time (s)")
    assert drawn.get_ylabel()[:5].lower() == {"local": "local", "gradi": "relat", "train": "train"}.get(
        y[:5], "test "
    )
    assert not drawn.collections  # no band of a single seed


def test_curve_of_accuracy_or_loss_is_that_of_the_test_images(tmp_path: Path) -> None:
    runs = load_runs([make_run(tmp_path / "a")])
    assert Curve(y="accuracy").data(runs) == Curve(y="test_accuracy").data(runs)
    assert Curve(y="loss").data(runs) == Curve(y="test_loss").data(runs)
    assert (Curve(y="accuracy").name, Curve(y="train_loss", x="round").name) == (
        "accuracy-load",
        "train_loss-round",
    )


def test_curve_of_a_column_that_a_run_does_not_have_is_refused(tmp_path: Path) -> None:
    (run,) = load_runs([make_run(tmp_path / "a")])
    with pytest.raises(UserError, match=r"^run=.*: has no acuracy in metrics.csv, but round, test_accuracy"):
        Curve(y="acuracy").check(run)


def test_curve_targets_stand_where_the_mean_first_reaches_them(tmp_path: Path) -> None:
    paths = [
        make_run(tmp_path / f"{name}{seed}", name, seed=seed, ran=9)
        for name in list(algorithm_looks())[:5]
        for seed in (0, 1)
    ]
    figure = Curve(x="load", y="test_accuracy", targets=(0.6, 2.0))
    lines = figure.data(load_runs(paths))
    for line in lines:
        both = [table(path) for path in paths if path.name[:-1] == line.hue]
        accuracy = np.mean([rows["test_accuracy"] for rows in both], axis=0)
        load = np.mean([rows["load"] for rows in both], axis=0) / 1e6
        first = np.flatnonzero(accuracy >= 0.6)[0]
        assert line.first_x == (pytest.approx(load[first], rel=1e-12), None)
    drawn = axes_of(figure.draw(lines))
    upright = {tuple(each.get_xdata()) for each in drawn.get_lines() if len(set(each.get_xdata())) == 1}
    assert upright == {(line.first_x[0],) * 2 for line in lines}
    assert sorted(float(text.get_text()) for text in drawn.texts) == sorted(
        round(line.first_x[0], 2) for line in lines
    )
    boxes = [text.get_window_extent() for text in drawn.texts]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[i + 1 :])


def test_curve_of_a_loss_reaches_a_target_from_above() -> None:
    assert Curve(y="test_loss")._first_x((1.0, 2.0, 3.0), (0.9, 0.5, 0.4), 0.5) == 2.0


def test_curves_by_another_key_have_its_colours_and_dashes_for_the_rest(tmp_path: Path) -> None:
    paths = []
    for name in ("fed_avg", "fsl_sage"):
        for quant in ("none", "int8"):
            settings: dict[str, Any] = {"quant.bits": quant, "choices": {"quant": quant}}
            paths.append(make_run(tmp_path / f"{name}{quant}", name, **settings))
    lines = Curve(by="quant").data(load_runs(paths))
    assert [(line.hue, line.setting) for line in lines] == [
        ("quant=int8", "fed_avg"),
        ("quant=int8", "fsl_sage"),
        ("quant=none", "fed_avg"),
        ("quant=none", "fsl_sage"),
    ]
    drawn = axes_of(Curve(by="quant").draw(lines)).get_lines()
    colours = [line.get_color() for line in drawn]
    assert colours[0] == colours[1] != colours[2] == colours[3]
    assert drawn[0].get_linestyle() == drawn[2].get_linestyle() != drawn[1].get_linestyle()


def test_curve_of_a_large_load_is_in_gigabytes(tmp_path: Path) -> None:
    line = Line(
        "fed_avg", "fed_avg", "", (0,), (10_000.0, 30_000.0), (0.1, 0.2), (0.1, 0.2), (0.1, 0.2), (20_000.0,)
    )
    drawn = axes_of(Curve(targets=(0.15,)).draw([line]))
    assert drawn.get_xlabel() == "Communication load (GB)"
    assert [label.get_text() for label in drawn.get_xticklabels()][1] in {"5", "6", "10"}
    assert [text.get_text() for text in drawn.texts] == ["20.0"]


@pytest.mark.parametrize("x", ["round", "load"])
def test_curve_has_mean_and_range_over_seeds_at_common_rounds(tmp_path: Path, x: Any) -> None:
    lengths = [6, 4, 5]  # one was stopped early
    runs = [make_run(tmp_path / str(seed), seed=seed, ran=n) for seed, n in enumerate(lengths)]
    (curve,) = Curve(x=x).data(load_runs(runs))
    stacked = np.stack([table(run)["test_accuracy"][:4] for run in runs])
    at = np.stack([table(run)[x][:4] for run in runs]).mean(0) / (1e6 if x == "load" else 1)
    assert curve.seeds == (0, 1, 2)
    np.testing.assert_allclose(curve.x, at, rtol=1e-12)
    np.testing.assert_allclose(curve.mean, stacked.mean(0), rtol=1e-12)
    np.testing.assert_array_equal(curve.low, stacked.min(0))
    np.testing.assert_array_equal(curve.high, stacked.max(0))
    axes = axes_of(Curve(x=x).draw([curve]))
    corners = axes.collections[0].get_paths()[0].vertices
    for side in (stacked.min(0), stacked.max(0)):
        for point in zip(at, side, strict=True):
            assert np.isclose(corners, point).all(1).any()


def test_curve_with_intervals_has_those_of_the_mean(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / str(seed), seed=seed) for seed in range(4)]
    figure = Curve(spread="interval")
    (curve,) = figure.data(load_runs(runs))
    stacked = np.stack([table(run)["test_accuracy"] for run in runs])
    half = stats.t.ppf(0.975, 3) * stacked.std(0, ddof=1) / 2
    np.testing.assert_allclose(curve.low, stacked.mean(0) - half, rtol=1e-9)
    np.testing.assert_allclose(curve.high, stacked.mean(0) + half, rtol=1e-9)
    (legend,) = figure.draw([curve]).legends
    assert legend.get_title().get_text() == "Mean and its 95 % interval of 4 seeds"


def test_panels_have_their_own_lines_in_colour_and_all_others_pale(tmp_path: Path) -> None:
    names = {"Left": ["fed_avg", "splitfed_v1"], "Right": ["cse_fsl"], "Empty": ["ampere"]}
    runs = load_runs([make_run(tmp_path / name, name) for part in names.values() for name in part[:2]][:3])
    figure = Curve(panels=names, log=("x",), targets=(0.0,))
    lines = figure.data(runs)
    drawn = figure.draw(lines)
    assert drawn.get_figwidth() == 7.0
    left, right = drawn.axes
    assert [axes.get_title() for axes in (left, right)] == ["Left", "Right"]
    assert left.get_xlim() == right.get_xlim()
    assert left.get_ylim() == right.get_ylim()
    for axes, own in ((left, names["Left"]), (right, names["Right"])):
        of_runs = [each for each in axes.get_lines() if len(each.get_xdata()) == len(lines[0].x)]
        assert len(of_runs) == 3
        colours = {algorithm_looks()[name][0] for name in own}
        assert {to_hex(each.get_color()).upper() for each in of_runs} == colours | {PALE}
        legend = axes.get_legend()
        assert legend is not None
        assert len(legend.get_texts()) == len(own)
        assert len(axes.texts) == len(own)  # a number for each of its own lines at the target
        box, tight = legend.get_window_extent(), axes.xaxis.get_tightbbox()
        assert tight is not None
        assert drawn.bbox.y0 <= box.y0 < box.y1 <= tight.y0
        assert drawn.bbox.x0 <= box.x0 < box.x1 <= drawn.bbox.x1


def test_line_that_no_panel_names_is_refused(tmp_path: Path) -> None:
    runs = load_runs([make_run(tmp_path / name, name) for name in ("fed_avg", "cse_fsl")])
    with pytest.raises(UserError, match=r"^panels=One, Two: must have cse_fsl in one of them"):
        Curve(panels={"One": ["fed_avg"], "Two": ["ampere"]}).data(runs)


def test_each_panel_holds_as_many_lines_as_a_figure_without() -> None:
    names = [name for name in algorithm_looks() if name != "fed_avg"]
    figure = Curve(panels={"Many": names, "One": ["fed_avg"]})
    lines = [curve_of(name, (0.1, 0.5)) for name in ("fed_avg", *names)]
    drawn, left_out = figure.within_limits(lines)
    assert [line.hue for line in drawn] == ["fed_avg", *names[:10]]
    assert left_out == names[10:]


def test_panels_by_another_key_name_its_values(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / quant, **{"quant.bits": quant, "choices": {"quant": quant}})
        for quant in ("none", "int8")
    ]
    figure = Curve(by="quant", panels={"Exact": ["none"], "Coded": ["quant=int8"]})
    drawn = figure.draw(figure.data(load_runs(runs)))
    assert [axes.get_title() for axes in drawn.axes] == ["Exact", "Coded"]


def test_curve_of_seeds_without_a_common_round_is_refused(tmp_path: Path) -> None:
    one, other = make_run(tmp_path / "0", ran=1), make_run(tmp_path / "1", seed=1, ran=2, evaluated=2)
    with pytest.raises(UserError, match="share a round"):
        Curve().data(load_runs([one, other]))


def test_curves_have_the_colour_and_marker_of_their_algorithm_in_every_figure(tmp_path: Path) -> None:
    everyone = load_runs([make_run(tmp_path / name, name) for name in reversed(algorithm_looks())])
    looks = list(algorithm_looks().values())
    assert len(set(looks)) == len(looks) >= 15
    assert len({colour for colour, _ in looks[:8]}) == len({marker for _, marker in looks[:8]}) == 8
    for runs in (everyone, everyone[1:3], everyone[4:]):
        lines = Curve().data(runs)
        found = dict(
            zip([line.label for line in lines], axes_of(Curve().draw(lines)).get_lines(), strict=True)
        )
        assert list(found) == [name for name in algorithm_looks() if name in {run.algorithm for run in runs}]
        for name, line in found.items():
            assert (to_hex(line.get_color()).upper(), line.get_marker()) == algorithm_looks()[name]


def test_curve_of_a_users_own_algorithm_has_an_appearance_of_its_own(tmp_path: Path) -> None:
    names = ["fed_avg", "mine_a", "mine_b"]
    paths = [make_run(tmp_path / name, name) for name in names]
    lines = Curve().data(load_runs(paths))
    assert [line.label for line in lines] == names
    axes = axes_of(Curve().draw(lines))
    used = [(line.get_color(), line.get_marker()) for line in axes.get_lines()]
    assert len({*used, *algorithm_looks().values()}) == len(algorithm_looks()) + 2


def test_runs_under_an_alias_are_runs_of_its_algorithm(tmp_path: Path) -> None:
    paths = [make_run(tmp_path / "0", "splitfed_v1"), make_run(tmp_path / "1", "sl_multi_server", seed=1)]
    runs = load_runs(paths)
    assert [run.label for run in runs] == ["splitfed_v1", "splitfed_v1"]
    (curve,) = Curve().data(runs)
    assert curve.seeds == (0, 1)
    assert labels(make_run(tmp_path / "2", "sl_single_server")) == ["splitfed_v2"]


def test_run_labels_hold_only_what_differs(tmp_path: Path) -> None:
    even: dict[str, Any] = {"choices": {"distribution": "dirichlet"}, "distribution": dirichlet(10.0)}
    skewed: dict[str, Any] = {"choices": {"distribution": "noniid_dirichlet"}, "distribution": dirichlet(0.1)}
    a = make_run(tmp_path / "a")
    b = make_run(tmp_path / "b", "cse_fsl")
    c = make_run(tmp_path / "c", **even)
    d = make_run(tmp_path / "d", **skewed)
    e = make_run(tmp_path / "e", num_clients=100, optimizer={"_target_": "f.Adam", "lr": 0.01})
    assert labels(a) == ["fsl_sage"]
    assert labels(a, b) == ["fsl_sage", "cse_fsl"]
    assert labels(a, c) == ["fsl_sage, iid", "fsl_sage, dirichlet"]
    assert labels(c, d) == ["fsl_sage, alpha=10", "fsl_sage, alpha=0.1"]
    assert labels(d, a, c) == [
        "fsl_sage, dirichlet, alpha=0.1",
        "fsl_sage, iid",
        "fsl_sage, dirichlet, alpha=10",
    ]
    assert labels(a, e)[1].endswith("num_clients=100, optimizer._target_=f.Adam, lr=0.01")


def test_run_label_names_the_group_of_a_choice_that_is_not_clear_by_itself(tmp_path: Path) -> None:
    sgd = {"_target_": "fedsplit.optim.optimizers.Sgd", "lr": 0.1}
    chosen: dict[str, str | None] = {"client_optimizer": "sgd", "optimizer@client_optimizer": "sgd"}
    a = make_run(tmp_path / "a")
    b = make_run(tmp_path / "b", client_optimizer=sgd, choices=chosen)
    assert labels(a, b) == ["fsl_sage, client_optimizer=null", "fsl_sage, client_optimizer=sgd"]


def test_run_label_names_an_engine_only_where_it_does_not_follow_from_other_choices(tmp_path: Path) -> None:
    def run(name: str, algorithm: str, engine: str) -> Path:
        own = {"engine._target_": f"fedsplit.parties.{engine}.Any"}
        return make_run(tmp_path / name, algorithm, choices={"engine": engine}, **own)

    a, b = run("a", "fed_avg", "vectorized"), run("b", "splitfed_v2", "sequential")
    assert labels(a, b) == ["fed_avg", "splitfed_v2"]
    c = run("c", "fed_avg", "sequential")
    assert labels(a, b, c) == ["fed_avg, engine=vectorized", "splitfed_v2", "fed_avg, engine=sequential"]


def test_runs_with_two_names_of_the_same_option_are_one_curve(tmp_path: Path) -> None:
    same = {"_target_": "fedsplit.models.auxiliary.LinearAuxiliary"}
    a = make_run(tmp_path / "a", auxiliary=same, choices={"auxiliary": "default"})
    b = make_run(tmp_path / "b", seed=1, auxiliary=same, choices={"auxiliary": "linear"})
    (curve,) = Curve().data(load_runs([a, b]))
    assert (curve.label, curve.seeds) == ("fsl_sage", (0, 1))


def test_curve_labels_have_the_number_of_seeds_where_it_differs(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / f"s{seed}", seed=seed) for seed in range(3)]
    runs += [make_run(tmp_path / "one", "cse_fsl")]
    found = Curve().data(load_runs(runs))
    assert [curve.label for curve in found] == ["cse_fsl, 1 seed", "fsl_sage, 3 seeds"]


def test_curves_of_a_setting_share_a_dash_pattern_and_are_sorted_by_number(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / f"{name}{n}", name, num_clients=n)
        for name in ("cse_fsl", "fsl_sage")
        for n in (10, 2, 100)
    ]
    found = Curve().data(load_runs(runs))
    drawn = axes_of(Curve().draw(found)).get_lines()
    lines = dict(zip([line.label for line in found], drawn, strict=True))
    numbers = ["num_clients=2", "num_clients=10", "num_clients=100"]
    assert list(lines) == [f"{name}, {n}" for name in ("cse_fsl", "fsl_sage") for n in numbers]
    dashes = {
        n: {str(vars(lines[f"{name}, {n}"])["_dash_pattern"]) for name in ("cse_fsl", "fsl_sage")}
        for n in numbers
    }
    assert all(len(patterns) == 1 for patterns in dashes.values())
    assert len(set.union(*dashes.values())) == 3


def curve_of(algorithm: str, mean: tuple[float, ...], setting: str = "") -> Line:
    label = f"{algorithm}, {setting}" if setting else algorithm
    x = tuple(float(t) for t in range(len(mean)))
    return Line(label, algorithm, setting, (0,), x, mean, mean, mean)


def test_curve_that_another_covers_shows_on_both_sides_of_it() -> None:
    same = (0.1, 0.5, 0.9)
    drawn = [curve_of("fed_avg", same), curve_of("splitfed_v1", same), curve_of("cse_fsl", (0.3, 0.4, 0.5))]
    axes = axes_of(Curve().draw(drawn))
    widths = [line.get_linewidth() for line in axes.get_lines()]
    assert widths[0] > widths[1] + 1
    assert widths[1] == widths[2]


def test_each_algorithm_has_a_colour_of_its_own() -> None:
    colours = [colour for colour, _ in algorithm_looks().values()]
    assert len(set(colours)) == len(colours) >= 20


def test_no_marker_is_that_of_more_than_two_algorithms_and_further_ones_repeat_no_pair() -> None:
    markers = Counter(marker for _, marker in algorithm_looks().values())
    assert max(markers.values()) == 2
    every = [*algorithm_looks().values(), *free_looks(algorithm_looks())]
    assert len(set(every)) == len(every) == 40


def test_curves_of_too_many_settings_or_algorithms_are_refused() -> None:
    assert len(DASHES) == 6
    many = [curve_of(hue, (0.5,), f"alpha={n}") for hue in ("fed_avg", "cse_fsl") for n in range(7)]
    with pytest.raises(UserError, match=r"^settings=alpha=0; .*alpha=6: must be at most 6"):
        Curve().draw(many)
    with pytest.raises(UserError, match=r"^colours=a, b, .*: must be at most 20 in a figure beside fed_avg"):
        Curve().draw([curve_of(name, (0.5,)) for name in ("fed_avg", *"abcdefghijklmnopqrstu")])
    with pytest.raises(
        UserError, match=r"^colours=a, b, c, d, e, f, g, h, i: must be at most 8 in a figure$"
    ):
        Curve().draw([curve_of(name, (0.5,)) for name in "abcdefghi"])


@pytest.mark.parametrize("long", [False, True])
def test_curve_figure_fits_a_column_and_its_legend_covers_nothing(long: bool) -> None:
    setting = "distribution.classes_per_client=2, model.cut=features.5, num_clients=100" if long else ""
    lines = [curve_of(name, (0.2, 0.8), setting) for name in algorithm_looks()]
    drawn = Curve().draw(lines)
    image = BytesIO()
    drawn.savefig(image, format="png")
    width, height = struct.unpack(">II", image.getvalue()[16:24])
    assert (width, drawn.dpi) == (700, 200)
    assert height >= 480
    (axes,), (legend,) = drawn.axes, drawn.legends
    page, box, tight = drawn.bbox, legend.get_window_extent(), axes.get_tightbbox()
    assert tight is not None
    assert box.y1 <= tight.y0
    assert page.x0 <= box.x0 < box.x1 <= page.x1
    assert page.y0 <= box.y0
    assert axes.get_window_extent().height > 300
    assert axes.get_xlim()[0] == 0
    texts = [*legend.get_texts(), axes.xaxis.label, axes.yaxis.label, *axes.get_xticklabels()]
    assert min(float(text.get_fontsize()) for text in texts) >= 8
    expected = legend_texts([line.label for line in lines])
    assert [" ".join(t.get_text().split()) for t in legend.get_texts()] == expected


def test_longest_run_stands_for_its_repeats(tmp_path: Path) -> None:
    paths = [make_run(tmp_path / name, ran=n) for name, n in (("a", 3), ("b", 5), ("c", 5), ("d", 4))]
    other = make_run(tmp_path / "e", seed=1)
    runs, repeats = without_repeats(load_runs([*paths, other]))
    assert {run.path for run in runs} == {paths[2], other}
    assert repeats == {paths[0]: paths[2], paths[1]: paths[2], paths[3]: paths[2]}


def broken(path: Path, name: str, content: str) -> Path:
    (make_run(path) / name).write_text(content, "utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("config.yaml", "seed: [", "its config.yaml is damaged"),
        ("config.yaml", f"format: {FORMAT}\nchoices: {{}}\nseed: 0", "no algorithm chosen"),
        ("metrics.csv", "", "columns round and load"),
        ("metrics.csv", "round,load,test_accuracy\n0,10,0.5\n1,2", "line 3 of metrics.csv must be whole"),
        ("metrics.csv", "round,load,test_accuracy\n0,10,abc\n", "line 2 of metrics.csv must be whole"),
        ("metrics.csv", "round,load,test_accuracy\n0,10,0.5,7\n", "line 2 of metrics.csv must be whole"),
        ("metrics.csv", "round,load,test_accuracy\n0,,0.5\n", "line 2 of metrics.csv must be whole"),
        ("metrics.csv", "round,load\n1,10\n", r"metrics.csv must .* line 2 is of round 1, not 0"),
        ("metrics.csv", "round,load\n0,10\n0,10\n1,20\n", r"metrics.csv must .* line 3 is of round 0, not 1"),
        ("metrics.csv", "round,load\n0,10\n1,20\n0,10\n", r"metrics.csv must .* line 4 is of round 0, not 2"),
        ("metrics.csv", "round,load\n0,10\n2,20\n", r"metrics.csv must .* line 3 is of round 2, not 1"),
        ("metrics.csv", "round,load\n-1,10\n0,20\n", "line 2 of metrics.csv must be whole"),
    ],
)
def test_damaged_run_is_refused_with_what_is_wrong_in_it(
    tmp_path: Path, name: str, content: str, told: str
) -> None:
    path = broken(tmp_path / "a", name, content)
    with pytest.raises(UserError, match=told) as caught:
        load_runs([path])
    assert str(caught.value).startswith(f"run={path}: ")


def test_curve_of_a_run_without_evaluated_round_is_refused(tmp_path: Path) -> None:
    (run,) = load_runs([make_run(tmp_path / "a", ran=2, evaluated=3)])
    assert isinstance(run, Run)
    with pytest.raises(UserError, match="at least one round with a test_accuracy"):
        Curve().data([run])
    assert len(Curve(y="train_loss").data([run])[0].x) == 2
