"""Experiments in federated split learning: accuracy against bytes, seconds and client memory.

    import fedsplit

    results = fedsplit.run("algorithm=fsl_sage", "quant=int8", rounds=5)

What is named here is imported when it is first used.
"""

from typing import TYPE_CHECKING

from fedsplit.errors import RunFailed, UserError

__version__ = "0.1.0"
__all__ = [
    "RunConfig",
    "RunFailed",
    "RunResults",
    "SplitModel",
    "UserError",
    "compose",
    "load_run",
    "load_runs",
    "run",
    "split",
]

if TYPE_CHECKING:
    from fedsplit.cli.python import compose, run
    from fedsplit.cli.results import RunResults, load_run, load_runs
    from fedsplit.config.run_config import RunConfig
    from fedsplit.models.splitting.split import SplitModel, split
else:

    def __getattr__(name: str) -> object:
        if name in ("run", "compose"):
            from fedsplit.cli import python  # noqa: PLC0415

            return getattr(python, name)
        if name in ("RunResults", "load_run", "load_runs"):
            from fedsplit.cli import results  # noqa: PLC0415

            return getattr(results, name)
        if name == "RunConfig":
            from fedsplit.config import run_config  # noqa: PLC0415

            return getattr(run_config, name)
        if name in ("SplitModel", "split"):
            from fedsplit.models.splitting import split as splitting  # noqa: PLC0415

            return getattr(splitting, name)
        raise AttributeError(f"module 'fedsplit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
