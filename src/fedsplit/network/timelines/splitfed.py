"""SplitFed: clients train at once, each with a copy of the server model (v1), or one after the other (v2)."""

from dataclasses import replace

from typing_extensions import override

from fedsplit.network.timelines.timeline import BACKWARD, STEP, ClientRound, Round, Timeline, Work


class SplitFedV1Timeline(Timeline):
    """The slowest client's download, round trips and upload; the copies divide the server's speed evenly."""

    @override
    def seconds(self, round: Round) -> float:
        return max(
            client.download("client_weights") + trips(client, round.work) + client.upload("client_weights")
            for client in round.clients
        )


def trips(client: ClientRound, work: Work) -> float:
    """Seconds of a client's local steps: each waits for the cut gradient of the split server.

    With a tail the server waits for the client in between.
    """
    return sum(
        client.compute(samples * work.client)
        + client.upload("smashed", "labels", step=step)
        + client.server_compute(samples * STEP * work.server)
        + client.download("smashed", step=step)
        + client.compute(samples * STEP * work.tail)
        + client.upload("cut_gradient", step=step)
        + client.download("cut_gradient", step=step)
        + client.compute(samples * BACKWARD * work.client)
        for step, samples in enumerate(client.batches)
    )


class SplitFedV2Timeline(Timeline):
    """Clients download at once, wait for their turn, and upload while the next one has its turn.

    In its turn a client has the servers for itself.
    """

    @override
    def seconds(self, round: Round) -> float:
        turn = end = 0.0
        for client in round.clients:
            begin = max(turn, client.download("client_weights"))
            turn = begin + trips(replace(client, sharing=1), round.work)
            end = max(end, turn + client.upload("client_weights"))
        return end
