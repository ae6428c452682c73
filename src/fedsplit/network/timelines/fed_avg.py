"""FedAvg: clients train by themselves."""

from fedsplit.network.timelines.timeline import STEP, Round, Timeline
from fedsplit.recording.ledger import Kind

WEIGHTS: tuple[Kind, ...] = ("full_weights", "client_weights")


class FedAvgTimeline(Timeline):
    """The slowest client's download, training of both halves, and upload."""

    def seconds(self, round: Round) -> float:
        sample = STEP * (round.work.client + round.work.server)
        return max(
            client.download(*WEIGHTS) + client.compute(client.samples * sample) + client.upload(*WEIGHTS)
            for client in round.clients
        )
