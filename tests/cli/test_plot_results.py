import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from fedsplit.machine.extras import install_command
from fedsplit.recording.config_file import FORMAT
from tests.command_line import command_line

SCRIPT = Path(__file__).parents[2] / "plot_results.py"
HEADER = "round,test_accuracy,test_loss,train_loss,load"
PNG = b"\x89PNG\r\n\x1a\n"


def make_run(path: Path, algorithm: str = "fsl_sage", seed: int = 0, rounds: int = 3) -> Path:
    config = {
        "format": FORMAT,
        "seed": seed,
        "algorithm": {"_target_": f"fedsplit.algorithms.{algorithm}.Any"},
        "choices": {"algorithm": algorithm},
    }
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(yaml.safe_dump(config), "utf-8")
    rows = [f"{t},{0.1 * (t + 1 + seed)},1.5,1.6,{1000000 * (t + 1)}" for t in range(rounds)]
    (path / "metrics.csv").write_text("\n".join([HEADER, *rows, ""]), "utf-8")
    (path / "results.json").write_text("{}", "utf-8")
    return path


def plot(
    cwd: Path, *arguments: object, before: tuple[str, ...] = (), path: Path | None = None
) -> subprocess.CompletedProcess[str]:
    if not before and path is None:
        return command_line(*map(str, arguments), cwd=cwd, program=SCRIPT.name)
    paths = [str(path)] * bool(path) + [each for each in [os.environ.get("PYTHONPATH")] if each]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, *before, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def refused(done: subprocess.CompletedProcess[str], told: str) -> None:
    assert done.returncode == 2, done
    assert done.stdout == ""
    *notes, error = done.stderr.splitlines()
    assert all(line.startswith("note: ") for line in notes)
    assert error.startswith(f"error: {told}")


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def notes_in(folder: Path) -> list[str]:
    return (folder / "notes-on-figures.txt").read_text("utf-8").splitlines()


def test_plot_help_imports_nothing_heavy(tmp_path: Path) -> None:
    done = plot(tmp_path, "--help", before=("-X", "importtime"))
    assert done.returncode == 0
    assert "RUN_DIR" in done.stdout
    imported = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "argparse" in imported
    assert imported.isdisjoint({"matplotlib", "torch", "numpy", "hydra", "omegaconf"})


def test_plot_draws_runs_sweeps_and_globs_and_prints_the_paths_of_the_figures(tmp_path: Path) -> None:
    make_run(tmp_path / "single", "fed_avg")
    make_run(tmp_path / "sweep" / "0", "cse_fsl")
    make_run(tmp_path / "sweep" / "1", "cse_fsl", seed=1)
    (tmp_path / "sweep" / "2").mkdir()
    for _ in range(2):  # the second time, the folder of figures is there
        told = plot(tmp_path, "sweep", "--out", "sweep/figures").stderr
        assert told == "note: sweep/2: not drawn, it is not the directory of a run\n"
    shutil.rmtree(tmp_path / "sweep" / "figures")
    make_run(tmp_path / "many" / "x" / "a")
    arguments = ("single", "sweep", "many/*/*", "single")
    done = plot(tmp_path, *arguments, "--out", "figures/new")
    assert done.returncode == 0, done.stderr
    printed = done.stdout.splitlines()
    assert printed == [str(Path(f"figures/new/accuracy-{x}.png")) for x in ("round", "load")]
    assert files(tmp_path / "figures") == {"new/accuracy-round.png", "new/accuracy-load.png"}
    assert all((tmp_path / path).read_bytes().startswith(PNG) for path in printed)
    sweep_job = Path("sweep/2")
    assert done.stderr == f"note: {sweep_job}: not drawn, it is not the directory of a run\n"


