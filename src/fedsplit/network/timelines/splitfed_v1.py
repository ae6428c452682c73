"""SplitFed v1: clients train at once, each with a copy of the server model."""

from fedsplit.network.timelines.timeline import ClientRound, Round, Timeline
from fedsplit.network.work import BACKWARD, STEP, Work


class SplitFedV1Timeline(Timeline):
    """The slowest client's download, round trips and upload; the copies divide the server's speed evenly."""

    def seconds(self, round: Round) -> float:
        return max(
            client.download("client_weights") + trips(client, round.work) + client.upload("client_weights")
            for client in round.clients
        )


def trips(client: ClientRound, work: Work) -> float:
    """Seconds of a client's local steps: each waits for the cut gradient of the split server."""
    return sum(
        client.compute(samples * work.client)
        + client.upload("smashed", "labels", step=step)
        + client.server_compute(samples * STEP * work.server)
        + client.download("cut_gradient", step=step)
        + client.compute(samples * BACKWARD * work.client)
        for step, samples in enumerate(client.batches)
    )
