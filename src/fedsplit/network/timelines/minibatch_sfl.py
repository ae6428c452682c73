"""Minibatch SFL: at each step the server waits for all clients, and they for it."""

from collections.abc import Mapping

from typing_extensions import override

from fedsplit.network.timelines.timeline import BACKWARD, STEP, Round, Timeline


class MinibatchSflTimeline(Timeline):
    """The server steps once the slowest client's smashed data of a step are there, with its whole speed."""

    server_passes = STEP
    """Forward passes of the server model that its work on a sample takes as long as."""

    @override
    def seconds(self, round: Round) -> float:
        work = round.work
        now = {each.client: each.download("client_weights") for each in round.clients}
        for step in range(max(len(each.batches) for each in round.clients)):
            present = [each for each in round.clients if step < len(each.batches)]
            samples = {each.client: each.batches[step] for each in present}
            served = self.serve(round, now, step)
            for each in present:
                descends = each.compute(samples[each.client] * BACKWARD * work.client)
                now[each.client] = served + each.download("cut_gradient", step=step) + descends
        return max(now[each.client] + each.upload("client_weights") for each in round.clients)

    def serve(self, round: Round, now: Mapping[int, float], step: int) -> float:
        """Time at which the server has stepped on the smashed data of a local step, in seconds.

        Args:
            round: round of the step.
            now: time when each client begins its step.
            step: the local step.
        """
        work, arrivals, total = round.work, [], 0
        for each in (each for each in round.clients if step < len(each.batches)):
            samples = each.batches[step]
            total += samples
            computed = now[each.client] + each.compute(samples * work.client)
            arrivals.append(computed + each.upload("smashed", "labels", step=step))
        return max(arrivals) + total * self.server_passes * work.server / round.servers.speed
