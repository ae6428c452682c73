import csv
import struct
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from fedsplit.errors import UserError
from fedsplit.results.curves import APPEARANCE, Curve, draw, figure, over_seeds
from fedsplit.results.runs import Run, load_runs, without_repeats

CLASSES = {
    "fed_avg": "fedsplit.algorithms.fed_avg.FedAvg",
    "splitfed_v1": "fedsplit.algorithms.splitfed_v1.SplitFedV1",
    "splitfed_v2": "fedsplit.algorithms.splitfed_v2.SplitFedV2",
    "sl_multi_server": "fedsplit.algorithms.splitfed_v1.SplitFedV1",
    "sl_single_server": "fedsplit.algorithms.splitfed_v2.SplitFedV2",
    "cse_fsl": "fedsplit.algorithms.cse_fsl.CseFsl",
    "fsl_sage": "fedsplit.algorithms.fsl_sage.FslSage",
}
IID = {"_target_": "fedsplit.data.distributions.iid.Iid"}


def dirichlet(alpha: float) -> dict[str, Any]:
    return {"_target_": "fedsplit.data.distributions.dirichlet.Dirichlet", "alpha": alpha}


def make_run(
    path: Path,
    algorithm: str = "fsl_sage",
    *,
    seed: int = 0,
    rounds: int = 5,
    evaluated: int = 1,
    choices: dict[str, str | None] | None = None,
    **settings: Any,
) -> Path:
    """A run directory with made-up metrics that differ from seed to seed."""
    drawn = np.random.default_rng([seed, len(algorithm)])
    config = {
        "seed": seed,
        "progress": seed % 2 == 0,
        "num_clients": 10,
        "algorithm": {"_target_": CLASSES.get(algorithm, f"mine.{algorithm}")},
        "distribution": IID,
        "optimizer": {"_target_": "fedsplit.optimizers.Adam", "lr": 0.001},
        "client_optimizer": None,
        **settings,
        "choices": {
            "experiment": None,
            "optimizer": "adam",
            "client_optimizer": None,
            "distribution": "iid",
            "algorithm": algorithm,
            **(choices or {}),
        },
    }
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(yaml.safe_dump(config), "utf-8")
    load = 0
    with (path / "metrics.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["round", "test_accuracy", "test_loss", "train_loss", "load", "seconds.clients"])
        for t in range(rounds):
            load += int(drawn.integers(1_000_000, 2_000_000))
            tested = drawn.uniform(size=2).tolist() if t % evaluated == evaluated - 1 else ["", ""]
            rows.writerow([t, *tested, float(drawn.uniform()), load, 0.1])
    return path


def table(path: Path) -> dict[str, np.ndarray]:
    """metrics.csv, read by numpy; nan where a cell is empty."""
    read = np.genfromtxt(path / "metrics.csv", delimiter=",", names=True, deletechars="")
    return {name: np.atleast_1d(read[name]) for name in read.dtype.names or ()}


def labels(*paths: Path) -> list[str]:
    return [run.label for run in load_runs(paths)]


def test_a_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    (run,) = load_runs([make_run(tmp_path / "a", evaluated=2, rounds=5)])
    expected = table(run.path)
    assert run.config["seed"] == 0
    assert run.columns["round"] == (0, 1, 2, 3, 4)
    for name, column in expected.items():
        np.testing.assert_array_equal(np.array(run.columns[name], dtype=float), column)
    assert run.values("test_accuracy") == {t: expected["test_accuracy"][t] for t in (1, 3)}


@pytest.mark.parametrize("x", ["round", "load"])
@pytest.mark.parametrize("y", ["test_accuracy", "test_loss", "train_loss"])
def test_the_line_drawn_is_the_csv(tmp_path: Path, x: Any, y: Any) -> None:
    run = make_run(tmp_path / "a", rounds=7, evaluated=3)
    axes = Figure().add_subplot()
    draw(axes, over_seeds(load_runs([run]), x, y), x, y)
    (line,) = axes.get_lines()
    rows = table(run)
    there = ~np.isnan(rows[y])
    assert there.sum() == (7 if y == "train_loss" else 2)
    np.testing.assert_allclose(
        np.asarray(line.get_xdata()), rows[x][there] / (1e6 if x == "load" else 1), rtol=1e-12
    )
    np.testing.assert_array_equal(line.get_ydata(), rows[y][there])
    assert axes.get_xlabel() == {"round": "Round", "load": "Communication load (MB)"}[x]
    assert axes.get_ylabel().lower().startswith(y.replace("_", " ").replace("train", "training"))
    assert not axes.collections  # no band of a single seed


@pytest.mark.parametrize("x", ["round", "load"])
def test_mean_and_range_over_seeds_at_common_rounds(tmp_path: Path, x: Any) -> None:
    lengths = [6, 4, 5]  # one was stopped early
    runs = [make_run(tmp_path / str(seed), seed=seed, rounds=n) for seed, n in enumerate(lengths)]
    (curve,) = over_seeds(load_runs(runs), x, "test_accuracy")
    stacked = np.stack([table(run)["test_accuracy"][:4] for run in runs])
    at = np.stack([table(run)[x][:4] for run in runs]).mean(0) / (1e6 if x == "load" else 1)
    assert curve.seeds == (0, 1, 2)
    np.testing.assert_allclose(curve.x, at, rtol=1e-12)
    np.testing.assert_allclose(curve.mean, stacked.mean(0), rtol=1e-12)
    np.testing.assert_array_equal(curve.low, stacked.min(0))
    np.testing.assert_array_equal(curve.high, stacked.max(0))
    axes = Figure().add_subplot()
    draw(axes, [curve], x, "test_accuracy")
    corners = axes.collections[0].get_paths()[0].vertices
    for side in (stacked.min(0), stacked.max(0)):
        for point in zip(at, side, strict=True):
            assert np.isclose(corners, point).all(1).any()


def test_seeds_without_a_common_round_are_refused(tmp_path: Path) -> None:
    one, other = make_run(tmp_path / "0", rounds=2), make_run(tmp_path / "1", seed=1, rounds=2)
    header, first, second = (other / "metrics.csv").read_text("utf-8").splitlines()
    (other / "metrics.csv").write_text(f"{header}\n{second}\n", "utf-8")
    header, first, second = (one / "metrics.csv").read_text("utf-8").splitlines()
    (one / "metrics.csv").write_text(f"{header}\n{first}\n", "utf-8")
    with pytest.raises(UserError, match="share a round"):
        over_seeds(load_runs([one, other]), "round", "test_accuracy")


def test_colours_and_markers_are_those_of_the_algorithm_in_every_figure(tmp_path: Path) -> None:
    everyone = load_runs([make_run(tmp_path / name, name) for name in reversed(APPEARANCE)])
    assert len({colour for colour, _ in APPEARANCE.values()}) == 5
    assert len({marker for _, marker in APPEARANCE.values()}) == 5
    for runs in (everyone, everyone[1:3], everyone[4:]):
        axes = Figure().add_subplot()
        draw(axes, over_seeds(runs, "round", "test_loss"), "round", "test_loss")
        found = {str(line.get_label()): line for line in axes.get_lines()}
        assert list(found) == [name for name in APPEARANCE if name in {run.algorithm for run in runs}]
        for name, line in found.items():
            assert (to_hex(line.get_color()).upper(), line.get_marker()) == APPEARANCE[name]


def test_an_algorithm_of_ones_own_has_an_appearance_of_its_own(tmp_path: Path) -> None:
    names = ["fed_avg", "mine_a", "mine_b"]
    paths = [make_run(tmp_path / name, name) for name in names]
    axes = Figure().add_subplot()
    draw(axes, over_seeds(load_runs(paths), "round", "test_loss"), "round", "test_loss")
    assert [line.get_label() for line in axes.get_lines()] == names
    used = [(line.get_color(), line.get_marker()) for line in axes.get_lines()]
    assert len({*used, *APPEARANCE.values()}) == 5 + 2


def test_aliases_are_their_algorithm(tmp_path: Path) -> None:
    paths = [make_run(tmp_path / "0", "splitfed_v1"), make_run(tmp_path / "1", "sl_multi_server", seed=1)]
    runs = load_runs(paths)
    assert [run.label for run in runs] == ["splitfed_v1", "splitfed_v1"]
    (curve,) = over_seeds(runs, "round", "test_accuracy")
    assert curve.seeds == (0, 1)
    assert labels(make_run(tmp_path / "2", "sl_single_server")) == ["splitfed_v2"]


def test_labels_tell_only_what_differs(tmp_path: Path) -> None:
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


def test_a_choice_that_is_not_clear_by_itself_is_named_with_its_group(tmp_path: Path) -> None:
    sgd = {"_target_": "fedsplit.optimizers.Sgd", "lr": 0.1}
    chosen: dict[str, str | None] = {"client_optimizer": "sgd", "optimizer@client_optimizer": "sgd"}
    a = make_run(tmp_path / "a")
    b = make_run(tmp_path / "b", client_optimizer=sgd, choices=chosen)
    assert labels(a, b) == ["fsl_sage, client_optimizer=null", "fsl_sage, client_optimizer=sgd"]


def test_two_names_of_the_same_option_are_one_curve(tmp_path: Path) -> None:
    same = {"_target_": "fedsplit.models.auxiliary.LinearAuxiliary"}
    a = make_run(tmp_path / "a", auxiliary=same, choices={"auxiliary": "default"})
    b = make_run(tmp_path / "b", seed=1, auxiliary=same, choices={"auxiliary": "linear"})
    (curve,) = over_seeds(load_runs([a, b]), "round", "test_accuracy")
    assert (curve.label, curve.seeds) == ("fsl_sage", (0, 1))


def test_the_number_of_seeds_is_told_where_it_differs(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / f"s{seed}", seed=seed) for seed in range(3)]
    runs += [make_run(tmp_path / "one", "cse_fsl")]
    found = over_seeds(load_runs(runs), "round", "test_accuracy")
    assert [curve.label for curve in found] == ["cse_fsl, 1 seed", "fsl_sage, 3 seeds"]


