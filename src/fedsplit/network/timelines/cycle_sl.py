"""CycleSL: as minibatch SFL, but the server goes through a step's samples twice."""

from fedsplit.network.timelines.minibatch_sfl import MinibatchSflTimeline
from fedsplit.network.timelines.timeline import STEP


class CycleSlTimeline(MinibatchSflTimeline):
    """The server steps, and then takes each sample forward and back to the smashed data only."""

    server_passes = STEP + 2
