"""Hands jobs to the launcher that was chosen: joblib's pool, a cluster, or one after the other."""

from collections.abc import Sequence
from importlib import import_module

from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.types import HydraContext
from omegaconf import DictConfig

from fedsplit.errors import UserError
from fedsplit.extras import extra
from fedsplit.sweeps import job
from fedsplit.sweeps.job import Launched


def check_installed(overrides: Sequence[str]) -> None:
    """Raise where a launcher is chosen that an extra brings.

    Raises:
        UserError: the extra is not installed.
    """
    for override in overrides:
        key, _, launcher = override.partition("=")
        if key == "hydra/launcher" and launcher.startswith("submitit"):
            with extra(key, launcher):
                import_module("submitit")


def launch(config: DictConfig, function: Launched, overrides: Sequence[Sequence[str]]) -> None:
    """Run jobs to their ends; to be called while composing (see `fedsplit.composition.composing`).

    Args:
        config: with Hydra's own under `hydra`: the launcher and the sweep's directory.
        function: called for each job.
        overrides: of each job.

    Raises:
        UserError: the launcher cannot be set so.
    """
    launcher = config.hydra.launcher
    if "n_jobs" in launcher:
        asked = launcher.n_jobs
        if not isinstance(asked, int) or isinstance(asked, bool) or asked < -1 or asked == 0:
            raise UserError(
                "hydra.launcher.n_jobs", asked, "must be a whole number greater than 0, or -1: all cores"
            )
        launcher.n_jobs = asked if asked < 0 else min(asked, len(overrides))
    context = HydraContext(config_loader=GlobalHydra.instance().config_loader(), callbacks=Callbacks(config))
    made = Plugins.instance().instantiate_launcher(
        hydra_context=context, task_function=function, config=config
    )
    try:
        made.launch([list(each) for each in overrides], initial_job_idx=0)
    finally:
        job.end()
