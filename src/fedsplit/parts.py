"""Builds the parts of a run from its configuration."""

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from importlib import import_module
from operator import getitem
from typing import Any, cast

import numpy as np
import torch
from hydra.utils import get_class
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fedsplit.algorithms.algorithm import Algorithm, Start
from fedsplit.data.batches import ClientBatches, Normalisation
from fedsplit.data.dataset import Dataset, ImageSource
from fedsplit.data.distributions.distribution import Distribution
from fedsplit.data.shards import Shards
from fedsplit.errors import UserError
from fedsplit.estimators.alignment import Alignment
from fedsplit.estimators.estimator import GradientEstimator
from fedsplit.extras import extra
from fedsplit.making import make
from fedsplit.memory import Memory, reuse_freed_memory
from fedsplit.models.computation import set_computation, set_float32
from fedsplit.models.cuts import Cuts, chosen
from fedsplit.models.graphs import CudaRecorder, Recorder
from fedsplit.models.layout import unflattened
from fedsplit.models.model_state import ModelState
from fedsplit.models.split import SplitModel, split
from fedsplit.models.stacked_module import obstacle_to_stacking
from fedsplit.models.tied import untied
from fedsplit.network.clock import Clock
from fedsplit.network.counting import counted_work
from fedsplit.network.network import Network, SimulatedNetwork
from fedsplit.optimizers import Optimizer, RowOptimizer
from fedsplit.parties.auto import Auto
from fedsplit.parties.engine import Blueprint, Engine
from fedsplit.parties.evaluation import Evaluator
from fedsplit.parties.split_server import SplitServer
from fedsplit.parties.vectorized import Vectorized
from fedsplit.quant.codec import Codec, Quantizer
from fedsplit.quant.quantization import Quantization, WeightsCodecs
from fedsplit.quant.viewed import Viewed
from fedsplit.randomness import draws, generator, seed_of
from fedsplit.results.class_counts import ClassCounts
from fedsplit.results.ledger import Ledger
from fedsplit.schedules import Schedule
from fedsplit.transport.local import LocalTransport
from fedsplit.transport.transport import Member, Run, Transport

_LOG = logging.getLogger("fedsplit")
_ALIGNED_TOGETHER = ("auxiliary.align_batch_size", "auxiliary.max_dataset_size")


@dataclass(frozen=True)
class Models:
    """The split model and the auxiliary model, as skeletons that many states share.

    Args:
        halves: client and server model.
        auxiliary: what the algorithm's clients or alignment use, None where they use none.
        smashed_shape: of one sample.
        coded_shape: of one sample, as codecs see it: with its channels, also where the cut is behind a
            layer that flattens them.
    """

    halves: SplitModel
    auxiliary: nn.Module | None
    smashed_shape: tuple[int, ...]
    coded_shape: tuple[int, ...]