def test_settings_have_a_dash_pattern_shared_by_algorithms_and_sorted_by_number(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / f"{name}{n}", name, num_clients=n)
        for name in ("cse_fsl", "fsl_sage")
        for n in (10, 2, 100)
    ]
    axes = Figure().add_subplot()
    draw(axes, over_seeds(load_runs(runs), "round", "test_accuracy"), "round", "test_accuracy")
    lines = {str(line.get_label()): line for line in axes.get_lines()}
    numbers = ["num_clients=2", "num_clients=10", "num_clients=100"]
    assert list(lines) == [f"{name}, {n}" for name in ("cse_fsl", "fsl_sage") for n in numbers]
    dashes = {
        n: {str(vars(lines[f"{name}, {n}"])["_dash_pattern"]) for name in ("cse_fsl", "fsl_sage")}
        for n in numbers
    }
    assert all(len(patterns) == 1 for patterns in dashes.values())
    assert len(set.union(*dashes.values())) == 3


def curve_of(algorithm: str, mean: tuple[float, ...], setting: str = "") -> Curve:
    label = f"{algorithm}, {setting}" if setting else algorithm
    x = tuple(float(t) for t in range(len(mean)))
    return Curve(label, algorithm, setting, (0,), x, mean, mean, mean)


def test_a_curve_that_another_covers_shows_on_both_sides_of_it() -> None:
    same = (0.1, 0.5, 0.9)
    drawn = [curve_of("fed_avg", same), curve_of("splitfed_v1", same), curve_of("cse_fsl", (0.3, 0.4, 0.5))]
    axes = Figure().add_subplot()
    draw(axes, drawn, "round", "test_accuracy")
    widths = [line.get_linewidth() for line in axes.get_lines()]
    assert widths[0] > widths[1] + 1
    assert widths[1] == widths[2]


