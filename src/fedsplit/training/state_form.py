"""Check of a checkpoint's state against the form that a run takes over, before anything of it is used."""

import re

from torch import Tensor

from fedsplit.files.form import Misfit, check_form, check_keys, check_like
from fedsplit.recording.checkpoint import Checkpoint
from fedsplit.recording.ledger import DIRECTIONS, KINDS, Direction, Kind
from fedsplit.recording.metrics import PHASES, Record
from fedsplit.state.state import State
from fedsplit.transport.transport import RunSetting

_NUMBERS_OF_TRAFFIC = 4
_NUMBER = re.compile("0|[1-9][0-9]{0,17}")


def identity_of(checkpoint: Checkpoint) -> State:
    """Configuration, data and digest of frozen parameters of the run that a checkpoint is of.

    They are under `config`, `data` and `frozen`.

    Raises:
        UserError: it keeps none, or something else.
    """
    try:
        if "identity" not in checkpoint.state:
            raise Misfit("state", "must have identity")
        kept = check_keys(checkpoint.state["identity"], ("config", "data", "frozen"), "state.identity")
        for key in ("config", "data"):
            check_keys(kept[key], None, f"state.identity.{key}")
        check_form(kept["frozen"], str, "state.identity.frozen")
    except Misfit as misfit:
        raise checkpoint.unfit(misfit) from misfit
    identity: State = dict(kept)
    return identity


def check_state(checkpoint: Checkpoint, current: State, run: RunSetting) -> None:
    """Check the state of a run.

    Args:
        checkpoint: checkpoint with the state.
        current: state of the run that is to take it over.
        run: setting of the run, whose clients' models the state holds.

    Raises:
        Misfit: it has another form.
    """
    state = checkpoint.state
    check_keys(state, list(current), "state")
    for key in ("elapsed", "records"):
        check_like(state[key], current[key], f"state.{key}")
    for key in ("ledger", "clients"):
        check_keys(state[key], None, f"state.{key}")
    for key in ("algorithm", "links"):
        check_keys(state[key], list(current[key]), f"state.{key}")
    _check_algorithm(state["algorithm"], current["algorithm"])
    _check_own(state["algorithm"].get("own", {}), run)
    if not 0 <= state["elapsed"] < float("inf"):
        raise Misfit("state.elapsed", "must be a number of seconds")
    _check_records(state["records"], checkpoint.rounds)
    _check_ledger(state["ledger"])
    _check_clients(state["clients"], run)
    check_form(state.get("after", {}), dict[str, int], "state.after")
    for client in state.get("after", {}):
        _check_client(client, run, "state.after")


def check_taken_over(checkpoint: Checkpoint, algorithm: State, clients: State) -> None:
    """Check that a run, once it has taken a state over, holds all of it.

    Args:
        checkpoint: checkpoint that held the state.
        algorithm: state of the algorithm now.
        clients: state of the clients in this process now.

    Raises:
        Misfit: the state had something that the run has not.
    """
    for key, current in (("algorithm", algorithm), ("clients", clients)):
        check_like(checkpoint.state[key], current, f"state.{key}")


def _check_algorithm(loaded: State, current: State) -> None:
    """Check what is the same in all rounds: names, shapes and types of models' weights."""
    for key, like in current.items():
        if isinstance(like, dict) and like and all(isinstance(tensor, Tensor) for tensor in like.values()):
            check_like(loaded[key], like, f"state.algorithm.{key}")
    server = check_keys(loaded["server"], list(current["server"]), "state.algorithm.server")
    check_like(server["weights"], current["server"]["weights"], "state.algorithm.server.weights")
    check_keys(server["optimizer"], list(current["server"]["optimizer"]), "state.algorithm.server.optimizer")


def _check_own(weights_by_client: State, run: RunSetting) -> None:
    """Check that models of clients' own are of one half of the model, and of clients of this run."""
    place, body, head = "state.algorithm.own", run.client_weights, run.head_weights
    for client, weights in check_keys(weights_by_client, None, place).items():
        _check_client(client, run, place)
        names = set(check_keys(weights, None, f"{place}.{client}"))
        like = next(
            (half_weights for half_weights in (body, head) if names == set(half_weights)), {**body, **head}
        )
        check_like(weights, like, f"{place}.{client}")


def _check_records(records: list[object], rounds: int) -> None:
    for number, record in enumerate(records):
        place = f"state.records.{number}"
        check_form(record, Record, place)
        check_keys(record["seconds"], PHASES, f"{place}.seconds")  # type: ignore[index]
        if record["round"] != number:  # type: ignore[index]
            message = f"must be {number}: rounds are 0, 1, 2, ..., and not {record['round']}"  # type: ignore[index]
            raise Misfit(f"{place}.round", message)
    if len(records) != rounds:
        raise Misfit("state.records", f"must be of {rounds} rounds, and not {len(records)}")


def _check_ledger(ledger: State) -> None:
    for round, entry in ledger.items():
        place = f"state.ledger.{round}"
        if not _NUMBER.fullmatch(round):
            raise Misfit(place, "must be of a round")
        check_keys(entry, (*DIRECTIONS, "again", "copies", "observed"), place)
        for key in ("copies", "observed"):
            check_form(entry[key], int, f"{place}.{key}")
        check_form(entry["again"], dict[Direction, int], f"{place}.again")
        for direction in DIRECTIONS:
            check_form(entry[direction], dict[Kind, list[float]], f"{place}.{direction}")
            for kind in KINDS:
                if len(entry[direction][kind]) != _NUMBERS_OF_TRAFFIC:
                    raise Misfit(f"{place}.{direction}.{kind}", f"must be {_NUMBERS_OF_TRAFFIC} numbers")


def _check_clients(clients: State, run: RunSetting) -> None:
    for client, client_state in clients.items():
        _check_client(client, run, "state.clients")
        place = f"state.clients.{client}"
        check_keys(client_state, ("body", "head"), place)
        for half, weights in (("body", run.client_weights), ("head", run.head_weights)):
            if client_state[half] is not None:
                if "weights" not in check_keys(client_state[half], None, f"{place}.{half}"):
                    raise Misfit(f"{place}.{half}", "must have weights")
                check_like(client_state[half]["weights"], weights, f"{place}.{half}.weights")


def _check_client(client: str, run: RunSetting, place: str) -> None:
    clients = len(run.sample_counts)
    if not _NUMBER.fullmatch(client) or int(client) >= clients:
        raise Misfit(f"{place}.{client}", f"must be of a client from 0 to {clients - 1}")
