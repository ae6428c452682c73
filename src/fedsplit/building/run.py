"""Building of a run from top to bottom: first what clients are made of, then what serves them."""

from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module

from fedsplit.building.algorithm import (
    build_algorithm,
    build_copies,
    build_server,
    find_algorithm,
    find_local_rule,
    refuse_lost_models,
)
from fedsplit.building.alignment import build_alignment
from fedsplit.building.batches_of_one import refuse_batches_of_one
from fedsplit.building.blueprint import build_blueprint
from fedsplit.building.clock import build_clock
from fedsplit.building.cluster import build_cluster, spread
from fedsplit.building.data import Data, build_data
from fedsplit.building.defence import build_defence, with_private_gradients
from fedsplit.building.device import find_device
from fedsplit.building.engines import decide_engine
from fedsplit.building.evaluation import build_evaluator, build_local_evaluator
from fedsplit.building.kept_state import estimate_kept_state, refuse_state_beyond_machine
from fedsplit.building.models import build_models, refuse_tail, set_models_computation
from fedsplit.building.parts import ClientParts, Ingredients, RunParts
from fedsplit.building.process import prepare_process
from fedsplit.building.quantization import build_quantization
from fedsplit.building.recorders import Recorders, build_recorder
from fedsplit.building.trained_start import TrainedStart
from fedsplit.computing.memory import Memory
from fedsplit.computing.model_state import learning_parameters, travelling_tensors
from fedsplit.config.run_config import RunConfig
from fedsplit.config.values import Plain
from fedsplit.data.batches import batch_slices
from fedsplit.errors import UserError
from fedsplit.estimators.estimator import GradientEstimator
from fedsplit.machine.extras import extra
from fedsplit.network.network import Network
from fedsplit.optim.optimizers import Optimizer
from fedsplit.optim.schedules import Schedule
from fedsplit.parties.engine import Engine
from fedsplit.parties.server_copies import SequentialCopies
from fedsplit.parties.spread.worker import SpreadWorker
from fedsplit.privacy.noise import Secrets
from fedsplit.recording.ledger import Ledger
from fedsplit.state.weights import Weights
from fedsplit.transport.local import LocalTransport
from fedsplit.transport.transport import Member, RunSetting, Transport

_MOST_APART = 10_000
"""Clients in processes of their own: the server has a stream and threads for each."""


def build_run(config: RunConfig, start: TrainedStart | None = None) -> RunParts:
    """Build all that a run is made of.

    Args:
        config: configuration of the run.
        start: trained models to start from; None starts from models as they are initialised.

    Raises:
        UserError: what is asked for cannot be built.
    """
    cluster = build_cluster(config)
    clients = spread(build_clients(config, start=start), cluster, build_worker)
    alignment = build_alignment(clients)
    algorithm = build_algorithm(clients, alignment)
    network = clients.config.network.build(Network)
    clock = build_clock(clients, network)
    ledger = Ledger(keeps_messages=clock is not None)
    parts = RunParts(
        **vars(clients),
        alignment=alignment,
        algorithm=algorithm,
        network=network,
        clock=clock,
        ledger=ledger,
        transport=build_transport(clients, ledger),
        evaluate=build_evaluator(clients),
        evaluate_locally=build_local_evaluator(clients),
    )
    if (kept := estimate_kept_state(parts)) is not None:
        refuse_state_beyond_machine(kept)
    return parts


