"""Experiments for benchmarks, built as a command line builds them, and the time that work takes."""

import gc
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hydra import initialize_config_dir

from benchmarks.synthetic import Same, SyntheticImages
from fedsplit.building.process import prepare_process
from fedsplit.config.choices import CONFIGS
from fedsplit.config.component import component_of
from fedsplit.config.compose import compose_config, run_config
from fedsplit.config.overrides import spell_out
from fedsplit.training.experiment import Experiment

ALGORITHMS = ("fed_avg", "splitfed_v1", "splitfed_v2", "cse_fsl", "fsl_sage")


MLP = ("model._target_=benchmarks.peers.models.mlp", "model.cut=relu", "auxiliary=linear")


def build(*overrides: str, noise: dict[str, Any] | None = None, same: int | None = None) -> Experiment:
    """An experiment from overrides.

    Args:
        overrides: as on a command line.
        noise: arguments of `SyntheticImages` to train on, if any.
        same: samples of each client (see `Same`), if not all are to be divided.
    """
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = run_config(compose_config([each for override in overrides for each in spell_out(override)]))
    if noise is not None:
        config = replace(config, dataset=component_of("dataset", SyntheticImages, **noise))
    if same is not None:
        config = replace(config, distribution=component_of("distribution", Same, samples=same))
    prepare_process(config)
    return Experiment(config)


def one_round(run: Experiment, t: int) -> None:
    """Round `t` of an experiment, without evaluation."""
    run.algorithm.run_round(t, run.transport.cohort(t, run.parts.cohort_of(t)))
    run.rounds.forget()


def seconds(work: Callable[[], Any]) -> float:
    """Seconds that `work` takes, without garbage collection, as `timeit` measures."""
    gc.collect()
    gc.disable()
    try:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start
    finally:
        gc.enable()
