"""Runs from Python: the same as from a command line, and a process that is afterwards as it was before."""

import csv
import logging
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from safetensors.torch import load_file

import fedsplit
from fedsplit.training.experiment import Experiment
from tests.command_line import command_line
from tests.conftest import TINY

LIGHT = """
import sys
import fedsplit
assert not {"torch", "hydra", "yaml", "numpy"} & sys.modules.keys()
fedsplit.compose("algorithm=cse_fsl")
try:
    fedsplit.run(rounds=-1)
except fedsplit.UserError:
    pass
assert not {"torch", "numpy", "pandas"} & sys.modules.keys()
assert set(fedsplit.__all__) <= set(dir(fedsplit))
assert all(getattr(fedsplit, name).__doc__ for name in fedsplit.__all__)
"""


@pytest.fixture(scope="module", autouse=True)
def _everything_is_imported(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Libraries set variables of the environment when a first run imports them."""
    import_module("fedsplit.transport.grpc.server.transport")
    train(tmp_path_factory.mktemp("first") / "run", rounds=1)


def train(directory: Path, *overrides: str, **given: Any) -> fedsplit.RunResults:
    return fedsplit.run(*TINY, *overrides, **{"hydra.run.dir": directory, "rounds": 2} | given)


def hashes(directory: Path) -> tuple[dict[str, bytes], list[dict[str, str]]]:
    """What a run computed: the bytes of its models, and its metrics without seconds."""
    models = {path.name: path.read_bytes() for path in directory.glob("model/*")}
    with (directory / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return models, [{k: v for k, v in row.items() if not k.startswith("seconds.")} for row in rows]


def state_of_the_process() -> dict[str, Any]:
    log, cudnn = logging.getLogger("fedsplit"), torch.backends.cudnn
    logs = [log, logging.getLogger("fedsplit.network"), logging.getLogger()]
    return {
        "hydra": GlobalHydra.instance().hydra,
        "logs": [(each.level, list(each.handlers), each.propagate, list(each.filters)) for each in logs],
        "threads": torch.get_num_threads(),
        "flags": (cudnn.deterministic, cudnn.benchmark, cudnn.fp32_precision),
        "products": torch.backends.cuda.matmul.fp32_precision,
        "type": torch.get_default_dtype(),
        "gradients": torch.is_grad_enabled(),
        "draws": (torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()),
        "signals": [signal.getsignal(each) for each in sorted(signal.valid_signals())],
        "directory": os.getcwd(),
        "environment": dict(os.environ),
        "arguments": (list(sys.argv), list(sys.path)),
        "outputs": (sys.stdout, sys.stderr),
    }


@contextmanager
def unusual_process() -> Iterator[None]:
    """A process with settings that no run makes."""
    cudnn, threads = torch.backends.cudnn, torch.get_num_threads()
    before = (cudnn.deterministic, cudnn.benchmark, cudnn.fp32_precision)
    torch.set_num_threads(2)
    cudnn.deterministic, cudnn.benchmark, cudnn.fp32_precision = False, True, "tf32"
    torch.manual_seed(1234)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        cudnn.deterministic, cudnn.benchmark, cudnn.fp32_precision = before


def test_run_computes_what_the_command_does_and_leaves_the_process_as_it_was(tmp_path: Path) -> None:
    rows: list[Mapping[str, Any]] = []
    with unusual_process():
        before = state_of_the_process()
        results = train(tmp_path / "one", "quant=int8", callback=rows.append, **{"optimizer.lr": 0.01})
        again = train(tmp_path / "two", "optimizer.lr=0.01", quant="int8")
        assert state_of_the_process() == before
    same = ["quant=int8", "optimizer.lr=0.01", "rounds=2", f"hydra.run.dir={tmp_path / 'c'}"]
    done = command_line(*TINY, *same)
    assert done.returncode == 0, done.stderr
    assert hashes(results.directory) == hashes(again.directory) == hashes(tmp_path / "c")
    assert results.metrics == [dict(row) for row in rows]
    assert [row["round"] for row in rows] == [0, 1]


@pytest.mark.usefixtures("warm_processes")
def test_run_over_grpc_in_another_thread_is_that_of_one_process(tmp_path: Path) -> None:
    alone = train(tmp_path / "alone", engine="sequential", num_clients=2)
    with unusual_process(), ThreadPoolExecutor(1) as thread:
        before = state_of_the_process()
        over_grpc = thread.submit(train, tmp_path / "grpc", transport="grpc", num_clients=2).result()
        assert state_of_the_process() == before
    assert hashes(over_grpc.directory) == hashes(alone.directory)


def test_runs_in_other_threads_take_turns_and_compute_the_same(tmp_path: Path) -> None:
    alone = train(tmp_path / "alone", rounds=1, seed=1)
    before = GlobalHydra.instance().hydra
    with ThreadPoolExecutor(3) as threads:
        several = threads.map(lambda seed: train(tmp_path / str(seed), seed=seed, rounds=1), range(3))
        assert [each.config["seed"] for each in several] == [0, 1, 2]
    assert GlobalHydra.instance().hydra is before
    assert hashes(tmp_path / "1") == hashes(alone.directory)


def test_results_are_read_back_from_the_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = train(tmp_path / "run", algorithm="splitfed_v1", rounds=3, eval_interval=2)
    monkeypatch.chdir(tmp_path)
    loaded = fedsplit.load_run("run")
    assert loaded == ran
    assert loaded.directory == tmp_path / "run"
    assert loaded.config["choices"]["algorithm"] == "splitfed_v1"
    assert [row["test_accuracy"] is None for row in loaded.metrics] == [True, False, False]
    assert loaded.results is not None
    assert loaded.results["final_accuracy"] == loaded.metrics[-1]["test_accuracy"]
    assert loaded.results["load"] == loaded.metrics[-1]["load"]
    assert isinstance(loaded.metrics[-1]["load"], int)
    files = {path.stem: load_file(path) for path in (tmp_path / "run/model").iterdir()}
    assert files.keys() == loaded.models.keys() == {"client", "server"}
    for name, weights in files.items():
        assert weights.keys() == loaded.models[name].keys()
        assert all(torch.equal(weights[key], loaded.models[name][key]) for key in weights)
    assert "metrics" not in repr(loaded)


def test_metrics_become_a_frame_where_pandas_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = fedsplit.RunResults(tmp_path, {}, [{"round": 0, "load": 3}], None)
    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=lambda rows: ("frame", rows)))
    assert results.to_pandas() == ("frame", [{"round": 0, "load": 3}])
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(fedsplit.UserError, match="to_pandas=pandas: is not installed: pip install pandas"):
        results.to_pandas()


def test_runs_below_a_folder_are_rows_of_a_frame_with_their_settings(tmp_path: Path) -> None:
    for seed in (1, 0):
        train(tmp_path / "runs" / f"seed-{seed}", rounds=2, seed=seed, algorithm="fed_avg")
    runs = fedsplit.load_runs(tmp_path / "runs", tmp_path / "runs/seed-*")
    assert [run.directory.name for run in runs] == ["seed-0", "seed-1"]
    rows = [{**run.settings, **row} for run in runs for row in run.metrics]
    assert [(row["seed"], row["round"]) for row in rows] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    told = {"algorithm": "fed_avg", "quant": "none", "quant.weights.up": "none", "optimizer.lr": 0.001}
    assert told.items() <= rows[0].items()
    with pytest.raises(fedsplit.UserError, match=r"none: holds no run, with config\.yaml and metrics\.csv"):
        fedsplit.load_runs(tmp_path / "runs", tmp_path / "none")


def test_error_of_a_callback_ends_the_run_which_is_gone_on_with_to_the_same_result(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", rounds=3)

    def full(row: Mapping[str, Any]) -> None:
        if row["round"] == 1:
            raise OSError(28, "the disk of the callback is full")

    with pytest.raises(OSError, match="the disk of the callback is full"):
        train(tmp_path / "ended", rounds=3, checkpoint_interval=1, callback=full)
    unended = fedsplit.load_run(tmp_path / "ended")
    assert (unended.results, unended.models, len(unended.metrics)) == (None, {}, 2)
    rows: list[Mapping[str, Any]] = []
    resumed = fedsplit.run(resume=tmp_path / "ended", callback=rows.append)
    assert [row["round"] for row in rows] == [2]
    assert hashes(resumed.directory) == hashes(whole.directory)
    longer = fedsplit.run(f"resume={tmp_path / 'ended'}", rounds=4, progress=False)
    assert longer.directory == tmp_path / "ended"
    assert len(longer.metrics) == 4


@pytest.mark.parametrize(
    ("overrides", "values", "told"),
    [
        (["rouds=3"], {}, "rouds=3: no such key; did you mean rounds?"),
        ([], {"optimizer.lr": -1}, "optimizer.lr=-1: must be a number greater than 0"),
        ([], {"algorithm": "foo"}, "algorithm=foo: no such choice; allowed: ampere, cse_fsl, "),
        ([], {"rounds": object}, "rounds=<class 'object'>: must be None, a truth value, a number, "),
        (["seed=0,1"], {}, "seed=0,1: must be one value: several values are a sweep"),
        (["-m", "seed=0,1"], {}, "override=-m: must be KEY=VALUE"),
        (["task=cuts"], {}, "task=cuts: leaves no run behind; it is done by: python main.py task=cuts ..."),
        ([], {"resume": "nowhere (2)"}, "resume=nowhere (2): must be the directory of a run"),
        ([], {"config_dir": "nowhere"}, "--config-dir=nowhere: there is no such directory"),
    ],
)
def test_mistake_is_an_error_that_names_it_and_nothing_is_written(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    overrides: list[str],
    values: dict[str, Any],
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    before = state_of_the_process()
    with pytest.raises(fedsplit.UserError) as raised:
        fedsplit.run(*overrides, **values)
    assert str(raised.value).startswith(told)
    assert state_of_the_process() == before
    assert list(tmp_path.iterdir()) == []


def test_run_that_diverges_raises_and_leaves_the_process_as_it_was(tmp_path: Path) -> None:
    with unusual_process():
        before = state_of_the_process()
        with pytest.raises(fedsplit.RunFailed, match="is not finite; learning rate 1e\\+30"):
            train(tmp_path / "run", optimizer="sgd", **{"optimizer.lr": 1e30})
        assert state_of_the_process() == before
    with pytest.raises(fedsplit.UserError, match="must be the directory of a run"):
        fedsplit.load_run(tmp_path / "nowhere")


def test_interrupted_run_is_interrupted_with_the_command_that_goes_on_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(experiment: Experiment, t: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Experiment, "run_round", interrupted)
    before = state_of_the_process()
    with pytest.raises(KeyboardInterrupt, match=f"resume={tmp_path / 'run'}"):
        train(tmp_path / "run")
    assert state_of_the_process() == before


def test_composed_configuration_is_that_of_the_run(tmp_path: Path) -> None:
    given = {"hydra.run.dir": tmp_path / "run", "quant.smashed": "sign", "optimizer.betas": [0.5, 0.9]}
    overrides = (*TINY, "dataset.alpha=0.3", "device=cpu", "engine=sequential")
    composed = fedsplit.compose(*overrides, distribution="noniid_dirichlet", rounds=1, **given)
    assert list(tmp_path.iterdir()) == []
    assert composed.optimizer.arguments["betas"] == [0.5, 0.9]
    assert composed.distribution.arguments["alpha"] == 0.3
    ran = fedsplit.run(*overrides, distribution="noniid_dirichlet", rounds=1, **given)
    assert composed.plain() == ran.config


def test_import_and_mistakes_import_nothing_heavy_and_everything_named_is_there(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIGHT], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = fedsplit.nothing  # type: ignore[attr-defined]


def test_choices_of_ones_own_are_found_for_this_run_alone(tmp_path: Path) -> None:
    (tmp_path / "own" / "optimizer").mkdir(parents=True)
    own = "defaults: [adam, _self_]\nlr: 0.5\n"
    (tmp_path / "own" / "optimizer" / "fast.yaml").write_text(own)
    results = train(tmp_path / "run", optimizer="fast", rounds=1, config_dir=tmp_path / "own")
    assert results.config["optimizer"]["lr"] == 0.5
    with pytest.raises(fedsplit.UserError, match="optimizer=fast: no such choice"):
        fedsplit.compose(optimizer="fast")