def test_plot_makes_a_table_of_the_runs_given_where_one_is_asked_for(tmp_path: Path) -> None:
    for seed in (0, 1):
        make_run(tmp_path / "runs" / f"sage-{seed}", "fsl_sage", seed=seed)
        make_run(tmp_path / "runs" / f"avg-{seed}", "fed_avg", seed=seed)
    done = plot(tmp_path, "runs", "--x", "load", "--table", "0.2", "--out", "out")
    assert done.returncode == 0, done.stderr
    assert files(tmp_path / "out") == {"accuracy-load.png", "table.md", "table.tex", "table.csv"}
    head, _, *rows = (
        line for line in (tmp_path / "out/table.md").read_text().splitlines() if line[:1] == "|"
    )
    assert "| Load to 20% (MB) |" in head
    assert [row.split(" | ")[:2] for row in rows] == [["| FedAvg", "2"], ["| FSL-SAGE", "2"]]
    done = plot(tmp_path, "runs", "--x", "load", "--out", "plain", "--table")
    assert (done.returncode, "table.tex" in files(tmp_path / "plain")) == (0, True)
    refused(plot(tmp_path, "runs", "--table", "2"), "--table=[2]: must be a list of different accuracies")
    refused(plot(tmp_path, "--table"), "RUN_DIR=null: --table needs the runs to draw")


def test_plot_draws_the_listed_experiments_and_names_what_matches_nothing(tmp_path: Path) -> None:
    make_run(tmp_path / "saves" / "fsl_sage" / "1")
    make_run(tmp_path / "saves" / "fsl_sage" / "2")
    experiments: dict[str, Any] = {
        "mine": {"runs": ["saves/*/*"], "x": "round", "y": "test_loss"},
        "half": {"runs": ["saves/*/*", "gone/*"], "x": "load", "y": "train_loss"},
        "none": {"runs": ["nowhere"], "x": "load", "y": "test_accuracy"},
    }
    (tmp_path / "exp_configs.yaml").write_text(yaml.safe_dump(experiments, sort_keys=False), "utf-8")
    done = plot(tmp_path)
    assert done.returncode == 0, done.stderr
    written = ["mine.png", "half.png", "index.html"]
    assert done.stdout.splitlines() == [str(Path("saves/plots") / name) for name in written]
    assert files(tmp_path / "saves" / "plots") == {*written, "notes-on-figures.txt"}
    assert len(done.stderr.splitlines()) == 3
    repeat, half, none, nothing = (f"note: {each}" for each in notes_in(tmp_path / "saves" / "plots"))
    assert nothing == "note: none: not drawn, it has no run"
    assert repeat.startswith("note: ")
    assert repeat.endswith("has the same settings and seed")
    assert half.startswith("note: half.runs=gone/*: ")
    assert none.startswith("note: none.runs=nowhere: ")


def test_plot_of_experiments_without_any_run_is_an_error(tmp_path: Path) -> None:
    experiments = {"none": {"runs": ["nowhere"], "x": "load", "y": "test_accuracy"}}
    (tmp_path / "exp_configs.yaml").write_text(yaml.safe_dump(experiments), "utf-8")
    refused(plot(tmp_path), "experiments=exp_configs.yaml: ")