class Parts:
    """The parts of a run: data and its division, models, optimizers, the algorithm, and makers of the rest.

    Args:
        config: composed and checked (see `fedsplit.config.check`); `device` is replaced by the one taken.
        member: in the process of one client; None where all is known.

    Raises:
        UserError: what is asked for cannot be built.
    """

    def __init__(self, config: Mapping[str, Any], member: Member | None = None) -> None:
        with extra("transport", config.get("choices", {}).get("transport")):
            import_module(config["transport"]["_target_"].rpartition(".")[0])
        self.config = {**config, "device": str(_device(config["device"]))}
        self.device = torch.device(self.config["device"])
        self.seed: int = config["seed"]
        torch.set_num_threads(config["threads"])
        reuse_freed_memory()
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False

        self.dataset = self._load_dataset()
        if member:
            member.check_data(self.dataset)
        self.distribution = make(Distribution, config, "distribution")  # type: ignore[type-abstract]
        shards = self._divided(self.dataset, member)
        self.shards = Shards(shards)
        if self.distribution.shifts_features:
            self.dataset = replace(self.dataset, train=self.dataset.train.seen_by(shards, self._view))
        dtype = torch.get_default_dtype()
        self.normalise = (
            member.normalisation.to(self.device, dtype)
            if member
            else Normalisation.of(self.dataset.train, dtype)
        )
        self.schedule = make(Schedule, config, "scheduler")  # type: ignore[type-abstract]
        self.client_optimizer = self._optimizer("client_optimizer")
        self.server_optimizer = self._optimizer("server_optimizer")
        self.estimator = make(GradientEstimator, config, "estimator")  # type: ignore[type-abstract]
        self.algorithm_class = self._algorithm_class()
        self.client_head = self.algorithm_class.client_head
        self.models = self._build_models()
        self._set_computation()
        self.recorder = self._build_recorder()
        self.quantization = self._build_quantization()
        self._refuse_batches_of_one()
        budget = config["auxiliary"]["memory_mb"]
        self.memory = Memory(None if budget is None else budget * 1e6)
        self.engine = self._build_engine()

    @property
    def sample_counts(self) -> list[int]:
        """Training samples of every client."""
        return self.shards.sizes

    @property
    def class_counts(self) -> ClassCounts | None:
        """Training samples of each class at every client; None where clients bring what they have."""
        if self.distribution.at_clients:
            return None
        return ClassCounts.of(self.shards, self.dataset.train.labels, self.dataset.class_names)

    def _load_dataset(self) -> Dataset:
        loaded = make(ImageSource, self.config, "dataset").load()  # type: ignore[type-abstract]
        return replace(loaded, train=loaded.train.to(self.device), test=loaded.test.to(self.device))

    def _divided(self, dataset: Dataset, member: Member | None) -> list[np.ndarray]:
        """Indices of each client's training samples."""
        clients, distribution = self.config["num_clients"], self.distribution
        if distribution.at_clients:
            if not self._apart and member is None:
                raise UserError("distribution", "own", "needs transport=grpc: clients bring what they have")
            own = {member.client: np.arange(len(dataset.train))} if member else {}
            return [own.get(client, np.empty(0, dtype=np.int64)) for client in range(clients)]
        if clients > len(dataset.train):
            raise UserError("num_clients", clients, f"at most the {len(dataset.train)} training samples")
        by = dataset.train.labels
        if distribution.by_owner:
            if dataset.train.owners is None:
                told = "this dataset does not say whose its samples are; femnist in LEAF's files does"
                raise UserError("distribution", "natural", told)
            by = dataset.train.owners
        shards = distribution.split(by.cpu().numpy(), clients, self.seed)
        for client, shard in enumerate(shards):
            if len(shard) == 0:
                raise UserError(
                    "num_clients", clients, f"too many for this distribution: client {client} has no sample"
                )
        return shards

    def _view(self, client: int, pixels: Tensor) -> Tensor:
        return self.distribution.seen_by(client, pixels, self.seed)

    def _optimizer(self, side: str) -> Optimizer:
        chosen = side if self.config.get(side) else "optimizer"
        return make(Optimizer, self.config, chosen)  # type: ignore[type-abstract]

    def _algorithm_class(self) -> type[Algorithm]:
        target = self.config["algorithm"]["_target_"]
        try:
            algorithm = get_class(target)
        except Exception as error:  # whatever a class of the user's raises on import
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError("algorithm._target_", target, reason) from error
        if not issubclass(algorithm, Algorithm):
            raise UserError("algorithm._target_", target, "must be an Algorithm")
        return algorithm

    @property
    def _sizes(self) -> dict[str, Any]:
        return {
            "num_classes": self.dataset.num_classes,
            "channels": self.dataset.channels,
            "image_size": self.dataset.image_size,
        }

    def whole(self) -> tuple[nn.Module, Tensor]:
        """The model before it is cut, and a batch of its inputs."""
        with _initialisation(self.seed, "model"):
            whole = make(nn.Module, self.config, "model", **self._sizes)
            whole = self._placed(untied(whole) if self.config["model"]["untie"] else whole)
        return whole, self.normalise(self.dataset.train.pixels[:2])

    def _build_models(self) -> Models:
        whole, example = self.whole()
        try:
            halves = split(whole, self._cut(whole, example), example)
        except RuntimeError as error:  # shapes that do not fit
            reason = str(error).splitlines()[0]
            raise UserError(
                "model", type(whole).__name__, f"does not fit images of {self._sizes} ({reason})"
            ) from error
        with torch.no_grad():
            z = halves.client.eval()(example)
        halves.client.train()
        auxiliary = self._build_auxiliary(z, halves)
        return Models(halves, auxiliary, tuple(z.shape[1:]), unflattened(halves.client, example))

    def _cut(self, whole: nn.Module, example: Tensor) -> str:
        """The name of the cut, which may be chosen by number, or left to the model."""
        cut: str | int | None = self.config["model"]["cut"]
        if isinstance(cut, str):
            return cut
        return chosen(Cuts(whole, example), cut, self.config["model"]["stages"])

    def _build_auxiliary(self, z: Tensor, halves: SplitModel) -> nn.Module | None:
        """The model that a client's head is, or that its estimator uses; `z` are some smashed data."""
        if self.client_head not in ("auxiliary", "estimator"):
            return None
        sizes: dict[str, Any] = {"smashed_shape": tuple(z.shape[1:]), "num_classes": self.dataset.num_classes}
        with _initialisation(self.seed, "auxiliary model"):
            offered = {"server": halves.server, "crossing": halves.crossing}
            auxiliary = make(nn.Module, self.config, "auxiliary", offered=offered, **sizes)
            try:
                fits = auxiliary.to(z.device, z.dtype).eval()(z).shape == (len(z), sizes["num_classes"])
            except (RuntimeError, ValueError, IndexError) as error:
                raise self._misfit(z) from error
            if not fits:
                raise self._misfit(z)
            if self.client_head == "estimator":
                auxiliary = self.estimator.model(auxiliary, **sizes)
        return self._placed(auxiliary)

    def _set_computation(self) -> None:
        """Of the halves; auxiliary models and alignment stay exact."""
        precision, compiled = self.config["precision"], self.config["compile"]
        if compiled and get_class(self.config["engine"]["_target_"]) is Vectorized:
            raise UserError("compile", compiled, "must be false with engine=vectorized")
        if precision == "tf32" and self.device.type != "cuda":
            raise UserError("precision", precision, f"fp32 or bf16 on device={self.device}")
        if precision == "bf16" and self.device.type == "cpu":
            _LOG.warning("precision=bf16: without bf16 units in the processor this is slower than fp32")
        set_float32(precision)
        for half in (self.models.halves.client, self.models.halves.server):
            set_computation(half, precision, compiled=compiled)

    def _build_recorder(self) -> Recorder | None:
        """Captures steps as CUDA graphs, if that is asked for."""
        if not self.config["cuda_graphs"]:
            return None
        for optimizer in (self.client_optimizer, self.server_optimizer, self._auxiliary_optimizer()):
            if not optimizer.capturable:
                told = f"must be false: {type(optimizer).__name__} takes no learning rate in a tensor"
                raise UserError("cuda_graphs", True, told)
        return CudaRecorder(self.device)

    def _recorder_of(self, *modules: nn.Module | None) -> Recorder | None:
        """Captures steps of these models: not if one of them draws, as a graph would draw the same again."""
        return None if self.recorder is None or any(map(self._draws, modules)) else self.recorder

    def _draws(self, module: nn.Module | None) -> bool:
        if module is None:
            return False
        images, halves = self.dataset.train, self.models.halves
        x, y = self.normalise(images.pixels[:2]), images.labels[:2]
        z = x if module is halves.client else ModelState(halves.client).forward(x, seed=0).detach()
        model, trains = ModelState(module), self.estimator.trains_on_loss
        if module is self.models.auxiliary and self.client_head == "estimator" and not trains:
            return draws(lambda: self.estimator.estimate(model, z, y, seed=None), self.device)
        return draws(lambda: model.forward(z, seed=None), self.device)

    def _auxiliary_optimizer(self) -> Optimizer:
        return make(Optimizer, self.config, "auxiliary.optimizer")  # type: ignore[type-abstract]

    def _misfit(self, z: Tensor) -> UserError:
        target = self.config["auxiliary"]["_target_"]
        return UserError("auxiliary._target_", target, f"makes no logits of smashed data {tuple(z.shape)}")

    def _refuse_batches_of_one(self) -> None:
        """Batch normalisation cannot train on one sample of one pixel: better told now than in a round."""
        settings = self.config | {f"auxiliary.{key}": v for key, v in self.config["auxiliary"].items()}
        risky = [key for key in ("batch_size", *_ALIGNED_TOGETHER) if settings[key] == 1]
        risky += ["num_clients"] if min(self.sample_counts) == 1 else []
        if not risky:
            return
        halves, auxiliary = self.models.halves, self.models.auxiliary
        try:
            with torch.no_grad():
                z = ModelState(halves.client).forward(self.normalise(self.dataset.train.pixels[:1]), seed=0)
                ModelState(halves.server).forward(z, seed=0)
                if auxiliary is not None and self.estimator.trains_on_loss:
                    ModelState(auxiliary).forward(z, seed=0)
        except ValueError as error:
            told = "makes batches of one sample, and this model's batch normalisation needs two"
            raise UserError(risky[0], settings[risky[0]], told) from error

    def _placed(self, module: nn.Module) -> nn.Module:
        # channels_last: convolutions on a CPU are up to twice as fast, on a GPU no slower
        dtype = torch.get_default_dtype()
        return module.to(self.device, dtype).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload, no-any-return]

    def _build_quantization(self) -> Quantization:
        return self.quantization_at(self.models.smashed_shape, lambda: self.models.coded_shape)

    def quantization_at(
        self, smashed_shape: tuple[int, ...], coded_shape: Callable[[], tuple[int, ...]]
    ) -> Quantization:
        """The codecs, for smashed data of these shapes (see `Models`).

        Args:
            smashed_shape: of one sample.
            coded_shape: gives that as codecs see it; asked only where there is something to code.
        """

        def at_cut(path: str) -> Codec:
            codec = self.codec(path, at_cut=False)
            if not isinstance(codec, Quantizer):
                return codec
            seen = coded_shape()
            return Viewed(codec, seen) if seen != smashed_shape else codec

        return Quantization(
            smashed=at_cut("quant.smashed"),
            cut_gradient=at_cut("quant.cut_gradient"),
            weights=WeightsCodecs(
                up=self.codec("quant.weights.up", at_cut=False),
                down=self.codec("quant.weights.down", at_cut=False),
                whole=self.codec("quant.weights.whole", at_cut=False),
            ),
            continue_from_decoded=self.config["quant"]["continue_from_decoded"],
        )

    def codec(self, path: str, *, at_cut: bool) -> Codec:
        """The codec chosen at `path`, for what crosses the cut or for weights."""
        codec = make(Codec, self.config, path)  # type: ignore[type-abstract]
        level = reduce(getitem, path.split("."), self.config)["zstd"]
        if not isinstance(codec, Quantizer):
            if level is not None:
                raise UserError(f"{path}.zstd", level, "must be null: this codec takes no lossless stage")
            return codec
        if level is not None:
            from fedsplit.quant.zstd import Zstd  # noqa: PLC0415  (not needed where nothing is compressed)

            codec = Zstd(codec, level)
        viewed = at_cut and self.models.coded_shape != self.models.smashed_shape
        return Viewed(codec, self.models.coded_shape) if viewed else codec

    @cached_property
    def algorithm(self) -> Algorithm:
        """The algorithm, with its servers; a process that only holds clients never asks for it."""
        halves, auxiliary = self.models.halves, self.models.auxiliary
        at_server = self._recorder_of(halves.server)
        start = Start(
            client_weights=ModelState(halves.client).weights(),
            auxiliary_weights=ModelState(auxiliary).weights() if auxiliary else {},
            server=SplitServer(halves.server, self.server_optimizer, self.schedule, self.seed, at_server),
            server_copies=self.engine.server_copies(
                halves.server, self.server_optimizer, self.schedule, self.seed, at_server
            ),
            alignment=self.alignment,
            seed=self.seed,
        )
        return make(Algorithm, self.config, "algorithm", start=start)  # type: ignore[type-abstract]

    @cached_property
    def alignment(self) -> Alignment:
        """Fits clients' auxiliary models, where the algorithm has that done."""
        auxiliary, settings = self.models.auxiliary, self.config["auxiliary"]
        optimizer, recorder = self._auxiliary_optimizer(), self._recorder_of(auxiliary)
        return Alignment(
            new_auxiliary=lambda: ModelState(cast(nn.Module, auxiliary), optimizer, recorder=recorder),
            estimator=self.estimator,
            epochs=settings["align_epochs"],
            batch_size=settings["align_batch_size"],
            max_dataset_size=settings["max_dataset_size"],
            memory=self.memory,
            tolerance=settings["align_tolerance"] or 0.0,
            seed=self.seed,
        )

    @cached_property
    def network(self) -> Network:
        """What crosses the network costs."""
        return make(Network, self.config, "network")

    def clock(self) -> Clock | None:
        """What simulates the seconds of rounds; None with network=none."""
        if not isinstance(self.network, SimulatedNetwork):
            return None
        timeline = self.algorithm_class.timeline
        if timeline is None:
            chosen = self.config.get("choices", {}).get("network", self.config["network"]["_target_"])
            told = f"must be none: {self.algorithm_class.__name__} has no timeline, so nobody knows who waits"
            raise UserError("network", chosen, told)
        images = self.dataset.train
        work = counted_work(
            self.models.halves,
            self.models.auxiliary,
            self.estimator if self.client_head == "estimator" else None,
            self.normalise(images.pixels[:2]),
            images.labels[:2],
        )
        return Clock(
            self.network,
            timeline,
            work,
            batch_size=self.config["batch_size"],
            local_epochs=self.config["local_epochs"],
            seed=self.seed,
        )

    def transport(self, ledger: Ledger) -> Transport:
        """What carries verbs to the clients and back.

        Args:
            ledger: where bytes are counted.
        """
        return make(Transport, self.config, "transport", run=self.run(ledger))  # type: ignore[type-abstract]

    def run(self, ledger: Ledger) -> Run:
        """What a transport needs to know; bytes are counted in `ledger`."""
        head = self.engine.blueprint.head
        return Run(
            config=self.config,
            engine=self.engine,
            sample_counts=self.sample_counts,
            dataset=self.dataset,
            normalisation=self.normalise,
            quantization=self.quantization,
            smashed_shape=self.models.smashed_shape,
            client_weights=self.models.halves.client.state_dict(),
            head_weights=head.state_dict() if head else {},
            device=self.device,
            seed=self.seed,
            ledger=ledger,
        )

    def cohort_of(self, t: int) -> Collection[int]:
        """The clients that take part in round `t`: all, or `cohort_size` drawn without replacement."""
        clients, size = self.config["num_clients"], self.config["cohort_size"]
        if size is None:
            return range(clients)
        drawn = torch.randperm(clients, generator=generator(self.seed, "cohort", round=t))
        return sorted(drawn[:size].tolist())

    def evaluator(self) -> Evaluator:
        """Evaluates on the test images."""
        return Evaluator(
            self.models.halves,
            self.dataset.test,
            normalise=self.normalise,
            batch_size=self.config["eval_batch_size"],
        )

    @property
    def _head_sees_decoded(self) -> bool:
        uploads = self.client_head in ("auxiliary", "estimator")
        return uploads and self.quantization.continue_from_decoded

    def batches(self, client: int) -> ClientBatches:
        """A client's data, batch by batch."""
        return ClientBatches(
            self.dataset.train,
            self.shards[client],
            normalise=self.normalise,
            augmentation=self.dataset.augmentation,
            batch_size=self.config["batch_size"],
            local_epochs=self.config["local_epochs"],
            client=client,
            seed=self.seed,
        )

    def _build_engine(self) -> Engine:
        """What computes the clients; of `engine=auto`, its choice replaces it in the configuration."""
        target = self.config["engine"]["_target_"]
        body, auxiliary = self.models.halves.client, self.models.auxiliary
        head = self.models.halves.server if self.client_head == "server" else auxiliary
        sees_decoded = self._head_sees_decoded  # a codec looks at values, on the host
        blueprint = Blueprint(
            body=body,
            head=head,
            keeps_head=self.client_head == "estimator",
            optimizer=self.client_optimizer,
            batches=self.batches,
            estimator=self.estimator,
            schedule=self.schedule,
            seed=self.seed,
            head_sees=self.quantization.smashed if sees_decoded else None,
            memory=self.memory,
            recorder=None if sees_decoded else self._recorder_of(body, head),
        )
        self.step_mmac = self._step_mmac(blueprint)
        if get_class(target) is Auto:
            auto = make(Auto, self.config, "engine")
            chosen = auto.chosen(self.step_mmac, self._stackable())
            if get_class(chosen["_target_"]) is Vectorized and self._obstacle_to_stacking(blueprint):
                chosen = auto.chosen(self.step_mmac, stackable=False)
            self._choose_engine(chosen)
        elif get_class(target) is Vectorized and self._apart:
            told = "must be auto or sequential: each client has a process of its own"
            raise UserError("engine", "vectorized", told)
        elif get_class(target) is Vectorized and self.algorithm_class.takes_turns:
            told = "must be auto or sequential: clients of this algorithm take turns"
            raise UserError("engine", "vectorized", told)
        elif get_class(target) is Vectorized and (reason := self._obstacle_to_stacking(blueprint)):
            told = f"must be auto or sequential: this model cannot be computed for many at once ({reason})"
            raise UserError("engine", "vectorized", told)
        return make(Engine, self.config, "engine", blueprint=blueprint)  # type: ignore[type-abstract]

    @property
    def _apart(self) -> bool:
        """Whether clients are computed elsewhere."""
        target: str = self.config["transport"]["_target_"]
        return not issubclass(get_class(target), LocalTransport)

    def _choose_engine(self, chosen: dict[str, Any]) -> None:
        self.config["engine"] = chosen
        if "choices" in self.config:
            name = "vectorized" if get_class(chosen["_target_"]) is Vectorized else "sequential"
            self.config["choices"] = {**self.config["choices"], "engine": name}

    def _stackable(self) -> bool:
        """Whether clients can be computed at once at all, and there are several in this process."""
        optimizers = (self.client_optimizer, self.server_optimizer)
        together = self.config["cohort_size"] or self.config["num_clients"]
        return (
            together > 1
            and not self._apart
            and not self.algorithm_class.takes_turns
            and not self.config["compile"]
            and all(isinstance(each, RowOptimizer) for each in optimizers)
        )

    def _obstacle_to_stacking(self, blueprint: Blueprint) -> str | None:
        """Why clients, or a split server's copies, cannot be computed as one; None if they can."""
        x = self.normalise(self.dataset.train.pixels[:2])
        with torch.no_grad(), torch.random.fork_rng():
            z = ModelState(blueprint.body).forward(x, seed=0)
        modules: list[tuple[nn.Module, Tensor]] = [(blueprint.body, x)]
        if self.client_head == "none":
            modules.append((self.models.halves.server, z))
        elif blueprint.head and (self.client_head != "estimator" or self.estimator.trains_on_loss):
            modules.append((blueprint.head, z))  # others take more than smashed data
        return next(filter(None, (obstacle_to_stacking(module, inputs) for module, inputs in modules)), None)

    def _step_mmac(self, blueprint: Blueprint) -> float:
        """Million multiply-adds of the forward passes of one local step, through body and head."""
        images = self.dataset.train
        x, y = self.normalise(images.pixels[:2]), images.labels[:2]
        with FlopCounterMode(display=False) as counter:
            replace(blueprint, head=blueprint.head or self.models.halves.server).pass_through(x, y)
        samples = min(self.config["batch_size"], max(self.sample_counts) or self.config["batch_size"])
        return float(counter.get_total_flops() / 2 / len(x) * samples / 1e6)


def run_of_member(config: Mapping[str, Any], member: Member) -> Run:
    """What the process of one client needs of a run; see `Parts` for the rest."""
    return Parts(config, member).run(Ledger())


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UserError("device", name, "there is no CUDA device here; cpu or auto")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError("device", name, f"there are {torch.cuda.device_count()} CUDA devices, counted from 0")
    return device


@contextmanager
def _initialisation(seed: int, what: str) -> Iterator[None]:
    """Modules initialise themselves from torch's global generator: seed it, and put it back."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed_of(seed, f"initialisation of the {what}"))
        yield
