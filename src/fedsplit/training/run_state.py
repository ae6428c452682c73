"""The state of a run: everything that its next round depends on, given to checkpoints and taken from them."""

from collections.abc import Sequence

from fedsplit.algorithms.algorithm import Algorithm
from fedsplit.errors import RunFailed, UserError, first_line
from fedsplit.files.form import Misfit
from fedsplit.recording.checkpoint import Checkpoint
from fedsplit.recording.ledger import Ledger
from fedsplit.recording.metrics import Record
from fedsplit.state.state import State
from fedsplit.training.state_form import check_state, check_taken_over
from fedsplit.transport.transport import Transport


def run_state(
    algorithm: Algorithm,
    transport: Transport,
    ledger: Ledger,
    *,
    records: Sequence[Record],
    elapsed: float,
    identity: State,
) -> State:
    """State of a run between two rounds.

    Args:
        algorithm: algorithm, with its servers.
        transport: transport, with clients and links.
        ledger: ledger of all bytes so far.
        records: records of all rounds so far.
        elapsed: seconds that they took.
        identity: identity of the run, see `fedsplit.recording.identity`.
    """
    return {
        "algorithm": algorithm.state(),
        **transport.state(),
        "ledger": ledger.state(),
        "records": [record.state() for record in records],
        "elapsed": elapsed,
        "identity": identity,
    }


def take_over(
    checkpoint: Checkpoint, current: State, algorithm: Algorithm, transport: Transport, ledger: Ledger
) -> tuple[list[Record], float]:
    """Give the parts of a run the state that a checkpoint holds; return its records and their seconds.

    Args:
        checkpoint: checkpoint with the state.
        current: state of this run now, whose form the other must have.
        algorithm: algorithm, which takes over its part of the state, as transport and ledger do.
        transport: transport, with clients and links.
        ledger: ledger of bytes.

    Raises:
        UserError: the state is of another form than this version writes.
    """
    try:
        check_state(checkpoint, current, transport.run)
        records_and_seconds = _load(checkpoint.state, algorithm, transport, ledger)
        check_taken_over(checkpoint, algorithm.state(), transport.run.engine.state())
    except Misfit as misfit:
        raise checkpoint.unfit(misfit) from misfit
    return records_and_seconds


def _load(
    state: State, algorithm: Algorithm, transport: Transport, ledger: Ledger
) -> tuple[list[Record], float]:
    try:
        algorithm.load_state(state["algorithm"])
        transport.load_state(state)
        ledger.load_state(state["ledger"])
        return [Record.from_state(record) for record in state["records"]], float(state["elapsed"])
    except (UserError, RunFailed, Misfit):
        raise
    except Exception as error:  # whatever comes of what somebody else wrote
        message = first_line(error)
        raise Misfit("state", f"cannot be taken over ({type(error).__name__}: {message})") from error