def test_plot_selects_runs_by_their_configuration_and_names_missing_ones(tmp_path: Path) -> None:
    make_run(tmp_path / "saves" / "fsl_sage" / "1")
    make_run(tmp_path / "saves" / "multirun" / "today" / "now" / "0", "cse_fsl")
    experiments: dict[str, Any] = {
        "both": {
            "where": {"algorithm": ["cse_fsl", "fsl_sage"]},
            "expects": {"algorithm": ["cse_fsl", "fsl_sage"], "seed": [0, 1]},
            "targets": [0.2],
            "formats": ["png", "svg"],
        },
        "one": {"where": {"algorithm": "cse_fsl"}, "expects": {"seed": [0, 1]}, "x": "round"},
        "two": {"where": {"algorithm": "cse_fsl"}, "expects": {"seed": [1]}, "x": "round"},
        "none": {"where": {"algorithm": "fed_avg"}, "figure": "bars"},
    }
    (tmp_path / "exp_configs.yaml").write_text(yaml.safe_dump(experiments, sort_keys=False), "utf-8")
    done = plot(tmp_path)
    assert done.returncode == 0, done.stderr
    written = ["both.png", "both.svg", "one.png", "two.png", "index.html"]
    assert done.stdout.splitlines() == [str(Path("saves/plots") / name) for name in written]
    assert done.stderr.splitlines() == [
        "note: none: not drawn, it has no run; they come from: python main.py algorithm=fed_avg",
        "note: missing for both: python main.py -m algorithm=cse_fsl,fsl_sage seed=1",
        "note: missing for one and 1 more: python main.py algorithm=cse_fsl seed=1",
    ]
    elsewhere = plot(tmp_path, "--format", "pdf", "--out", "other").stdout.splitlines()
    assert elsewhere == [
        str(Path("other") / name) for name in ("both.pdf", "one.pdf", "two.pdf", "index.html")
    ]


def test_plot_draws_the_other_experiments_where_one_cannot_be_drawn(tmp_path: Path) -> None:
    for seed in range(2):
        path = make_run(tmp_path / "saves" / str(seed), seed=seed)
        names, *rows = [row.split(",") for row in (path / "metrics.csv").read_text("utf-8").splitlines()]
        rows[1 - seed][names.index("test_accuracy")] = ""  # each is evaluated after another round
        (path / "metrics.csv").write_text("\n".join(map(",".join, [names, *rows[:2], []])), "utf-8")
    experiments: dict[str, Any] = {
        "many": {"where": {"algorithm": "fsl_sage"}},
        "one": {"where": {"algorithm": "fsl_sage", "seed": 1}},
    }
    (tmp_path / "exp_configs.yaml").write_text(yaml.safe_dump(experiments, sort_keys=False), "utf-8")
    done = plot(tmp_path)
    assert done.returncode == 2
    assert done.stdout.splitlines() == [str(Path("saves/plots") / name) for name in ("one.png", "index.html")]
    (error,) = done.stderr.splitlines()
    assert error.startswith("error: many: not drawn: run=saves/0: must share a round")
    assert files(tmp_path / "saves" / "plots") == {"one.png", "index.html"}


def test_plot_of_more_series_than_can_be_told_apart_leaves_some_out_and_names_them(tmp_path: Path) -> None:
    for clients in range(12):
        path = make_run(tmp_path / "saves" / str(clients))
        with (path / "config.yaml").open("a") as file:
            file.write(f"num_clients: {clients + 1}\n")
    done = plot(tmp_path, "saves", "--out", "figures")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == [
        "note: 4 series left out of figures that hold too many",
        f"note: each is told in {Path('figures/notes-on-figures.txt')}",
    ]
    told = (tmp_path / "figures" / "notes-on-figures.txt").read_text("utf-8").splitlines()
    assert told == [
        f"accuracy-{x}: left out, because there is no room: fsl_sage, num_clients={n}"
        for x in ("round", "load")
        for n in (11, 12)
    ]
    few = plot(tmp_path, "saves/0", "--out", "figures")
    assert (few.returncode, few.stderr) == (0, "")
    assert not (tmp_path / "figures" / "notes-on-figures.txt").exists()


