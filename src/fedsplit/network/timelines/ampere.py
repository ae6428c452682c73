"""Ampere: devices first, then one upload, then the server alone."""

from typing_extensions import override

from fedsplit.network.timelines.cse_fsl import CseFslTimeline, train_locally
from fedsplit.network.timelines.timeline import STEP, Round


class AmpereTimeline(CseFslTimeline):
    """Device rounds are CSE-FSL's without uploads; then the server begins once all smashed data are there."""

    @override
    def seconds(self, round: Round) -> float:
        if any(client.has("up", "auxiliary_weights") for client in round.clients):
            return super().seconds(round)
        local = [
            # forward passes alone: smashed data of a batch leave while the next is computed
            train_locally(client, client.download("client_weights"), round, round.work.client)
            for client in round.clients
        ]
        arrived = max((arrival.at for each in local for arrival in each.arrivals), default=0.0)
        return arrived + round.samples_at_rest * STEP * round.work.server / round.servers.speed
