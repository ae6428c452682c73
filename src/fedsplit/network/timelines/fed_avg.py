"""FedAvg: clients train by themselves."""

from typing_extensions import override

from fedsplit.network.timelines.timeline import Round, Timeline
from fedsplit.recording.ledger import Kind

WEIGHTS: tuple[Kind, ...] = ("full_weights", "client_weights", "control_variates")
"""Kinds of weights that travel together as one message."""


class FedAvgTimeline(Timeline):
    """The slowest client's download, training of both halves, and upload."""

    @override
    def seconds(self, round: Round) -> float:
        sample = round.work.local_passes * (round.work.client + round.work.server)
        return max(
            client.download(*WEIGHTS) + client.compute(client.samples * sample) + client.upload(*WEIGHTS)
            for client in round.clients
        )
