"""The algorithm of a run, with the servers that it trains."""

import inspect
from functools import partial

from fedsplit.algorithms.algorithm import Algorithm, Start
from fedsplit.building.parts import ClientParts, Ingredients
from fedsplit.computing.captured_steps import Recorder
from fedsplit.computing.model_state import ModelState
from fedsplit.config.choices import names_of, target_of
from fedsplit.config.component import component_of
from fedsplit.config.run_config import RunConfig
from fedsplit.errors import UserError
from fedsplit.estimators.alignment import Alignment
from fedsplit.optim.optimizers import RowOptimizer
from fedsplit.parties.local_rule import LocalRule
from fedsplit.parties.server_copies import SequentialCopies, ServerCopies
from fedsplit.parties.shared_client import SharedClient
from fedsplit.parties.split_server import SplitServer
from fedsplit.parties.spread.copies import SpreadCopies
from fedsplit.parties.spread.engine import SpreadEngine

_LOCAL_RULE = "algorithm.local_rule"


def find_algorithm(config: RunConfig) -> type[Algorithm]:
    """The class of the algorithm, which says what clients hold before there is an algorithm.

    Raises:
        UserError: the configuration names something else.
    """
    algorithm = config.algorithm.import_target()
    if not isinstance(algorithm, type) or not issubclass(algorithm, Algorithm):
        raise UserError("algorithm._target_", config.algorithm.target, "must be an Algorithm")
    return algorithm


def refuse_lost_models(config: RunConfig, algorithm: type[Algorithm], *, apart: bool) -> None:
    """Raise where what is each client's own would be dropped, or would not begin where the run does.

    Args:
        config: configuration of the run.
        algorithm: algorithm of the run.
        apart: True if clients are processes of their own.

    Raises:
        UserError: names the key.
    """
    half = algorithm.own_half_with(config.algorithm.arguments)
    if half is None:
        return
    if half == "client" and config.client.stateless:
        message = "must be false with this algorithm, whose client models stay with the clients"
        raise UserError("client.stateless", True, message)
    if apart and config.origin.run is not None:
        message = (
            "must be null with this transport: other processes begin with their half as it is initialised"
        )
        raise UserError("run", config.origin.run, message)


def find_local_rule(config: RunConfig, algorithm: type[Algorithm]) -> LocalRule:
    """Build the rule that clients follow in a local step.

    Raises:
        UserError: clients of this algorithm cannot follow it.
    """
    rule, name = config.local_step.local_rule.build(LocalRule), config.choice("algorithm")
    if algorithm.own_rule is not None and not isinstance(rule, algorithm.own_rule):
        own = _choice_of(algorithm.own_rule)
        if own or type(rule) is not LocalRule:
            needed = own or _choice_of(LocalRule)
            message = f"must be {needed}: clients of algorithm={name} follow its own rule"
            raise UserError(_LOCAL_RULE, _chosen_rule(config), message)
        rule = _own_rule(config, algorithm.own_rule)
    if rule.keeps and config.client.stateless:
        message = f"must be false: clients of algorithm={name} keep control variates from round to round"
        raise UserError("client.stateless", True, message)
    if rule.needs_loss and algorithm.client_head not in ("server", "auxiliary"):
        message = f"needs a loss at the client, and with algorithm={name} there is none"
        raise UserError(_LOCAL_RULE, _chosen_rule(config), message)
    return rule


def _choice_of(rule: type[LocalRule]) -> str | None:
    """The choice of `algorithm.local_rule` that is this class; None where no choice is."""
    path = f"{rule.__module__}.{rule.__qualname__}"
    return next((name for name in names_of("local_rule") if target_of("local_rule", name) == path), None)


def _chosen_rule(config: RunConfig) -> str:
    return config.choices.get(f"local_rule@{_LOCAL_RULE}") or config.local_step.local_rule.target


def _own_rule(config: RunConfig, rule: type[LocalRule]) -> LocalRule:
    """The rule of an algorithm's own, with its arguments."""
    taken, arguments = inspect.signature(rule).parameters, config.algorithm.arguments
    own = {name: value for name, value in arguments.items() if name in taken}
    return component_of(config.algorithm.key, rule, **own).build(LocalRule)


def build_server(parts: Ingredients) -> SplitServer:
    """Split server of the algorithm, with its optimizer."""
    return SplitServer(
        parts.models.halves.server,
        parts.data.dataset.objective,
        parts.server_optimizer,
        parts.schedule,
        seed=parts.config.training.seed,
        recorder=_server_recorder(parts),
    )


def build_copies(parts: ClientParts) -> ServerCopies:
    """Copies of the server model; at workers where these compute one client after the other."""
    seed, recorder = parts.config.training.seed, _server_recorder(parts)
    module, optimizer = parts.models.halves.server, parts.server_optimizer
    copies = parts.engine.server_copies(module, optimizer, parts.schedule, seed, recorder)
    alone = isinstance(copies, SequentialCopies) and parts.models.halves.tail is None
    return SpreadCopies(parts.engine) if isinstance(parts.engine, SpreadEngine) and alone else copies


def _server_recorder(parts: Ingredients) -> Recorder | None:
    halves = parts.models.halves
    return None if halves.tail is not None else parts.recorders.of(halves.server)


def _refuse_what_drifts(parts: ClientParts) -> None:
    """Refuse what would not stay the same at clients that share one model by seeds and scalars alone.

    Raises:
        UserError: the client model has running statistics, or the optimizer a state that a client lacks which
            was left out of a round.
    """
    config, optimizer = parts.config, parts.client_optimizer
    moving = next((name for name, _ in parts.models.halves.client.named_buffers()), None)
    if moving is not None:
        message = (
            f"has {moving} before the cut, which no seed moves: {parts.algorithm_class.__name__} takes no"
        )
        raise UserError("model", config.choice("model"), f"{message} running statistics")
    population, transport = config.population, config.transport.arguments
    goes_without = any(transport.get(key) is not None for key in ("min_clients", "round_deadline_s"))
    late = population.cohort < population.num_clients or goes_without
    stays = not isinstance(optimizer, RowOptimizer) or bool(optimizer.slots)
    if late and stays and not config.client.stateless:
        message = "keeps a state, which clients left out of a round do not have; take sgd without momentum, "
        message += "all clients in every round, or client.stateless=true"
        raise UserError("client_optimizer", type(optimizer).__name__, message)


def build_algorithm(parts: ClientParts, alignment: Alignment) -> Algorithm:
    """The algorithm, with its servers."""
    halves, auxiliary = parts.models.halves, parts.models.auxiliary
    if parts.rule.answers_seeds:
        _refuse_what_drifts(parts)
    start = Start(
        client_weights={k: v for part in halves.at_client for k, v in ModelState(part).weights().items()},
        auxiliary_weights=ModelState(auxiliary).weights() if auxiliary else {},
        server=build_server(parts),
        server_copies=build_copies(parts),
        alignment=alignment,
        seed=parts.config.training.seed,
        padding=halves.padding,
        buffers=frozenset(name for module in halves.modules for name, _ in module.named_buffers()),
        num_clients=parts.config.population.num_clients,
        has_positions=parts.quantization.positions.lengths is not None,
        shared_client=partial(SharedClient, halves.client, parts.client_optimizer, parts.schedule),
    )
    return parts.config.algorithm.build(Algorithm, start=start)
