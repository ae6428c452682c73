"""The models of a run: built, cut in two, and given an auxiliary model where the algorithm has one."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256

import torch
from torch import Tensor, nn

from fedsplit.algorithms.algorithm import ClientHead
from fedsplit.building.data import Data
from fedsplit.computing.computation import set_computation
from fedsplit.computing.hooks import describe_hook, refuse_lost_hooks
from fedsplit.computing.layout import unflattened_shape
from fedsplit.computing.model_state import frozen_parameters
from fedsplit.config.component import Component
from fedsplit.config.run_config import RunConfig
from fedsplit.errors import UserError, first_line
from fedsplit.estimators.estimator import GradientEstimator
from fedsplit.machine.allowance import claim_model
from fedsplit.models.adapters.adapter import Adapter
from fedsplit.models.auxiliary import ExplicitErrorGradient, ExplicitInputGradient, LinearAuxiliary
from fedsplit.models.group_normalised import replace_batch_norms
from fedsplit.models.rounding.quantized_training import FakeQuantization, build_fake_quantized
from fedsplit.models.splitting.checks import check_output, check_tensors
from fedsplit.models.splitting.cuts import evaluating, resolve_cut
from fedsplit.models.splitting.split import SplitModel, find_cuts, split
from fedsplit.models.splitting.stubs import StubbedClient
from fedsplit.models.splitting.tied import copy_without_ties, tied_groups
from fedsplit.objectives.classification import Classification
from fedsplit.parties.vectorized import Vectorized
from fedsplit.quant.bit_packing import to_bytes
from fedsplit.randomness import seed_of
from fedsplit.state.weights import Weights

_LOG = logging.getLogger("fedsplit")


@dataclass(frozen=True)
class Models:
    """The split model and the auxiliary model, as skeletons that many states share.

    Args:
        halves: client and server model.
        auxiliary: auxiliary model of the algorithm's clients or alignment; None where they use none.
        smashed_shape: shape of one sample.
        coded_shape: shape of one sample, as codecs see it: with its channels, also where the cut is behind a
            layer that flattens them.
        trunk_shapes: shapes of one sample of what goes to the clients' tail, as it is and as codecs see it;
            None where the model is cut once.
        frozen_from_files: True if parameters that do not learn are read from files that the user keeps, as
            the model says by an attribute of this name; then a run writes none of them.
    """

    halves: SplitModel
    auxiliary: nn.Module | None
    smashed_shape: tuple[int, ...]
    coded_shape: tuple[int, ...]
    trunk_shapes: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    frozen_from_files: bool = False

    @cached_property
    def frozen_digest(self) -> str:
        """SHA-256 of all parameters that do not learn; empty where all do."""
        digest = sha256()
        modules = [*self.halves.modules, *([] if self.auxiliary is None else [self.auxiliary])]
        frozen = [pair for module in modules for pair in frozen_parameters(module).items()]
        for name, tensor in frozen:
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(to_bytes(tensor))
        return digest.hexdigest() if frozen else ""

    def with_frozen(self, weights: Weights, *parts: nn.Module) -> Weights:
        """Weights of one model as a run writes them: those in `weights`, and parameters that do not learn."""
        kept = (
            {}
            if self.frozen_from_files
            else {k: v for part in parts for k, v in frozen_parameters(part).items()}
        )
        return {
            name: weights[name] if name in weights else kept[name].clone()  # a file holds no memory twice
            for part in parts
            for name in part.state_dict()
            if name in weights or name in kept
        }


def build_models(
    config: RunConfig,
    data: Data,
    device: torch.device,
    estimator: GradientEstimator,
    client_head: ClientHead,
) -> Models:
    """All models that a configuration names, for some data.

    Args:
        config: configuration of the run.
        data: data of the run.
        device: device of the models.
        estimator: estimator of the run.
        client_head: model that a client of the algorithm holds behind its client model.

    Raises:
        UserError: they cannot be built, or not cut like that, or do not fit the data.
    """
    whole, example = build_whole_model(config, data, device)
    try:
        halves = split(whole, cut_name(config, whole, example), example, config.splitting.tail_cut)
    except RuntimeError as error:  # shapes that do not fit
        message = f"does not fit data of {data.sizes} ({first_line(error)})"
        raise UserError("model", type(whole).__name__, message) from error
    with torch.no_grad():
        z = halves.client.eval()(example)
    halves.client.train()
    auxiliary = None
    if client_head in ("auxiliary", "estimator"):
        fitted_by = estimator if client_head == "estimator" else None
        auxiliary = _build_auxiliary(config, z, halves, data, fitted_by)
        auxiliary = _place(auxiliary, device)
    coded_shape = unflattened_shape(halves.client, example)
    rounded = FakeQuantization.from_keys(qat=config.rounding.qat, weight_bits=config.rounding.weight_bits)
    if rounded:
        _refuse_rounding(config, halves)
        halves = replace(halves, client=build_fake_quantized(halves.client, example, rounded))
    in_files = bool(getattr(whole, "frozen_from_files", False))
    models = Models(halves, auxiliary, tuple(z.shape[1:]), coded_shape, frozen_from_files=in_files)
    if halves.tail is None:
        return models
    with evaluating(halves.server):
        trunk_shape = tuple(halves.server(z).shape[1:])
    return replace(models, trunk_shapes=(trunk_shape, unflattened_shape(halves.server, z)))


def refuse_tail(config: RunConfig, reason: str) -> None:
    """Raise where a model is to be cut twice; `reason` says where it cannot be.

    Raises:
        UserError: names the key.
    """
    if (tail_cut := config.splitting.tail_cut) is not None:
        raise UserError("model.tail_cut", tail_cut, f"must be null {reason}")


def build_whole_model(config: RunConfig, data: Data, device: torch.device) -> tuple[nn.Module, Tensor]:
    """The model before it is cut, and a batch of its inputs.

    Raises:
        UserError: it cannot be built, or is no model that gives logits of the data.
    """
    adapter = config.adapter.build(Adapter)
    claim_model("model", config.choice("model"), lambda: config.model.build(nn.Module, **data.sizes))
    with _initialisation(config.training.seed, "model"):
        whole = config.model.build(nn.Module, **data.sizes)
        check_tensors(whole)
        whole = copy_without_ties(whole) if config.splitting.untie else whole
        if config.splitting.norm is not None:
            whole = _replace_batch_norms(whole)
    own = {id(tensor) for tensor in (*whole.parameters(), *whole.buffers())}
    with _initialisation(config.training.seed, "adapter"):
        try:
            adapter.inject(whole)
        except UserError:
            raise
        except Exception as error:  # whatever code of the user's raises
            message = f"cannot be added to this model ({first_line(error)})"
            raise UserError("adapter", config.choice("adapter"), message) from error
    _refuse_shared_state(config, whole, own)
    whole = _place(whole, device)
    example, y = data.batch(2)
    check_output(whole, data.dataset.objective, example, y)
    return whole, example


def _replace_batch_norms(whole: nn.Module) -> nn.Module:
    try:
        return replace_batch_norms(whole)
    except ValueError as error:
        raise UserError("model.norm", "group", f"must be null: this model {error}") from error


def _refuse_shared_state(config: RunConfig, whole: nn.Module, own: set[int]) -> None:
    """Refuse an adapter whose layers share what it added: halves would each have, send and move their own.

    Args:
        own: ids of the tensors that the model had before.
    """
    tensors = dict((*whole.named_parameters(remove_duplicate=False), *whole.named_buffers()))
    for names in tied_groups(whole):
        if id(tensors[names[0]]) not in own:
            message = (
                f"{' and '.join(names[:2])} are one and the same; layers of an adapter must share nothing"
            )
            raise UserError("adapter", config.choice("adapter"), message)


def cut_name(config: RunConfig, whole: nn.Module, example: Tensor) -> str:
    """The name of the cut, which may be chosen by number, or left to the model."""
    cut = config.splitting.cut
    return (
        cut if isinstance(cut, str) else resolve_cut(find_cuts(whole, example), cut, config.splitting.stages)
    )


def set_models_computation(models: Models, config: RunConfig, device: torch.device) -> None:
    """Compute the halves as `precision` and `compile` say; auxiliary models and alignment stay exact.

    Raises:
        UserError: this device or engine cannot.
    """
    precision, compiled = config.computation.precision, config.computation.compile
    if compiled and config.engine.is_class(Vectorized):
        raise UserError("compile", compiled, "must be false with engine=vectorized")
    if precision == "tf32" and device.type != "cuda":
        raise UserError("precision", precision, f"must be fp32 or bf16 on device={device}")
    if precision == "bf16" and device.type == "cpu":
        _LOG.warning("precision=bf16: without bf16 units in the processor this is slower than fp32")
    for key, asked in (("compile", compiled), ("cuda_graphs", config.computation.cuda_graphs)):
        if asked and isinstance(models.halves.client, StubbedClient):
            raise UserError(key, True, "must be false with this model, whose code cannot be traced")
    for half in models.halves.modules:
        if compiled and (found := describe_hook(half)):
            raise UserError("compile", compiled, f"must be false with this model: {found}")
        set_computation(half, precision, compiled=compiled)


def _refuse_rounding(config: RunConfig, halves: SplitModel) -> None:
    if halves.tail is not None:
        message = "must be null: qat and weight_bits round the client model before the cut alone"
        raise UserError("model.tail_cut", config.splitting.tail_cut, message)
    if isinstance(halves.client, StubbedClient):
        qat = config.rounding.qat
        key, value = ("qat", True) if qat else ("weight_bits", config.rounding.weight_bits)
        allowed = "false" if qat else "null"
        raise UserError(key, value, f"must be {allowed} with this model, whose code cannot be traced")


def _build_auxiliary(
    config: RunConfig, z: Tensor, halves: SplitModel, data: Data, estimator: GradientEstimator | None
) -> nn.Module:
    """The model that a client's head is, or that its estimator uses; `z` are some smashed data."""
    component, shape, objective = config.auxiliary, tuple(z.shape[1:]), data.dataset.objective
    offered = {"server": halves.server, "crossing": halves.crossing}
    classes = data.dataset.num_classes
    if not isinstance(objective, Classification) and component.is_class(LinearAuxiliary):
        message = "is for classification alone; auxiliary=derived is derived from any model"
        raise UserError("auxiliary._target_", component.target, message)

    def build() -> nn.Module:
        return component.build(nn.Module, offered=offered, smashed_shape=shape, num_classes=classes)

    claim_model("auxiliary._target_", component.target, build)
    with _initialisation(config.training.seed, "auxiliary model"):
        auxiliary = build()
        _refuse_lost_hooks(component, auxiliary, in_closed_form=estimator is not None)
        try:
            outputs = auxiliary.to(z.device, z.dtype).eval()(z)
            fits = objective.fits(outputs, data.batch(len(z))[1])
        except (RuntimeError, ValueError, IndexError) as error:
            raise _misfit(component, z, objective.outputs) from error
        if not fits:
            raise _misfit(component, z, objective.outputs)
        if estimator is None:
            return auxiliary
        return estimator.model(auxiliary, smashed_shape=shape, objective=objective)


def _refuse_lost_hooks(component: Component, auxiliary: nn.Module, *, in_closed_form: bool) -> None:
    refuse_lost_hooks("auxiliary._target_", component.target, auxiliary)
    explicit = isinstance(auxiliary, ExplicitInputGradient | ExplicitErrorGradient)
    if explicit and in_closed_form and (found := describe_hook(auxiliary)):
        message = f"{found}, which gradients in closed form leave out"
        raise UserError("auxiliary._target_", component.target, message)


def _misfit(component: Component, z: Tensor, outputs: str) -> UserError:
    message = f"must make {outputs} from smashed data of shape {tuple(z.shape)}"
    return UserError("auxiliary._target_", component.target, message)


def _place(module: nn.Module, device: torch.device) -> nn.Module:
    # channels_last: convolutions on a CPU are up to twice as fast, on a GPU no slower
    dtype = torch.get_default_dtype()
    return module.to(device, dtype).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload, no-any-return]


@contextmanager
def _initialisation(seed: int, what: str) -> Iterator[None]:
    """Modules initialise themselves from torch's global generator: seed it, and put it back."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed_of(seed, f"initialisation of the {what}"))
        yield
