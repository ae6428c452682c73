"""Hands jobs to the launcher that was chosen: joblib's pool, a cluster, or one after the other."""

from collections.abc import Sequence
from importlib import import_module
from traceback import walk_tb

from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.types import HydraContext
from omegaconf import DictConfig

from fedsplit.errors import UserError
from fedsplit.machine.extras import extra
from fedsplit.sweeps import job
from fedsplit.sweeps.job import LaunchedJobs


def check_installed(overrides: Sequence[str]) -> None:
    """Raise `UserError` where a launcher is chosen whose extra is not installed."""
    for override in overrides:
        key, _, launcher = override.partition("=")
        if key == "hydra/launcher" and launcher.startswith("submitit"):
            with extra(key, launcher):
                import_module("submitit")


def check_launcher(launcher: DictConfig) -> None:
    """Raise `UserError` where a launcher is to run no job at a time."""
    at_once = launcher.get("n_jobs", -1)  # other launchers have none
    if at_once < -1 or at_once == 0:
        message = "must be a whole number greater than 0, or -1: all cores"
        raise UserError("hydra.launcher.n_jobs", at_once, message)


def launch(config: DictConfig, function: LaunchedJobs, overrides: Sequence[Sequence[str]]) -> None:
    """Run jobs to their ends; to be called while composing (see `fedsplit.config.compose.composing`).

    Args:
        config: configuration, with Hydra's own under `hydra`: the launcher and the sweep's directory.
    """
    launcher = config.hydra.launcher
    if launcher.get("n_jobs", -1) > 0:
        launcher.n_jobs = min(launcher.n_jobs, len(overrides))  # no process without a job
    context = HydraContext(config_loader=GlobalHydra.instance().config_loader(), callbacks=Callbacks(config))
    made = Plugins.instance().instantiate_launcher(
        hydra_context=context, task_function=function, config=config
    )
    try:
        made.launch([list(each) for each in overrides], initial_job_idx=0)
    except Exception as error:
        _await_submitted(error)
        raise
    finally:
        job.end()


def _await_submitted(error: Exception) -> None:
    """A cluster's launcher gives up at the first job that is lost: wait for the others."""
    for frame, _ in walk_tb(error.__traceback__):
        submitted = frame.f_locals.get("jobs") if "submitit" in frame.f_code.co_filename else None
        for each in submitted or []:
            each.wait()
