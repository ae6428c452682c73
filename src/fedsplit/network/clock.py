"""Turns what was counted in a round into the seconds that it would take on a network."""

from collections.abc import Callable, Mapping
from functools import cache

from fedsplit.data.batches import batch_slices
from fedsplit.estimators.fit import Fit
from fedsplit.network.network import SimulatedDevice, SimulatedNetwork
from fedsplit.network.timelines.timeline import ClientRound, Round, Timeline, Work
from fedsplit.recording.ledger import Direction, Kind, Messages


class Clock:
    """Clock of simulated seconds of rounds."""

    def __init__(
        self,
        network: SimulatedNetwork,
        timeline: Timeline,
        work: Work,
        *,
        batch_size: int,
        local_epochs: int,
        seed: int,
    ) -> None:
        self.network, self.timeline, self.work = network, timeline, work
        self._batch_size, self._local_epochs = batch_size, local_epochs
        self.device: Callable[[int], SimulatedDevice] = cache(lambda client: network.device(client, seed))

    def seconds(
        self,
        t: int,
        messages: Messages,
        samples: Callable[[int], int],
        fits: Mapping[int, Fit],
        samples_at_rest: int = 0,
    ) -> float:
        """Simulated seconds of round `t`, from what was sent in it.

        Args:
            samples: number of training samples of a client.
            fits: cost of the last alignment of each client.
            samples_at_rest: number of samples that the server went through once all uploads were there.
        """
        sizes: dict[int, dict[tuple[Direction, Kind, int], int]]
        sizes = {client: {} for client, direction, *_ in messages if direction == "up"}  # in this order
        for (client, direction, kind, step), size in messages.items():
            sizes.setdefault(client, {})[direction, kind, step] = size
        clients = [
            ClientRound(
                client=client,
                device=self.device(client),
                servers=self.network.servers,
                sharing=len(sizes),
                batches=self._batches(samples(client)),
                sizes=own,
                fit=fits[client] if client in fits and fits[client].round == t else None,
            )
            for client, own in sizes.items()
        ]
        return self.timeline.seconds(Round(clients, self.network.servers, self.work, samples_at_rest))

    def _batches(self, samples: int) -> list[int]:
        pieces = batch_slices(samples, self._batch_size)
        return [piece.stop - piece.start for piece in pieces] * self._local_epochs
