"""SplitFed v2: one server model, clients one after the other."""

from dataclasses import replace

from fedsplit.network.timelines.splitfed_v1 import trips
from fedsplit.network.timelines.timeline import Round, Timeline


class SplitFedV2Timeline(Timeline):
    """Clients download at once, wait for their turn, and upload while the next one has its turn.

    In its turn a client has the servers for itself.
    """

    def seconds(self, round: Round) -> float:
        turn = end = 0.0
        for client in round.clients:
            begin = max(turn, client.download("client_weights"))
            turn = begin + trips(replace(client, sharing=1), round.work)
            end = max(end, turn + client.upload("client_weights"))
        return end
