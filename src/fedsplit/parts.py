"""Builds the parts of a run from its configuration."""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from hydra.utils import instantiate
from torch import nn

from fedsplit.algorithms.algorithm import Algorithm, Start
from fedsplit.config import arguments
from fedsplit.data.batches import ClientBatches, Normalisation
from fedsplit.data.dataset import Dataset
from fedsplit.errors import UserError
from fedsplit.estimators.alignment import Alignment
from fedsplit.estimators.estimator import GradientEstimator
from fedsplit.models.model_state import ModelState
from fedsplit.models.split import SplitModel, split
from fedsplit.optimizers import Optimizer
from fedsplit.parties.client import ClientWorker
from fedsplit.parties.evaluation import Evaluator
from fedsplit.parties.split_server import SplitServer
from fedsplit.randomness import seed_of
from fedsplit.schedules import Schedule


def make(config: Mapping[str, Any], group: str, **objects: Any) -> Any:
    """Instantiate the choice of a group, with objects that no configuration can hold.

    Raises:
        UserError: the choice's `_target_` cannot be imported or does not take these arguments.
    """
    node = arguments(group, config[group])
    for name in objects.keys() & node.keys():
        raise UserError(f"{group}.{name}", node[name], "no such key: the experiment gives it")
    try:
        factory = instantiate(node, _partial_=True, _convert_="all")
        inspect.signature(factory).bind(**objects)
    except UserError:
        raise
    except Exception as error:  # whatever an unknown class of the user's raises on import
        cause = error.__cause__ or error
        if isinstance(cause, UserError):
            raise cause from error
        reason = (str(cause).splitlines() or [type(cause).__name__])[0]
        raise UserError(f"{group}._target_", node.get("_target_"), reason) from error
    return factory(**objects)


@dataclass(frozen=True)
class Models:
    """The split model and the model behind the client's, as skeletons that many states share."""

    halves: SplitModel
    head: nn.Module
    smashed_shape: tuple[int, ...]