def test_plot_draws_the_one_figure_that_the_command_line_asks_for(tmp_path: Path) -> None:
    for job, algorithm in enumerate(("fed_avg", "fsl_sage")):
        make_run(tmp_path / "saves" / "multirun" / "today" / "now" / str(job), algorithm)
    asked = ["--runs", "saves/multirun/today/*", "--x", "load", "--y", "accuracy", "--by", "algorithm"]
    done = plot(tmp_path, *asked, "--targets", "0.2,0.3", "--format", "png,svg", "--out", "figures")
    assert (done.returncode, done.stderr) == (0, "")
    assert files(tmp_path / "figures") == {"accuracy-load.png", "accuracy-load.svg"}
    done = plot(
        tmp_path, "saves", "--figure", "against", "--x", "algorithm", "--at", "best", "--out", "other"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert files(tmp_path / "other") == {"accuracy-against-algorithm.png"}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "experiments=exp_configs.yaml: "),
        ("a: [", "experiments=exp_configs.yaml: must be YAML"),
        ("a: 3", "a=3: must have the key where or runs"),
        ("a: {x: load}", "a={'x': 'load'}: must have the key where or runs"),
        ("a: {where: {modle: x}}", "a.where.modle=x: no such key; did you mean model? known: seed, "),
        ("a: {where: {seed: 0}, expects: {seed: []}}", "a.expects.seed=[]: must be a value or a list"),
        ("a: {where: {}, figure: pie}", "a.figure=pie: must be one of curve, against, scatter, bars"),
        ("a: {where: {}, figure: bars, x: load}", "a.x=load: no such key of figure bars; known: of, by, "),
        ("a: {where: {}, figure: bars, of: bits}", "a.of=bits: must be one of bytes, seconds"),
        ("a: {where: {}, figure: against, at: soon}", "a.at=soon: must be final, best, or what"),
        ("a: {where: {}, targets: 0.9}", "a.targets=0.9: must be a list, each a number"),
        ("a: {where: {}, spread: wide}", "a.spread=wide: must be one of range, interval"),
        ("a: {where: {}, panels: [fed_avg]}", "a.panels=['fed_avg']: must be panels by title, each a list"),
        ("a: {where: {}, panels: {One: fed_avg}}", "a.panels={'One': 'fed_avg'}: must be panels by title"),
        ("a: {where: {}, panels: {One: []}}", "a.panels={'One': []}: must be panels by title, each a list"),
        ("a: {where: {}, log: [z]}", "a.log=['z']: must be a list, each one of x, y"),
        ("a: {where: {}, formats: [gif]}", "a.formats=['gif']: must be a list of png, pdf, svg"),
        ("a: {where: {}, title: 3}", "a.title=3: must be a text"),
        ("../a: {runs: [r], x: round, y: test_loss}", "experiment=../a: "),
        (
            "a: {runs: [r], x: round, y: test_loss, colour: red}",
            "a.colour=red: no such key of figure curve; known: x, y, by, ",
        ),
        ("a: {runs: r, x: round, y: test_loss}", "a.runs=r: must be a list"),
        ("a: {runs: [r], x: time, y: test_loss}", "a.x=time: must be one of round, load"),
    ],
)
def test_plot_of_wrong_experiments_names_the_mistake_and_writes_nothing(
    tmp_path: Path, content: str, told: str
) -> None:
    make_run(tmp_path / "r")
    (tmp_path / "exp_configs.yaml").write_text(content, "utf-8")
    before = files(tmp_path)
    refused(plot(tmp_path), told)
    assert files(tmp_path) == before


