"""Local-loss-based split learning: clients as in CSE-FSL, with a server copy for each."""

from dataclasses import replace

from typing_extensions import override

from fedsplit.network.timelines.cse_fsl import CseFslTimeline
from fedsplit.network.timelines.timeline import Round


class LglSlTimeline(CseFslTimeline):
    """Each copy works off its own client's uploads; the copies divide the server's speed evenly."""

    @override
    def seconds(self, round: Round) -> float:
        servers = replace(round.servers, speed=round.servers.speed / len(round.clients))
        return max(
            super(LglSlTimeline, self).seconds(replace(round, clients=[each], servers=servers))
            for each in round.clients
        )
