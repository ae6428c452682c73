"""Split inference with a client half at each precision: what a request costs, and where."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_class
from rich.console import Console
from rich.measure import Measurement

from fedsplit.arguments import NonNegativeInt, PositiveFloat, PositiveInt
from fedsplit.config import OF_AN_INFERENCE, check, with_defaults_of_old
from fedsplit.errors import RunFailed, UserError
from fedsplit.inference.deploying import Deploying, Int8Backend
from fedsplit.inference.device import Device, Turns
from fedsplit.inference.files import write_results
from fedsplit.inference.local import local_devices
from fedsplit.inference.server_half import ServerHalf
from fedsplit.inference.subject import Batches, Subject, subject_of
from fedsplit.inference.summary import Summary, summary_table
from fedsplit.memory import reuse_freed_memory
from fedsplit.parts import found_device
from fedsplit.results.new_directory import new_directory
from fedsplit.results.run_directory import RunDirectory
from fedsplit.tasks.task import Task
from fedsplit.transport.local import LocalTransport


class Infer(Task):
    """Deploys the client half at each precision, and answers the requests of devices that run them.

    Args:
        backend: of int8.
        requests: that each device makes and that count; a request is a batch of test images.
        warm_up: requests before these, which count for nothing.
        calibration_batches: of the clients' training images, from which ranges of activations are taken.
        calibration_batch_size: images of each.
        devices: that dial in, with transport.spawn=false; None: as many as there are precisions.
        wait_s: seconds after which a device that is not here is not waited for any more.
    """

    def __init__(
        self,
        *,
        backend: Int8Backend,
        requests: PositiveInt,
        warm_up: NonNegativeInt,
        calibration_batches: PositiveInt,
        calibration_batch_size: PositiveInt,
        devices: PositiveInt | None,
        wait_s: PositiveFloat,
    ) -> None:
        self.backend, self.turns = backend, Turns(warm_up, requests)
        self.calibration_batches, self.calibration_batch_size = calibration_batches, calibration_batch_size
        self.devices, self.wait_s = devices, wait_s

    def run(self, config: Mapping[str, Any], directory: Path) -> None:
        """See `Task.run`: prints a table; the directory appears once all is whole."""
        config = _of_the_run(config)
        precisions = _listed(config["precision"])
        device = found_device(config["device"])
        config |= {"device": str(device), "precision": precisions}
        torch.set_num_threads(config["threads"])
        reuse_freed_memory()
        subject = subject_of(config)
        deploying = Deploying(
            self.backend, self.calibration_batches, self.calibration_batch_size, config["seed"]
        )
        converted = deploying.converted(subject, precisions)
        with _appearing(directory) as partial:
            deployed = {precision: partial / "deployed" / precision for precision in precisions}
            for precision, folder in deployed.items():
                converted[precision].save(folder)
            del converted
            with self._devices(config, subject, deployed, device) as devices:
                requests = self.turns.of(devices)
            summaries = [
                Summary.of(
                    precision,
                    deploying.name(precision),
                    [each for each in requests if each.precision == precision],
                    [each.footprint for each in devices if each.precision == precision],
                )
                for precision in precisions
                if any(each.precision == precision for each in devices)
            ]
            write_results(partial, config, subject.cut, requests, summaries)
        _show(summaries, config["batch_size"])

    def _devices(
        self, config: Mapping[str, Any], subject: Subject, deployed: Mapping[str, Path], device: torch.device
    ) -> AbstractContextManager[list[Device]]:
        """While there are devices, with what the transport puts between them and the server half."""
        server = ServerHalf(subject.server.to(device), device)
        batches = Batches(subject.data, config["batch_size"])
        if issubclass(get_class(config["transport"]["_target_"]), LocalTransport):
            return local_devices(deployed, subject.architecture, server, batches, config["threads"])
        raise UserError("transport", config["choices"]["transport"], "must be local")


def _of_the_run(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration, with all but what is this command's taken from the run that it names."""
    if config["run"] is None:
        return dict(config)
    ran = with_defaults_of_old(RunDirectory.existing(Path(config["run"]), "run").config())
    own = {key.partition(".")[0] for key in OF_AN_INFERENCE} & config.keys()
    chosen = {key: choice for key, choice in config["choices"].items() if key in own}
    merged = {**ran, **{key: config[key] for key in own}, "choices": {**ran["choices"], **chosen}}
    check({key: value for key, value in merged.items() if key != "choices"})
    return merged


@contextmanager
def _appearing(directory: Path) -> Iterator[Path]:
    """While a new directory is filled, beside its place; it takes that once it is whole, or nothing is left.

    Raises:
        UserError: it is there already, or cannot be made.
    """
    new_directory(directory, "hydra.run.dir")
    partial = directory.with_name(f"{directory.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir()
        yield partial
        partial.rename(directory)
    except OSError as error:
        raise RunFailed(f"{directory} cannot be written ({error})") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        with suppress(OSError):
            directory.rmdir()  # only where nothing was written


def _listed(precision: str | Sequence[str]) -> list[str]:
    return [precision] if isinstance(precision, str) else list(precision)


def _show(summaries: Sequence[Summary], batch_size: int) -> None:
    """Print the table, as wide as it needs to be."""
    shown, console = summary_table(summaries, batch_size), Console()
    wide = Measurement.get(console, console.options.update(max_width=10_000), shown).maximum
    Console(width=max(wide, console.width)).print(shown)