def test_too_many_settings_or_algorithms_are_refused() -> None:
    axes = Figure().add_subplot()
    with pytest.raises(UserError, match=r"^settings drawn=7: at most 6"):
        draw(axes, [curve_of("fed_avg", (0.5,), f"alpha={n}") for n in range(7)], "round", "test_accuracy")
    with pytest.raises(UserError, match=r"^algorithms drawn=a, b, c, d: at most 3"):
        draw(axes, [curve_of(name, (0.5,)) for name in "abcd"], "round", "test_accuracy")


@pytest.mark.parametrize("long", [False, True])
def test_a_figure_fits_a_column_and_its_legend_covers_nothing(long: bool) -> None:
    setting = "distribution.classes_per_client=2, model.cut=features.5, num_clients=100" if long else ""
    drawn = figure([curve_of(name, (0.2, 0.8), setting) for name in APPEARANCE], "load", "test_accuracy")
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
    assert [" ".join(t.get_text().split()) for t in legend.get_texts()] == [
        str(line.get_label()) for line in axes.get_lines()
    ]


def test_the_longest_run_stands_for_its_repeats(tmp_path: Path) -> None:
    paths = [make_run(tmp_path / name, rounds=n) for name, n in (("a", 3), ("b", 5), ("c", 5), ("d", 4))]
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
        ("config.yaml", "seed: [", "must not be damaged"),
        ("config.yaml", "seed: 0", "no algorithm chosen"),
        ("metrics.csv", "", "columns round and load"),
        ("metrics.csv", "round,load,test_accuracy\n0,10,0.5\n1,2", "line 3 of metrics.csv must be whole"),
        ("metrics.csv", "round,load,test_accuracy\n0,10,abc\n", "line 2 of metrics.csv must be whole"),
        ("metrics.csv", "round,load,test_accuracy\n0,10,0.5,7\n", "line 2 of metrics.csv must be whole"),
        ("metrics.csv", "round,load,test_accuracy\n0,,0.5\n", "line 2 of metrics.csv must be whole"),
    ],
)
def test_damage_is_told(tmp_path: Path, name: str, content: str, told: str) -> None:
    path = broken(tmp_path / "a", name, content)
    with pytest.raises(UserError, match=told) as caught:
        load_runs([path])
    assert str(caught.value).startswith(f"run={path}: ")


def test_a_run_without_evaluated_round_is_told(tmp_path: Path) -> None:
    (run,) = load_runs([make_run(tmp_path / "a", rounds=2, evaluated=3)])
    assert isinstance(run, Run)
    with pytest.raises(UserError, match="at least one round with a test_accuracy"):
        over_seeds([run], "load", "test_accuracy")
    assert len(over_seeds([run], "load", "train_loss")[0].x) == 2
