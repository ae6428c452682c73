"""Minibatch SFL: at each step the server waits for all clients, and they for it."""

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
            arrived = max(
                now[each.client]
                + each.compute(samples[each.client] * work.client)
                + each.upload("smashed", "labels", step=step)
                for each in present
            )
            served = arrived + sum(samples.values()) * self.server_passes * work.server / round.servers.speed
            for each in present:
                descends = each.compute(samples[each.client] * BACKWARD * work.client)
                now[each.client] = served + each.download("cut_gradient", step=step) + descends
        return max(now[each.client] + each.upload("client_weights") for each in round.clients)
