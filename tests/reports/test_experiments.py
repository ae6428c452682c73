"""Every experiment that comes with the code, on small made-up runs that it asks for."""

import json
from functools import cache, reduce
from itertools import product
from operator import getitem
from pathlib import Path

import pytest
import yaml

from fedsplit.config.choices import CONFIGS
from fedsplit.config.compose import compose_config, composing, plain
from fedsplit.recording.config_file import write_config
from fedsplit.reports.drawing import StoredRuns, draw
from fedsplit.reports.experiments import FigureRequest, experiments_in
from fedsplit.reports.figures.types import FIGURE_TYPES
from fedsplit.reports.notes import Notes
from tests.cases import long_but
from tests.reports.stored import make_run

LISTED = Path(__file__).parents[2] / "exp_configs.yaml"
EXPERIMENTS = experiments_in(LISTED)


def _is_first_of_its_figure(experiment: FigureRequest) -> bool:
    """One of each figure in every run; the others differ in which runs they ask for."""
    return experiment is next(each for each in EXPERIMENTS if type(each.figure) is type(experiment.figure))


@cache
def configuration(*overrides: str) -> str:
    """A run's configuration with these choices, as JSON."""
    with composing():
        config = compose_config(overrides)
    chosen = {k: v for k, v in config.hydra.runtime.choices.items() if not k.startswith("hydra/")}
    return json.dumps(plain(config) | {"choices": chosen})


def stored(folder: Path, experiment: FigureRequest) -> list[Path]:
    """Runs as the experiment asks for: every combination expected, or what `where` allows first."""
    first = {key: values[:1] for key, values in experiment.where.items()}
    asked = {"algorithm": ("fsl_sage", "fed_avg"), **first, **experiment.expects}
    paths = []
    for i, values in enumerate(product(*asked.values())):
        one = {key: value for key, value in zip(asked, values, strict=True) if value != "null"}
        if "distribution.alpha" in one:
            one["distribution"] = "dirichlet"
        choices = sorted(f"{key}={value}" for key, value in one.items() if (CONFIGS / key).is_dir())
        config = json.loads(configuration(*choices))
        for key in [key for key in one if not (CONFIGS / key).is_dir()]:
            *places, name = key.split(".")
            reduce(getitem, places, config)[name] = yaml.safe_load(one[key])
        path = folder / "saves" / experiment.name / str(i)
        made = {"seed": config["seed"], "auxiliary_size": 100 * (i + 1), "bits": float(2 + i)}
        paths.append(make_run(path, one["algorithm"], **made))
        write_config(path, config)
    return paths


@pytest.mark.parametrize(
    "experiment", long_but(_is_first_of_its_figure, EXPERIMENTS), ids=lambda each: each.name
)
def test_every_listed_experiment_finds_its_runs_and_is_drawn(
    experiment: FigureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = stored(tmp_path, experiment)
    make_run(tmp_path / "saves" / "stranger", **{"model._target_": "f.other"}, choices={"model": "other"})
    monkeypatch.chdir(tmp_path)
    notes = Notes()
    stored_runs = StoredRuns(notes)
    runs = stored_runs.select_runs(experiment)
    stored_runs.tell_missing()
    assert notes.texts == []
    assert {run.path.resolve() for run in runs} == set(paths)
    drawn = draw(experiment, runs, experiment.formats)
    assert drawn.images.keys() == set(experiment.formats)
    assert all(len(image) > 1000 for image in drawn.images.values())


def test_listed_experiments_have_titles_and_a_figure_of_every_type() -> None:
    assert len(EXPERIMENTS) == len(yaml.safe_load(LISTED.read_text("utf-8"))) == 28
    digits = {type(each.figure) for each in EXPERIMENTS if each.name.startswith("digits-")}
    assert digits == set(FIGURE_TYPES.values())
    assert sum(each.name.startswith("paper-") for each in EXPERIMENTS) == 6
    assert all(each.title != each.name for each in EXPERIMENTS)


def test_experiments_name_runs_that_are_missing_damaged_or_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = {
        "mine": {
            "where": {"algorithm": "fsl_sage"},
            "expects": {"seed": [0, 1, 2]},
            "y": "gradient_error",
        },
        "typo": {"where": {"algorithm.align_intervall": 5}},
        "gone": {"where": {"algorithm": "cse_fsl"}, "expects": {"seed": [0, 1]}},
    }
    (tmp_path / "exp.yaml").write_text(yaml.safe_dump(listed, sort_keys=False))
    monkeypatch.chdir(tmp_path)
    make_run(Path("saves/a"))
    make_run(Path("saves/b"), seed=1, ended=False)
    make_run(Path("saves/repeat"))
    (make_run(Path("saves/c")) / "config.yaml").write_text("seed: [")
    for without in (make_run(Path("saves/d"), seed=3), make_run(Path("saves/e"), seed=4)):
        metrics = (without / "metrics.csv").read_text().replace("gradient_error", "other")
        (without / "metrics.csv").write_text(metrics)
    notes = Notes()
    stored_runs = StoredRuns(notes)
    mine, typo, gone = experiments_in(Path("exp.yaml"))
    assert {str(run.path) for run in stored_runs.select_runs(mine)} == {"saves/repeat", "saves/b"}
    stored_runs.tell_missing()
    damaged, repeat, unfinished, unfit, missing = notes.texts
    assert damaged.startswith("not drawn: run=saves/c: its config.yaml is damaged")
    assert repeat == "saves/a: not drawn, saves/repeat has the same settings and seed"
    assert unfinished == "saves/b: drawn as far as it went, it has not ended"
    assert missing == "missing for mine: python main.py algorithm=fsl_sage seed=2"
    assert unfit.startswith("mine: not drawn, as 1 more: run=saves/d: has no gradient_error in metrics.csv")
    assert stored_runs.select_runs(typo) == []
    assert notes.texts[-1:] == [
        "typo: not drawn, it has no run (none has the key algorithm.align_intervall); "
        "they come from: python main.py algorithm.align_intervall=5"
    ]
    assert stored_runs.select_runs(gone) == []
    assert (
        notes.texts[-1]
        == "gone: not drawn, it has no run; they come from: python main.py -m algorithm=cse_fsl seed=0,1"
    )
