"""States that a client keeps in its folder from round to round; it takes over only its own."""

from pathlib import Path

from fedsplit.data.fingerprint import Fingerprint
from fedsplit.errors import RunFailed, UserError
from fedsplit.recording import checkpoint
from fedsplit.recording.checkpoint import Checkpoint
from fedsplit.recording.identity import changes
from fedsplit.state.state import State
from fedsplit.transport.grpc.protocol import federation_pb2 as pb


class KeptStates:
    """The states of one client of one run."""

    def __init__(self, folder: Path, *, run: str, client: int, data: Fingerprint) -> None:
        self.folder = folder
        self._identity: State = {"run": run, "client": client, "data": data}

    def rounds(self) -> list[int]:
        """After how many rounds states are kept."""
        return checkpoint.kept(self.folder)

    def keep(self, state: State, asked: pb.Keep) -> None:
        """Keep the state after a round, in place of those that are not needed any more."""
        kept = Checkpoint(asked.rounds, {**state, "identity": self._identity})
        checkpoint.replace(self.folder, kept, needed=asked.needed, durable=asked.durable)

    def after(self, rounds: int) -> State:
        """The state after so many rounds.

        Raises:
            RunFailed: it is damaged or gone, or that of another client or run, or other images were there.
        """
        try:
            kept = checkpoint.load(self.folder, rounds)
        except UserError as error:
            raise RunFailed(error.allowed) from error
        if kept is None:
            raise RunFailed(f"its state after {rounds} rounds is damaged or gone from {self.folder}")
        found = kept.state.get("identity")
        if not isinstance(found, dict) or found.keys() != self._identity.keys():
            raise RunFailed(f"its state in {self.folder} does not say whose it is")
        for key, whose in (("run", "another run"), ("client", f"client {found['client']}")):
            if found[key] != self._identity[key]:
                raise RunFailed(f"its state in {self.folder} is that of {whose}")
        if told := changes(found["data"], self._identity["data"]):
            raise RunFailed(f"its images are not those that its state in {self.folder} is of: {told}")
        return kept.state
