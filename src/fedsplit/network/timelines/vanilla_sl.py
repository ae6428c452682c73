"""Vanilla split learning: one client after the other, with the model of the one before it."""

from dataclasses import replace

from typing_extensions import override

from fedsplit.network.timelines.splitfed import SplitFedV2Timeline, trips
from fedsplit.network.timelines.timeline import Round


class VanillaSlTimeline(SplitFedV2Timeline):
    """Nobody can download before the client before it has uploaded; each has the servers for itself."""

    @override
    def seconds(self, round: Round) -> float:
        return sum(
            client.download("client_weights") + trips(client, round.work) + client.upload("client_weights")
            for client in (replace(each, sharing=1) for each in round.clients)
        )
