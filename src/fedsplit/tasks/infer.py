"""Split inference with a client half at each precision: what a request costs, and where."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from typing_extensions import override

from fedsplit.building.device import find_device
from fedsplit.building.process import prepare_process
from fedsplit.config.run_config import RunConfig
from fedsplit.config.values import NonNegativeInt, PositiveFloat, PositiveInt
from fedsplit.deployment.precisions import Int8Backend
from fedsplit.errors import RunFailed, UserError
from fedsplit.files.paths import new_directory
from fedsplit.files.whole import appearing
from fedsplit.inference.client_half import ClientHalf
from fedsplit.inference.deploying import Deploying, save
from fedsplit.inference.device import Device, Request, Turns
from fedsplit.inference.local import Answering, local_devices, wire
from fedsplit.inference.server_half import ServerHalf
from fedsplit.inference.subject import Batches, subject_of
from fedsplit.inference.summary import Summary, summary_table, write_results
from fedsplit.machine.allowance import allowing_a_run_directory
from fedsplit.machine.extras import extra
from fedsplit.network.network import Network, SimulatedNetwork
from fedsplit.recording.run_directory import RunDirectory
from fedsplit.reports.shown_table import print_table
from fedsplit.tasks.task import Task
from fedsplit.transport.local import LocalTransport

if TYPE_CHECKING:
    from fedsplit.inference.grpc.inference import GrpcInference


@dataclass(kw_only=True)
class Infer(Task):
    """Deploys the client half at each precision, and answers the requests of devices that run them.

    Args:
        requests: number of counted requests that each device makes; a request is a batch of test samples.
        warm_up: requests before these, which count for nothing.
        calibration_batches: number of batches of the clients' training images, from which ranges of
            activations are taken.
        devices: number of devices that dial in, with transport.spawn=false; None: as many as there are
            precisions.
        wait_s: seconds after which a device that is not here is not waited for any more.
        client: number of the client whose model is taken, in a run whose clients have models of their own.
    """

    beside = (
        "task",
        "run",
        "trust",
        "precision",
        "batch_size",
        "transport",
        "network",
        "threads",
        "device",
        "progress",
    )
    deploys = True

    backend: Int8Backend
    requests: PositiveInt
    warm_up: NonNegativeInt
    calibration_batches: PositiveInt
    calibration_batch_size: PositiveInt
    devices: PositiveInt | None
    wait_s: PositiveFloat
    client: NonNegativeInt | None

    @override
    def run(self, config: RunConfig, directory: Path) -> None:
        """Print a table; the directory appears once all is whole."""
        config = _of_the_run(config)
        precisions: Sequence[str] = config.client_precisions
        device = find_device(config.computation.device)
        config = replace(config, computation=replace(config.computation, device=str(device)))
        network = config.network.build(Network)
        grpc = self._grpc(config, precisions, network)
        prepare_process(config)
        with nullcontext() if config.origin.run is None else allowing_a_run_directory():
            subject = subject_of(config, self.client)
        here = [] if grpc is not None and not grpc.spawns else precisions  # else devices bring theirs
        calibration = self.calibration_batches, self.calibration_batch_size
        deploying = Deploying(self.backend, *calibration, config.training.seed)
        converted = deploying.convert(subject, here)
        batches = Batches(subject.data, config.training.batch_size)
        server = ServerHalf(subject.server.to(device), device, batches.codes(subject.padding))
        with _new(directory) as place:
            deployed = {precision: place / "deployed" / precision for precision in here}
            for precision, folder in deployed.items():
                save(converted.pop(precision), precision, folder)
            if grpc is None:
                halves = {
                    precision: ClientHalf(folder, subject.architecture, config.computation.threads)
                    for precision, folder in deployed.items()
                }
                answering = Answering(server, batches, wire(network, config.training.seed))
                reached = local_devices(halves, answering)
            else:
                reached = grpc.devices(subject, server, deployed, place)
            with reached as devices:
                requests = Turns(self.warm_up, self.requests).of(devices)
            summaries = self._summaries(precisions, devices, requests, network)
            write_results(place, config, subject.cut, requests, summaries)
        print_table(summary_table(summaries, config.training.batch_size))

    def _grpc(self, config: RunConfig, precisions: Sequence[str], network: Network) -> "GrpcInference | None":
        """The network between devices and the server half; None where there is none."""
        if config.transport.is_class(LocalTransport):
            if self.devices is not None:
                raise UserError(
                    "task.devices",
                    self.devices,
                    "must be null without transport=grpc: it counts devices that dial in",
                )
            return None
        with extra("transport", config.choice("transport")):
            from fedsplit.inference.grpc.inference import GrpcInference  # noqa: PLC0415
            from fedsplit.transport.grpc.protocol.arguments import GrpcArguments  # noqa: PLC0415
        transport = GrpcArguments.of(config.transport)
        if isinstance(network, SimulatedNetwork):
            message = "must be none with transport=grpc: this wire is measured"
            raise UserError("network", config.choice("network"), message)
        if transport.spawn and self.devices not in (None, len(precisions)):
            message = "must be null with transport.spawn=true: there is one device for each precision"
            raise UserError("task.devices", self.devices, message)
        devices = self.devices or len(precisions)
        return GrpcInference(config, transport, precisions=precisions, devices=devices, wait_s=self.wait_s)

    def _summaries(
        self,
        precisions: Sequence[str],
        devices: Sequence[Device],
        requests: Sequence[Request],
        network: Network,
    ) -> list[Summary]:
        return [
            Summary.of(
                precision,
                [each for each in requests if each.precision == precision],
                [each.footprint for each in devices if each.precision == precision],
                network,
            )
            for precision in precisions
            if any(each.precision == precision for each in devices)
        ]


def _of_the_run(config: RunConfig) -> RunConfig:
    """The configuration, with all but what is this command's taken from the run that it names."""
    if config.origin.run is None:
        return config
    ran = RunDirectory.existing(config.origin.run, "run").run_config(trust=config.origin.trust)
    return ran.with_keys_of(config, {key.partition(".")[0] for key in Infer.beside})


@contextmanager
def _new(directory: Path) -> Iterator[Path]:
    """Let a new directory be filled beside its place; it moves there once it is whole, or nothing is left.

    Raises:
        UserError: it is there already, or cannot be made.
    """
    new_directory(directory, "hydra.run.dir")
    try:
        with appearing(directory) as partial:
            partial.mkdir()
            yield partial
    except OSError as error:
        raise RunFailed(f"{directory} cannot be written ({error})") from error
    finally:
        with suppress(OSError):
            directory.rmdir()  # only where nothing was written
