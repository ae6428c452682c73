"""The command line as its users meet it: results, help, and one clear line for every mistake."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fedsplit
from fedsplit.cli.run import main
from fedsplit.cli.start import SUBCOMMANDS
from fedsplit.config.choices import CONFIGS, names_of
from fedsplit.errors import UserError
from fedsplit.recording.metrics import Record
from fedsplit.tasks.task import announcement
from fedsplit.training.experiment import Experiment
from tests.command_line import command_line, refusal
from tests.conftest import TINY, Configure

ONE_AT_ONCE = "hydra.launcher.n_jobs=1"  # the other core is another test's

WRONG = [
    (["rounds=abc"], "rounds=abc: must be a whole number greater than 0"),
    (["optimizer.lr=0"], "optimizer.lr=0: must be a number greater than 0"),
    (["optimizer.betas=[0.9]"], "optimizer.betas=[0.9]: must be a list, each a number from 0 to below 1"),
    (["cohort_size=11"], "cohort_size=11: must be at most num_clients, 10"),
    (["device=gpu"], "device=gpu: must be auto, cpu, cuda or cuda:N"),
    (["seed=3", "rounds=[1"], "rounds=[1: cannot be read; as text, its value is quoted: 'rounds=\"[1\"'\n"),
    (
        ["dataset.root=/my images (2)", "seed=3"],
        "dataset.root=/my images (2): cannot be read; as text, its value is quoted: "
        "'dataset.root=\"/my images (2)\"'\n",
    ),
    (
        ["rounds=3", "seed=0,1"],
        "seed=0,1: must be one value: several values are a sweep, which needs the flag -m; "
        "one list is 'seed=[0,1]', one text 'seed=\"0,1\"'\n",
    ),
    (["seed=3", "rounds"], "override=rounds: must be KEY=VALUE or GROUP=CHOICE\n"),
    (["optimizer.lr=.inf"], "optimizer.lr=.inf: must be a number greater than 0"),
    (
        ["optimizer=sgd", "optimizer.lr=1e39"],
        "optimizer.lr=1e+39: must be a number greater than 0, up to 3.4e+38",
    ),
    (["seed=null"], "seed=null: must be a whole number, 0 or greater"),
    (["progress=1"], "progress=1: must be true or false"),
    (["threads=10000000000"], "threads=10000000000: must be a whole number from 1 to 1024"),
]
"""Mistakes that composing and checking a configuration finds."""
MISTAKES = [
    (["algorithm=foo"], "algorithm=foo: no such choice; allowed: ampere, cse_fsl, cycle_sl, "),
    (["algorithm=fslsage"], "algorithm=fslsage: no such choice; did you mean fsl_sage? allowed: ampere, "),
    (["algorithm.local_rule=pro"], "algorithm.local_rule=pro: no such choice; did you mean prox? allowed: "),
    (["lr=0.1"], "lr=0.1: no such key; did you mean optimizer.lr? known: seed, "),
    (
        ["distribution.alpha=0.3"],
        "distribution.alpha=0.3: no such key of distribution=iid, but of dirichlet, extreme, ",
    ),
    (["rouds=3"], "rouds=3: no such key; did you mean rounds? known: seed, threads, "),
    (["algorithm.q=3"], "algorithm.q=3: no such key; known: local_rule, server_update_interval, "),
    (["+extra.key=3"], "extra={'key': 3}: no such key; known: "),
    (["rounds=-1"], "rounds=-1: must be a whole number greater than 0"),
    (["client_optimizer.lr=0.1"], "client_optimizer.lr=0.1: "),
    (["optimizer=sgd", "optimizer.nesterov=true"], "optimizer.nesterov=True: needs momentum above 0"),
    (
        ["resume={tmp}/nowhere"],
        "resume={tmp}/nowhere: must be the directory of a run: there is no such directory",
    ),
    (["resume={tmp}"], "resume={tmp}: must be the directory of a run: it holds no config.yaml"),
    (["num_clients=100000"], "num_clients=100000: must be at most 1438, the number of training samples"),
    (
        ["distribution=dirichlet", "distribution.alpha=0"],
        "distribution.alpha=0: must be a number greater than 0",
    ),
    (
        ["distribution=dirichlet", "distribution.min_samples=1000"],
        "distribution.min_samples=1000: must be at most 143",
    ),
    (
        ["distribution=shards", "distribution.classes_per_client=11"],
        "distribution.classes_per_client=11: must be from 1 to 10",
    ),
    (["model.cut=layer9"], "model.cut=layer9: not a part of this model; possible cuts: conv1, relu1, "),
    (
        ["dataset=image_folder", "dataset.root={tmp}/none"],
        "dataset.root={tmp}/none: is no folder; wanted are train/<class>/* and test/<class>/* in it",
    ),
    (
        ["dataset=image_folder", "dataset.root={tmp}"],
        "dataset.root={tmp}: has no folder train; wanted are train/<class>/* and test/<class>/* in it",
    ),
    (
        ["dataset=cifar10", "dataset.root={tmp}", "dataset.download=false"],
        "dataset.root={tmp}: cifar10 is not there or damaged; dataset.download=true fetches it",
    ),
    (["dataset.max_train=5"], "dataset.max_train=5: must be at least 10: one sample for each class"),
    (["hydra.run.dir={tmp}/file/below"], "hydra.run.dir={tmp}/file/below: cannot be made (Not a directory)"),
    (["device=cuda:99"], "device=cuda:99: must be "),
    (["estimator=mlp_regression", "algorithm.warm_start=1"], "algorithm.warm_start=1: must be 0"),
    (["-m", "seed=0,1", "run=it's"], "run=it's: cannot be read; as text, its value is quoted: "),
    (["-m", "seed=range(0,x)"], "seed=range(0,x): cannot be read (TypeError while evaluating 'range(0,x)'"),
    (
        ["optimizer=glob(adam*)"],
        "optimizer=glob(adam*): must be one value: several values are a sweep, which needs the flag -m\n",
    ),
    (["=3"], "override==3: must be KEY=VALUE or GROUP=CHOICE\n"),
    (["seed=3", "+algorithm=fed_avg"], "+algorithm=fed_avg: is chosen already; "),
    (["rounds=3", "~seed=5"], "~seed=5: Could not delete"),
    (["--cfg", "job", "rounds=["], "rounds=[: cannot be read"),
    (["--cfg", "job", "algorithm=foo"], "algorithm=foo: no such choice; allowed: ampere, cse_fsl, "),
    (["hydra.job.chdir=true"], "hydra.job.chdir=True: a run stays in the directory of its command; "),
    (["-m", "seed=0,1", "hydra.job.chdir=true"], "hydra.job.chdir=True: a run stays in the directory"),
    (["--config-name=mine"], "flag=--config-name=mine: the configuration is hydra_config/config.yaml; "),
    (["-h", "-cn", "mine"], "flag=-cn: the configuration is hydra_config/config.yaml; "),
    (["rouds=3", "fooo=4"], "fooo=4: no such key; known: seed, "),
    (["+client_optimizer.lr=0.1"], "client_optimizer._target_=null: is missing"),
    (
        ["~optimizer.lr"],
        "optimizer._target_=fedsplit.optim.optimizers.Adam: missing a required argument",
    ),
    (["~algorithm._target_"], "algorithm._target_=null: is missing"),
    (["~auxiliary.optimizer._target_"], "auxiliary.optimizer._target_=null: "),
    (["algorithm._target_=builtins.dict"], "algorithm._target_=builtins.dict: must be an Algorithm"),
    (
        ["estimator._target_=fedsplit.optim.schedules.Constant"],
        "estimator._target_=fedsplit.optim.schedules.Constant: must make a",
    ),
    (
        ["auxiliary._target_=fedsplit.models.zoo.resnet.ResNetAuxiliary"],
        "auxiliary._target_=fedsplit.models.zoo.resnet.",
    ),
    (
        ["client_optimizer=sgd", "client_optimizer.nesterov=true"],
        "client_optimizer.nesterov=True: needs momentum",
    ),
    (
        ["optimizer@auxiliary.optimizer=sgd", "auxiliary.optimizer.nesterov=true"],
        "auxiliary.optimizer.nesterov=True: ",
    ),
    (["model=resnet18", "batch_size=1"], "batch_size=1: makes batches of one sample"),
    (
        ["model=resnet18", "auxiliary.align_batch_size=1"],
        "auxiliary.align_batch_size=1: makes batches of one",
    ),
    (["model.num_classes=7"], "model.num_classes=7: no such key"),
    (["+model.num_classes=7"], "model.num_classes=7: no such key: it is given by the run itself"),
    (
        ["dataset.crop_padding=100000"],
        "dataset.crop_padding=100000: must be at most 8, the side of the images in pixels",
    ),
    (["hydra.run.dir=x/${nokey}"], "hydra.run.dir=?: "),
    (["hydra.run.dir="], "hydra.run.dir='': must name a directory"),
    (["-m", "seed=0,1", "hydra.sweep.dir="], "hydra.sweep.dir='': must name a directory"),
    (
        ["hydra.run.dir=~nobody-of-this-name"],
        "hydra.run.dir=~nobody-of-this-name: begins with ~ and names no",
    ),
    (["hydra.mode=MULTIRUN"], "hydra.mode=MULTIRUN: must be RUN: a sweep needs the flag -m"),
    (["--run"], "flag=--run: must be one of "),
    (["++resume={tmp}"], "resume={tmp}: stands by itself"),
    (["resume=1e3"], "resume=1e3: must be the directory of a run"),
    (["-m", "resume={tmp}", "seed=0,1"], "resume={tmp}: must be null with -m: a run is resumed by itself"),
    (
        ["seed=3", "optimizer=null"],
        "optimizer=null: no such choice; allowed: adam, adamw, sgd; "
        "a choice of your own is found with --config-dir=DIRECTORY\n",
    ),
    (["-m", "algorithm=fed_avg,foo"], "algorithm=foo: no such choice; allowed: "),
    (
        ["dataset=cifar10", "dataset.root={tmp}/typo/x", "dataset.download=false"],
        "dataset.root={tmp}/typo/x: cifar10",
    ),
    (["-m", "task=cuts", "seed=0,1"], "task=cuts: must not be swept: it leaves no run behind"),
    (["-m", "optimizer.lr=interval(0,1)"], "optimizer.lr=interval(0,1): a sweep takes a list"),
    (["-m", "seed=0,1", "sweep.skip_finished=1"], "sweep.skip_finished=1: must be true or false"),
    (["sweep.skip_finished=true"], "sweep.skip_finished=True: must be false without -m: it is for sweeps"),
    (["-m", "seed=0,1", "hydra.sweep.subdir=x"], "hydra.sweep.subdir=x: must be another one for each job"),
    (["-m", "seed=0,1", "hydra.launcher.n_jobs=0"], "hydra.launcher.n_jobs=0: must be a whole number"),
    (["-m", "seed=0,1", "rounds=0,1"], "rounds=0: must be a whole number greater than 0"),
    (
        ["model._target_=fedsplit.models.nothing"],
        "model._target_=fedsplit.models.nothing: must be the dotted path of a",
    ),
    (
        ["model._target_=nowhere.Net"],
        "model._target_=nowhere.Net: Error loading 'nowhere.Net': ModuleNotFoundError",
    ),
]
"""Mistakes of command lines: one that composing finds, and those that only a command finds."""


def _of_composing(arguments: list[str], message: str) -> bool:
    """Whether a mistake is found in composing, or before or beside that; others, in one configuration."""
    first = arguments[0]
    others = first.startswith(("-", "+", "~", "=", "hydra.", "resume=", "sweep.")) or "(" in first
    return others or ": no such " in message or arguments in (["rounds=-1"], ["num_clients=100000"])


@pytest.mark.parametrize(
    ("arguments", "message"), WRONG, ids=lambda v: " ".join(v) if isinstance(v, list) else ""
)
def test_configuration_with_a_mistake_is_refused_in_one_line(
    arguments: list[str], message: str, configured: Configure
) -> None:
    with pytest.raises(UserError) as caught:
        configured(*arguments)
    assert f"{caught.value}\n".startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [each for each in MISTAKES if not _of_composing(*each)],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_run_with_a_mistake_is_refused_in_one_line_and_nothing_written(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    told = refusal(*(each.replace("{tmp}", str(tmp_path)) for each in arguments), directory=tmp_path / "run")
    assert f"{told}\n".startswith(message.replace("{tmp}", str(tmp_path)))
    assert "\n" not in told
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [each for each in MISTAKES if _of_composing(*each)],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_command_with_a_mistake_ends_with_one_clear_line_and_nothing_written(
    tmp_path: Path,
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").write_text("")
    given = [argument.replace("{tmp}", str(tmp_path)) for argument in arguments]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["main.py", *given])
    code, (stdout, stderr) = main(), capsys.readouterr()
    assert code == 2, stderr
    assert stderr.startswith("error: " + message.replace("{tmp}", str(tmp_path)))
    assert stderr.count("\n") == 1
    assert stdout == ""
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


WORDS = [
    (["rounds", "5"], "override=rounds: must be KEY=VALUE or GROUP=CHOICE; did you mean rounds=5?"),
    (
        ["batch_size", "=", "16"],
        "override=batch_size: must be KEY=VALUE or GROUP=CHOICE; did you mean batch_",
    ),
    (["algorithm", "cse_fsl"], "override=algorithm: must be KEY=VALUE or GROUP=CHOICE; did you mean algor"),
    (
        ["attack", "run=saves/a"],
        "override=attack: must be KEY=VALUE or GROUP=CHOICE; did you mean task=attack?",
    ),
    (["list"], "override=list: must be KEY=VALUE or GROUP=CHOICE; did you mean python main.py ls?"),
    (["help"], "override=help: must be KEY=VALUE or GROUP=CHOICE; did you mean python main.py --help?"),
    (
        ["-m", "seed=0", "1"],
        "override=1: must be KEY=VALUE or GROUP=CHOICE; python main.py --help lists both",
    ),
    (["--rounds=5"], "flag=--rounds=5: must be one of --cfg"),
    (["resume="], "resume=: must name the directory of a run, as resume=saves/..."),
    (["algorithm=FSL-SAGE"], "algorithm=FSL-SAGE: no such choice; did you mean fsl_sage? allowed: "),
    (["algorithm=SplitFed"], "algorithm=SplitFed: no such choice; did you mean splitfed_v1? allowed: "),
    (["dataset=CIFAR"], "dataset=CIFAR: no such choice; did you mean cifar10? allowed: "),
    (["model=resnet"], "model=resnet: no such choice; did you mean resnet"),
]
"""Words of newcomers, and the beginning of what they are told."""


@pytest.mark.parametrize(
    ("arguments", "message"), WORDS, ids=lambda v: " ".join(v) if isinstance(v, list) else ""
)
def test_words_that_are_no_overrides_are_told_with_what_may_have_been_meant(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["main.py", *arguments])
    assert main() == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: {message}")
    assert told.count("\n") == 1
    if arguments == ["--rounds=5"]:
        assert told.endswith("; did you mean rounds=5, without dashes?\n")


def test_version_is_that_of_the_package(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["main.py", "--version"])
    assert main() == 0
    assert capsys.readouterr().out == f"fedsplit {fedsplit.__version__}\n"


def test_command_with_a_mistake_ends_with_exit_code_2(root: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(root / "main.py"), "rounds=abc"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "error: rounds=abc: must be a whole number greater than 0\n"
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_resume_without_an_undamaged_checkpoint_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    assert command_line(*TINY, "checkpoint_interval=1", f"hydra.run.dir={directory}").returncode == 0
    before = (directory / "metrics.csv").read_bytes()
    for file in directory.glob("checkpoint/*/state.json"):
        file.write_bytes(file.read_bytes().replace(b"1", b"2", 1))
    done = command_line(f"resume={directory}")
    assert done.returncode == 2
    assert (
        done.stderr == f"error: resume={directory}: no undamaged checkpoint left in {directory}/checkpoint\n"
    )
    assert (directory / "metrics.csv").read_bytes() == before


def test_resume_with_a_fixed_key_and_a_run_in_a_used_directory_are_refused(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    first = command_line(*TINY, "rounds=1", f"hydra.run.dir={directory}")
    assert first.stdout.splitlines()[-1] == str(directory)
    seed = command_line(f"resume={directory}", "seed=3")
    assert (seed.returncode, seed.stderr) == (
        2,
        "error: seed=3: beside resume only rounds, comm_threshold_mb, time_limit_s, target_accuracy, "
        "target_perplexity, device, cuda_graphs, progress, tracker, cluster, trust, dataset.root, "
        "dataset.tokenizer_files may be given\n",
    )
    again = command_line(*TINY, f"hydra.run.dir={directory}")
    assert again.returncode == 2
    assert again.stderr.startswith(f"error: hydra.run.dir={directory}: holds a run already; resume=")


def test_diverged_run_ends_with_exit_code_3_and_one_line(tmp_path: Path) -> None:
    done = command_line(*TINY, "optimizer=sgd", "optimizer.lr=1e30", cwd=tmp_path)
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: round 0: ")
    assert re.search(r"of client \d is not finite; learning rate 1e\+30", done.stderr)


def test_finished_run_leaves_the_files_that_the_readme_names(tmp_path: Path) -> None:
    done = command_line(*TINY, "algorithm=sl_single_server", cwd=tmp_path)
    assert done.returncode == 0
    directory = tmp_path / done.stdout.splitlines()[-1]
    assert directory.relative_to(tmp_path).parts[:5] == (
        "saves",
        "sl_single_server",
        "digits_cnn",
        "digits",
        "iid",
    )
    names = {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}
    checkpoint = {
        f"checkpoint/round-000003/{name}"
        for name in (
            "state.safetensors",
            "state.json",
            "SHA256SUMS",
            *(f"client-{i}.safetensors" for i in range(3)),
        )
    }
    model = {"model/client.safetensors", "model/server.safetensors"}
    tables = {"class_counts.csv", "metrics.csv", "confusion.csv", "roc.csv"}
    assert names == {"config.yaml", "run.log", "results.json"} | tables | checkpoint | model
    header = (directory / "metrics.csv").read_text().splitlines()[0].split(",")
    assert header[:6] == ["round", "test_accuracy", "test_loss", "test_perplexity", "train_loss", "load"]
    results = json.loads((directory / "results.json").read_text())
    assert results["parameters"] == {"client": 1248, "server": 17098, "auxiliary": 0}
    expected = {"final_accuracy", "best_accuracy", "load", "rounds_run", "stopped_by", "bytes_to_accuracy"}
    assert expected | {"seconds_to_accuracy", "parameters", "versions"} <= results.keys()
    assert "torch" in results["versions"]


def test_older_spelling_of_a_distribution_trains_the_same_model_as_the_group(tmp_path: Path) -> None:
    pairs = [["dataset.distribution=noniid_dirichlet", "dataset.alpha=0.3"], ["distribution=dirichlet"]]
    models = []
    for number, spelling in enumerate(pairs):
        directory = tmp_path / str(number)
        assert command_line(*TINY, "rounds=1", *spelling, f"hydra.run.dir={directory}").returncode == 0
        models.append((directory / "model/client.safetensors").read_bytes())
    assert models[0] == models[1]


@pytest.mark.long  # tests/sweeps compares jobs with runs alone in every run
def test_sweep_trains_the_model_of_each_combination_run_alone(tmp_path: Path) -> None:
    jobs = ["rounds=1", "algorithm=cse_fsl,fed_avg", "seed=1"]
    done = command_line(*TINY, "-m", ONE_AT_ONCE, *jobs, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    sweep = tmp_path / done.stdout.splitlines()[-1]
    folders = sorted(path.name for path in sweep.iterdir() if path.is_dir())
    assert folders == [".jobs", "0", "1"]
    alone = command_line(
        *TINY, "rounds=1", "algorithm=fed_avg", "seed=1", f"hydra.run.dir={tmp_path / 'alone'}"
    )
    assert alone.returncode == 0
    for name in ("client", "server"):
        file = f"model/{name}.safetensors"
        assert (sweep / "1" / file).read_bytes() == (tmp_path / "alone" / file).read_bytes()


@pytest.mark.long  # tests/sweeps has such a sweep in every run
def test_sweep_with_failing_jobs_names_them_and_runs_the_others(tmp_path: Path) -> None:
    overrides = ["rounds=1", "optimizer=sgd", "optimizer.lr=0.01,1e30", "num_clients=3,1000"]
    done = command_line(*TINY, "-m", ONE_AT_ONCE, *overrides, cwd=tmp_path)
    assert done.returncode == 3
    sweep = done.stdout.splitlines()[-1]
    *told, last = done.stderr.splitlines()
    assert last == f"error: 3 of 4 jobs failed; the others are in {sweep}"
    assert len(told) == 3
    assert (
        sum(
            line.endswith(": num_clients=1000: must be at most 130, the number of training samples")
            for line in told
        )
        == 2
    )
    assert sum(": round 0: " in line and "learning rate 1e+30" in line for line in told) == 1
    finished = list((tmp_path / sweep).glob("*/results.json"))
    assert [path.parent.name for path in finished] == ["0"]
    folders = sorted(path.name for path in (tmp_path / sweep).iterdir() if path.is_dir())
    assert folders == [".jobs", "0", "2"]  # nothing of those that could not begin


def test_sweep_into_a_directory_with_a_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sweep/0").mkdir(parents=True)
    (tmp_path / "sweep/0/config.yaml").write_text("seed: 1")
    done = command_line(*TINY, "-m", "seed=0,1", f"hydra.sweep.dir={tmp_path / 'sweep'}")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: hydra.sweep.dir={tmp_path / 'sweep'}: holds a run already")


def test_help_and_mistakes_are_told_before_anything_heavy_is_imported(root: Path) -> None:
    probe = (
        "import atexit, sys; from fedsplit.cli.start import run; "
        "heavy = lambda: {'torch', 'numpy', 'sklearn', 'torchvision'} & set(sys.modules); "
        "atexit.register(lambda: print(heavy(), file=sys.stderr)); sys.exit(run())"
    )

    def told(argument: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-c", probe, argument]
        return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)

    shown = told("--help")
    assert (shown.returncode, shown.stderr) == (0, "set()\n")
    assert "algorithm: ampere, cse_fsl, cycle_sl" in shown.stdout
    assert "python main.py resume=" in shown.stdout
    examples = shown.stdout.partition("Groups and their choices")[0]
    for task in set(names_of("task")) - {"train"}:  # which is what is done without a word
        assert f" task={task} " in examples, task
    for word in SUBCOMMANDS:
        assert f"main.py {word} " in examples, word
    for group in {path.name for path in CONFIGS.iterdir() if path.is_dir()} - {"hydra"}:
        assert f"\n{group}: " in shown.stdout, group
    mistaken = told("rounds=-1")
    assert (mistaken.returncode, mistaken.stderr.splitlines()[-1]) == (2, "set()")


def test_run_imports_no_compiler_and_nothing_else_that_it_does_not_need(root: Path, tmp_path: Path) -> None:
    """Each takes a third of a second or more of every start."""
    unneeded = "{'torch._dynamo', 'sympy', 'scipy', 'sklearn', 'PIL', 'pandas', 'matplotlib', 'grpc'}"
    probe = (
        "import sys; from fedsplit.cli.start import run; code = run(); "
        f"print({unneeded} & set(sys.modules), file=sys.stderr); sys.exit(code)"
    )
    command = [sys.executable, "-c", probe, *TINY, "algorithm=fsl_sage", f"hydra.run.dir={tmp_path / 'run'}"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "set()\n")


def test_run_on_a_terminal_says_what_and_where_to_before_anything_heavy_is_imported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["main.py", "algorithm=cse_fsl", "hydra.run.dir=here"])
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setitem(sys.modules, "fedsplit.tasks.task", None)  # what is imported before torch
    with pytest.raises(ImportError):
        main()
    assert capsys.readouterr().out == "cse_fsl: digits_cnn on digits (iid), to here\n"


def test_what_is_announced_is_the_task_its_subject_and_where_results_go(configured: Configure) -> None:
    def told(*overrides: str) -> str:
        return announcement(Path("saves/here"), configured(*overrides))

    assert told("model=resnet20") == "fsl_sage: resnet20 on digits (iid), to saves/here"
    assert told("task=cuts", "dataset=cifar10") == "cuts: digits_cnn on cifar10"
    assert told("task=compare", "run=saves/x") == "compare: saves/x, to saves/x/compare"
    assert told("task=infer", "run=saves/x") == "infer: saves/x, to saves/here"


def test_ctrl_c_names_the_whole_command_that_goes_on_with_the_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["main.py", *TINY, "hydra.run.dir=my run"])

    def interrupted(experiment: Experiment, t: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Experiment, "run_round", interrupted)
    assert main() == 130
    assert capsys.readouterr().err == "interrupted; go on with: python main.py 'resume=my run'\n"


def test_ctrl_c_before_a_run_has_begun_names_no_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "argv", ["main.py"])
    monkeypatch.setattr("fedsplit.cli.single.perform", interrupted)
    assert main() == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_ctrl_c_names_the_whole_command_that_goes_on_with_a_sweep(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["main.py", "-m", "seed=choice(0,1)", "hydra.sweep.dir=here"])
    monkeypatch.setattr("fedsplit.sweeps.sweep._run", interrupted)
    assert main() == 130
    again = (
        "python main.py -m 'seed=choice(0,1)' 'hydra.sweep.dir='\"'\"'here'\"'\"'' sweep.skip_finished=true"
    )
    out, err = capsys.readouterr()
    assert out == "2 of 2 jobs to run, to here\n"
    assert err == f"interrupted; go on with: {again}\n"


def test_run_in_a_file_says_how_it_began_and_how_it_stands_and_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["main.py", *TINY, "progress=true", "rounds=3", "hydra.run.dir=here"])
    assert main() == 0
    first, last, *_, where = capsys.readouterr().out.splitlines()
    assert first == "3 rounds, 3 clients, on cpu; saved in here"
    assert last.startswith("round    2  accuracy ")
    assert where == "here"
    log = (tmp_path / "here/run.log").read_text()
    assert log.count("  3 clients aligned\n") == log.count("clients aligned") >= 1

    monkeypatch.setattr(sys, "argv", ["main.py", "resume=here"])
    assert main() == 0
    finished, *lines, where = capsys.readouterr().out.splitlines()
    assert finished == (
        "here has finished after 3 rounds, stopped by rounds; nothing is left to do; "
        "to train further give it a larger rounds: python main.py resume=here rounds=6"
    )
    assert not any("going on" in line for line in lines)
    assert where == "here"


def test_failed_run_names_the_whole_command_that_goes_on_with_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train = Experiment.run_round

    def failing(experiment: Experiment, t: int) -> Record:
        if t == 1:
            raise OSError(28, "No space left on device")
        return train(experiment, t)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["main.py", *TINY, "checkpoint_interval=1", "hydra.run.dir=here"])
    monkeypatch.setattr(Experiment, "run_round", failing)
    assert main() == 3
    told = "; the checkpoint after 1 round is kept: python main.py resume=here\n"
    assert capsys.readouterr().err.endswith(told)


@pytest.mark.parametrize("script", ["main.py", "plot_results.py"])
def test_python_without_the_package_is_told_where_it_is(script: str) -> None:
    bare = [sys.executable, "-E", "-s", "-S", str(Path(__file__).parents[2] / script)]
    ended = subprocess.run(bare, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert re.fullmatch(r"error: .* has no fedsplit: .*source \.venv/bin/activate.*\n", ended.stderr)