def test_plot_without_a_file_of_experiments_takes_the_one_that_the_package_came_with(tmp_path: Path) -> None:
    listed = SCRIPT.with_name("exp_configs.yaml")
    refused(plot(tmp_path), f"experiments={listed}: no experiment in it has a run to draw; RUN_DIR draws")
    (tmp_path / "exp_configs.yaml").mkdir()
    refused(plot(tmp_path), "experiments=exp_configs.yaml: cannot be read")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["good", "empty"], "RUN_DIR=empty: holds no run"),
        (["good", "gone*"], "RUN_DIR=gone*: holds no run"),
        (["good", "gone"], "RUN_DIR=gone: there is no such folder"),
        (["good", "unevaluated"], "run=unevaluated: must hold at least one round with a test_accuracy"),
        (
            ["good", "--y", "acuracy"],
            "run=good: has no acuracy in metrics.csv, but round, test_accuracy",
        ),
        (["good", "--x", "time"], "--x=time: must be one of round, load, simulated_seconds, seconds"),
        (["good", "--figure", "pie"], "--figure=pie: must be one of curve, against"),
        (["good", "--figure", "bars", "--x", "load"], "--x=load: no such key of figure bars; known: of, by"),
        (["good", "--targets", "high"], "--targets=['high']: must be a list, each a number"),
        (["good", "--format", "gif"], "--format=['gif']: must be a list of png, pdf, svg"),
        (["good", "--by", "modle"], "by=modle: must be a group or a dotted key of config.yaml"),
        (["--figure", "roc"], "RUN_DIR=null: --figure needs the runs to draw"),
        (["good", "--out", "file"], "--out=file: must be a directory to write to"),
        (["good", "--out", "file/below"], "--out=file/below: must be a directory to write to"),
        (["good", "--dpi", "3"], "arguments=good --dpi 3: unrecognized arguments"),
        (["good", "--out"], "arguments=good --out: argument --out"),
    ],
)
def test_plot_asked_for_wrongly_ends_in_one_line_and_writes_nothing(
    tmp_path: Path, arguments: list[str], told: str
) -> None:
    make_run(tmp_path / "good")
    make_run(tmp_path / "unevaluated", "cse_fsl", rounds=0)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("kept", "utf-8")
    before = files(tmp_path)
    refused(plot(tmp_path, *arguments), told)
    assert files(tmp_path) == before
    assert not (tmp_path / "saves").exists()


def test_plot_leaves_no_part_of_a_figure_that_cannot_be_put_in_place(tmp_path: Path) -> None:
    make_run(tmp_path / "good")
    (tmp_path / "figures" / "accuracy-round.png" / "in-the-way").mkdir(parents=True)
    refused(plot(tmp_path, "good", "--out", "figures"), "--out=figures: must be a directory to write to")
    assert files(tmp_path / "figures") == set()


def test_plot_without_matplotlib_says_what_to_install(tmp_path: Path) -> None:
    make_run(tmp_path / "good")
    stub = tmp_path / "path" / "matplotlib"
    stub.mkdir(parents=True)
    missing = "raise ModuleNotFoundError(\"No module named 'matplotlib'\", name='matplotlib')\n"
    (stub / "__init__.py").write_text(missing, "utf-8")
    done = plot(tmp_path, "good", path=tmp_path / "path")
    refused(done, "matplotlib=missing: ")
    assert done.stderr.rstrip().endswith(install_command("plot"))
    assert not (tmp_path / "saves").exists()


def _with_counts(path: Path, rows: str) -> Path:
    make_run(path)
    (path / "class_counts.csv").write_text(f"client,label,class,samples\n{rows}", "utf-8")
    return path


def test_plot_draws_the_samples_of_each_class_at_each_client(tmp_path: Path) -> None:
    _with_counts(tmp_path / "a", "0,0,,5\n1,1,,7\n")
    done = plot(tmp_path, "a", "--classes", "--out", "figures")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{Path('figures/classes.png')}\n", "")
    assert (tmp_path / "figures" / "classes.png").read_bytes().startswith(PNG)
    assert files(tmp_path / "figures") == {"classes.png"}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--classes"], "RUN_DIR=null: --figure needs the runs to draw"),
        (["--classes", "older"], "run=older: must hold class_counts.csv"),
        (["--classes", "a", "damaged"], "run=damaged: class_counts.csv must not be damaged"),
    ],
)
def test_plot_of_classes_that_cannot_be_drawn_says_why(
    tmp_path: Path, arguments: list[str], told: str
) -> None:
    _with_counts(tmp_path / "a", "0,0,,5\n")
    _with_counts(tmp_path / "damaged", "zero\n")
    (tmp_path / "damaged" / "config.yaml").write_text(
        (tmp_path / "a" / "config.yaml").read_text().replace("seed: 0", "seed: 1")
    )
    make_run(tmp_path / "older")
    before = files(tmp_path)
    refused(plot(tmp_path, *arguments), told)
    assert files(tmp_path) == before
