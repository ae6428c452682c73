"""Runs from Python, as `import fedsplit` offers them: what `main.py` does, without a command line."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import RLock

from fedsplit.cli.results import RunResults, load_run
from fedsplit.cli.single import compose_single, extract_resume, resume, single
from fedsplit.config.choices import user_choices
from fedsplit.config.commands import command
from fedsplit.config.overrides import override, spell_out
from fedsplit.config.run_config import RunConfig
from fedsplit.errors import UserError
from fedsplit.training.round_callback import RoundCallback, register_callback

_ALONE = RLock()
"""Hydra composes, and a run sets threads and flags, for the whole process: threads take turns."""


def run(
    *overrides: str,
    callback: RoundCallback | None = None,
    config_dir: str | Path | None = None,
    **values: object,
) -> RunResults:
    """Train, as `python main.py` with these overrides does, and read back what the run left.

        fedsplit.run("algorithm=fsl_sage", "quant=int8", rounds=5, **{"optimizer.lr": 0.01})

    The process is afterwards as it was before: working directory, arguments, threads, flags and generators of
    torch. Runs of several threads take turns.

    Args:
        overrides: overrides, as on the command line: `key=value`, `group=choice`, or `resume=DIRECTORY` with
            what may be changed beside it.
        callback: is called after each round, with its row of `metrics.csv` by column; what it raises ends the
            run, which `resume=` goes on with from its last checkpoint.
        config_dir: directory of choices of one's own, as of `--config-dir`.
        values: overrides too, with values of Python: None, numbers, texts, paths, lists, dicts.

    Raises:
        UserError: something asked for cannot be; nothing was written.
        RunFailed: the run could not be carried to its end.
    """
    with _ALONE, user_choices(config_dir):
        given, others = extract_resume(_spelled_out(overrides, values))
        if given is not None:
            with process_as_before(), register_callback(callback):
                return load_run(resume(given, others))
        directory, config = compose_single(others)
        if (task := config.choice("task")) != "train":
            message = f"leaves no run behind; it is done by: {command(f'task={task}')} ..."
            raise UserError("task", task, message)
        with process_as_before(), register_callback(callback):
            single(directory, config)
        return load_run(directory)


def compose(*overrides: str, config_dir: str | Path | None = None, **values: object) -> RunConfig:
    """The checked configuration that `run` would train with, which says what arguments mean.

    It imports nothing heavy, and writes nothing.

    Raises:
        UserError: something asked for cannot be.
    """
    with _ALONE, user_choices(config_dir):
        _, config = compose_single(_spelled_out(overrides, values))
        return replace(config, sweep=None)


def _spelled_out(overrides: tuple[str, ...], values: dict[str, object]) -> list[str]:
    given = [*overrides, *(override(key, value) for key, value in values.items())]
    return [each for argument in given for each in spell_out(argument)]


@contextmanager
def process_as_before() -> Iterator[None]:
    """Leave the process as it was: torch's threads, rounding, flags and generators, and the level of the log.

    The C library goes on to keep freed memory for the next tensors (see `fedsplit.computing.memory`).
    """
    import torch  # noqa: PLC0415  (heavy: only once a run begins)

    cudnn, products, log = torch.backends.cudnn, torch.backends.cuda.matmul, logging.getLogger("fedsplit")
    threads, level = torch.get_num_threads(), log.level
    flags = (cudnn.deterministic, cudnn.benchmark, cudnn.fp32_precision, products.fp32_precision)
    initialized: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = range(torch.cuda.device_count() if initialized else 0)
    with torch.random.fork_rng(devices):
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            log.setLevel(level)
            (cudnn.deterministic, cudnn.benchmark, cudnn.fp32_precision, products.fp32_precision) = flags