def build_clients(
    config: RunConfig,
    *,
    member: Member | None = None,
    start: TrainedStart | None = None,
    sizes_only: bool = False,
    given: Data | None = None,
) -> ClientParts:
    """Build what clients are made of.

    Args:
        config: configuration of the run.
        member: client whose process this is; None where all clients are known.
        start: trained models to start from; None starts from models as they are initialised.
        sizes_only: True if only number and sizes of the images are asked for.
        given: the data of the run, in a worker; None reads them.

    Raises:
        UserError: what is asked for cannot be built.
    """
    with extra("transport", config.choices.get("transport")):
        import_module(config.transport.target.rpartition(".")[0])
    device = find_device(config.computation.device)
    config = replace(config, computation=replace(config.computation, device=str(device)))
    apart = not config.transport.is_class(LocalTransport)
    if apart and (clients := config.population.num_clients) > _MOST_APART:
        message = (
            f"must be at most {_MOST_APART:,} with transport={config.choice('transport')}: each is a process"
        )
        raise UserError("num_clients", clients, message)

    data = given or build_data(config, device, member=member, apart=apart, sizes_only=sizes_only)
    schedule = build_schedule(config, data)
    client_optimizer = (config.client_optimizer or config.optimizer).build(Optimizer)
    server_optimizer = (config.server_optimizer or config.optimizer).build(Optimizer)
    auxiliary_optimizer = config.alignment.optimizer.build(Optimizer)
    estimator = config.estimator.build(GradientEstimator)
    algorithm = find_algorithm(config)
    refuse_lost_models(config, algorithm, apart=apart)
    if not algorithm.takes_tail:
        refuse_tail(config, f"with algorithm={config.choice('algorithm')}, whose clients hold no tail")
    rule = find_local_rule(config, algorithm)
    defence = build_defence(config, algorithm, rule, data)

    models = build_models(config, data, device, estimator, algorithm.client_head)
    if start is not None:
        start.load_into(models.halves, models.auxiliary)
    set_models_computation(models, config, device)
    head = models.halves.server if algorithm.client_head == "server" else models.auxiliary
    rule = with_private_gradients(rule, defence, config=config, data=data, models=models, head=head)
    recorder = build_recorder(config, device, client_optimizer, server_optimizer, auxiliary_optimizer)
    estimates = algorithm.client_head == "estimator"
    parts = Ingredients(
        config=config,
        device=device,
        apart=apart,
        data=data,
        models=models,
        algorithm_class=algorithm,
        estimator=estimator,
        client_optimizer=client_optimizer,
        server_optimizer=server_optimizer,
        auxiliary_optimizer=auxiliary_optimizer,
        schedule=schedule,
        rule=rule,
        defence=defence,
        secrets=Secrets(config.training.seed, own=member.secret if member else None),
        recorders=Recorders(recorder, data, models, estimator, estimates, device),
        quantization=build_quantization(
            config,
            models.smashed_shape,
            lambda: models.coded_shape,
            data.dataset.objective,
            models.halves.padding,
            exact_weights=rule.answers_seeds,  # clients share one model
            trunk_shapes=models.trunk_shapes,
        ),
        memory=build_memory(config),
    )
    refuse_batches_of_one(parts)
    blueprint = build_blueprint(parts)
    config = decide_engine(parts, blueprint)
    engine = config.engine.build(Engine, blueprint=blueprint)
    return ClientParts(**{**vars(parts), "config": config}, engine=engine)


def build_schedule(config: RunConfig, data: Data) -> Schedule:
    """The schedule of learning rates, which may count local steps.

    Raises:
        UserError: it does, and nobody knows how many a round has.
    """
    schedule = config.scheduler.build(Schedule)
    if not schedule.counts_steps:
        return schedule
    if data.distribution.at_clients:
        message = "must count rounds with distribution=own: local steps of other clients are not known"
        raise UserError("scheduler", config.choice("scheduler"), message)
    batches = len(batch_slices(max(data.shards.sizes), config.training.batch_size))
    return schedule.in_rounds_of(batches * config.training.local_epochs)


def build_memory(config: RunConfig) -> Memory:
    """Memory of uploads and auxiliary models: in memory up to `auxiliary.memory_mb`, then in files."""
    most = config.alignment.memory_mb
    return Memory(None if most is None else most * 1e6)


def build_transport(parts: ClientParts, ledger: Ledger) -> Transport:
    """Transport that carries verbs to the clients and back; bytes are counted in `ledger`."""
    return parts.config.transport.build(Transport, run=carried_run(parts, ledger))


def carried_run(parts: ClientParts, ledger: Ledger) -> RunSetting:
    """Parts of a run that a transport needs; bytes are counted in `ledger`."""
    client, head = parts.models.halves.client, parts.engine.blueprint.head
    trained = [client, *([head] if head else [])] if parts.rule.keeps else []
    return RunSetting(
        config=parts.config,
        engine=parts.engine,
        sample_counts=parts.sample_counts,
        dataset=parts.data.dataset,
        fingerprint=parts.data.fingerprint,
        quantization=parts.quantization,
        smashed_shape=parts.models.smashed_shape,
        client_weights=travelling_tensors(client),
        head_weights=travelling_tensors(head) if head else {},
        trunk_shape=parts.models.trunk_shapes and parts.models.trunk_shapes[0],
        control_variates={
            name: each for module in trained for name, each in learning_parameters(module).items()
        },
        device=parts.device,
        seed=parts.config.training.seed,
        ledger=ledger,
        build=run_of_member,
        frozen_digest=parts.models.frozen_digest,
        probes=parts.rule.probes if parts.rule.answers_seeds else 0,
    )


def run_of_member(config: RunConfig, member: Member) -> RunSetting:
    """Parts of a run that the process of one client needs, once it is prepared for it."""
    prepare_process(config)
    return carried_run(build_clients(config, member=member), Ledger())


def build_worker(config: Plain, data: Data, held: Sequence[Weights | None]) -> SpreadWorker:
    """Worker of a cluster that computes clients of a run.

    Args:
        config: plain values of the run's configuration, with the engine that was decided on.
        data: data of the run.
        held: tensors that the parts of the model and the auxiliary model hold.
    """
    parsed = RunConfig.parse(config)
    prepare_process(parsed)
    parts = build_clients(parsed, given=data)
    for module, weights in zip((*parts.models.halves.modules, parts.models.auxiliary), held, strict=True):
        if module is not None and weights is not None:
            module.load_state_dict(weights)
    copies = build_copies(parts)
    return SpreadWorker(
        parts.engine,
        parts.device,
        copies=copies if isinstance(copies, SequentialCopies) else None,
        alignment=build_alignment(parts),
        server=build_server(parts),
    )