class Parts:
    """The parts of a run: data and its division, models, optimizers, the algorithm, and makers of the rest.

    Args:
        config: composed and checked (see `fedsplit.config.check`); `device` is replaced by the one taken.

    Raises:
        UserError: what is asked for cannot be built.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = {**config, "device": str(_device(config["device"]))}
        self.device = torch.device(self.config["device"])
        self.seed: int = config["seed"]
        torch.set_num_threads(config["threads"])
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False

        self.dataset = self._load_dataset()
        self.shards = self._divide(self.dataset)
        self.normalise = Normalisation.of(self.dataset.train, torch.get_default_dtype())
        self.schedule: Schedule = make(config, "scheduler")
        self.client_optimizer = self._optimizer("client_optimizer")
        self.server_optimizer = self._optimizer("server_optimizer")
        self.estimator: GradientEstimator = make(config, "estimator")
        self.models = self._build_models()
        self.algorithm = self._build_algorithm()

    def _load_dataset(self) -> Dataset:
        loaded: Dataset = make(self.config, "dataset").load()
        return Dataset(
            loaded.train.to(self.device), loaded.test.to(self.device), loaded.num_classes, loaded.augmentation
        )

    def _divide(self, dataset: Dataset) -> list[torch.Tensor]:
        clients = self.config["num_clients"]
        if clients > len(dataset.train):
            raise UserError("num_clients", clients, f"at most the {len(dataset.train)} training samples")
        labels = dataset.train.labels.cpu().numpy()
        shards = make(self.config, "distribution").split(labels, clients, self.seed)
        for client, shard in enumerate(shards):
            if len(shard) == 0:
                raise UserError(
                    "num_clients", clients, f"too many for this distribution: client {client} has no sample"
                )
        return [torch.from_numpy(shard) for shard in shards]

    def _optimizer(self, side: str) -> Optimizer:
        optimizer: Optimizer = make(self.config, side if self.config.get(side) else "optimizer")
        return optimizer

    def _build_models(self) -> Models:
        sizes = {
            "num_classes": self.dataset.num_classes,
            "channels": self.dataset.channels,
            "image_size": self.dataset.image_size,
        }
        with _initialisation(self.seed, "model"):
            whole = self._placed(make(self.config, "model", **sizes))
        example = self.normalise(self.dataset.train.pixels[:2])
        try:
            halves = split(whole, self.config["model"]["cut"], example)
        except RuntimeError as error:  # shapes that do not fit
            reason = str(error).splitlines()[0]
            raise UserError(
                "model", type(whole).__name__, f"does not fit images of {sizes} ({reason})"
            ) from error
        with torch.no_grad():
            smashed_shape = tuple(halves.client.eval()(example).shape[1:])
        halves.client.train()
        return Models(halves, self._build_head(halves, smashed_shape), smashed_shape)

    def _build_head(self, halves: SplitModel, smashed_shape: tuple[int, ...]) -> nn.Module:
        """What a client holds behind its client model, if anything."""
        kind = self._algorithm_class().client_head
        if kind in ("none", "server"):
            return halves.server
        sizes: dict[str, Any] = {"smashed_shape": smashed_shape, "num_classes": self.dataset.num_classes}
        with _initialisation(self.seed, "auxiliary model"):
            head: nn.Module = make(self.config, "auxiliary", **sizes)
            if kind == "estimator":
                warm_start = self.config["algorithm"].get("warm_start", 0)
                if warm_start and not self.estimator.trains_on_loss:
                    raise UserError(
                        "algorithm.warm_start",
                        warm_start,
                        "must be 0: this estimator has no loss of its own to train on",
                    )
                head = self.estimator.model(head, **sizes)
        return self._placed(head)

    def _placed(self, module: nn.Module) -> nn.Module:
        # channels_last: convolutions on a CPU are up to twice as fast, on a GPU no slower
        dtype = torch.get_default_dtype()
        return module.to(self.device, dtype).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload, no-any-return]

    def _algorithm_class(self) -> type[Algorithm]:
        made = instantiate(self.config["algorithm"], _partial_=True)
        algorithm: type[Algorithm] = made.func
        return algorithm

    def _build_algorithm(self) -> Algorithm:
        auxiliary = self.config["auxiliary"]
        aligner: Optimizer = instantiate(auxiliary["optimizer"], _convert_="all")
        start = Start(
            client_weights=ModelState(self.models.halves.client).weights(),
            head_weights=ModelState(self.models.head).weights(),
            server=SplitServer(self.models.halves.server, self.server_optimizer, self.schedule, self.seed),
            alignment=Alignment(
                new_auxiliary=lambda: ModelState(self.models.head, aligner),
                estimator=self.estimator,
                epochs=auxiliary["align_epochs"],
                batch_size=auxiliary["align_batch_size"],
                max_dataset_size=auxiliary["max_dataset_size"],
                seed=self.seed,
            ),
            seed=self.seed,
        )
        algorithm: Algorithm = make(self.config, "algorithm", start=start)
        return algorithm

    def evaluator(self) -> Evaluator:
        """Evaluates on the test images."""
        return Evaluator(
            self.models.halves,
            self.dataset.test,
            normalise=self.normalise,
            batch_size=self.config["eval_batch_size"],
        )

    def worker(self, client: int) -> ClientWorker:
        """The worker of a client, as it is before its first round."""
        batches = ClientBatches(
            self.dataset.train,
            self.shards[client],
            normalise=self.normalise,
            augmentation=self.dataset.augmentation,
            batch_size=self.config["batch_size"],
            local_epochs=self.config["local_epochs"],
            client=client,
            seed=self.seed,
        )
        has_head = self.algorithm.client_head != "none"
        return ClientWorker(
            client=client,
            batches=batches,
            body=ModelState(self.models.halves.client, self.client_optimizer),
            head=ModelState(self.models.head, self.client_optimizer) if has_head else None,
            estimator=self.estimator,
            schedule=self.schedule,
            seed=self.seed,
        )


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
