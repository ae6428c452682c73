"""HO-SFL: two round trips a step, and nobody goes on before all slopes are there."""

from typing_extensions import override

from fedsplit.network.timelines.minibatch_sfl import MinibatchSflTimeline
from fedsplit.network.timelines.timeline import Round


class HoSflTimeline(MinibatchSflTimeline):
    """The server waits for the smashed data of a step, then for all slopes; clients wait for their sum."""

    @override
    def seconds(self, round: Round) -> float:
        work = round.work
        now = {each.client: each.download("client_weights") for each in round.clients}
        for step in range(max(len(each.batches) for each in round.clients)):
            present = [each for each in round.clients if step < len(each.batches)]
            samples = {each.client: each.batches[step] for each in present}
            served = self.serve(round, now, step)
            answered = max(
                served
                + each.download("cut_gradient", "seeds", step=step)
                + each.compute(samples[each.client] * (work.local_passes - 1) * work.client)
                + each.upload("scalars", step=step)
                for each in present
            )
            for each in round.clients:
                seeds = () if each in present else ("seeds",)
                now[each.client] = answered + each.download("scalars", *seeds, step=step)
        return max(now.values())
