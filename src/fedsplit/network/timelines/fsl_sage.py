"""FSL-SAGE: as CSE-FSL, but clients that align first wait for their auxiliary models."""

from typing_extensions import override

from fedsplit.network.timelines.cse_fsl import Arrival, CseFslTimeline, server_end, training_end
from fedsplit.network.timelines.timeline import STEP, ClientRound, Round, Work


class FslSageTimeline(CseFslTimeline):
    """First batches up, server steps, all alignments, auxiliary models down; then local training."""

    @override
    def seconds(self, round: Round) -> float:
        if any(client.has("up", "auxiliary_weights") for client in round.clients):
            return super().seconds(round)  # clients train their auxiliary models: a warm start
        work = round.work
        starts = {each.client: each.download("client_weights") for each in round.clients}
        aligning = sorted((each for each in round.clients if each.fit), key=lambda each: each.client)
        first = [_first_batch(client, starts[client.client], work) for client in aligning]
        aligned = server_end(first, 0.0, round) + sum(
            _alignment(client, work) / round.servers.speed for client in aligning
        )
        starts |= {each.client: aligned + each.download("auxiliary_weights") for each in aligning}
        step = STEP * work.client + work.estimate
        return training_end(round, starts, step=step, idle_from=aligned)


def _first_batch(client: ClientRound, start: float, work: Work) -> Arrival:
    samples = client.batches[0]
    ready = start + client.compute(samples * work.client)
    return Arrival(ready + client.upload("smashed", "labels"), samples)


def _alignment(client: ClientRound, work: Work) -> int:
    """Multiply-adds of true cut gradients (back to smashed data only, so as many as forward) and the fit."""
    assert client.fit is not None
    samples, epochs = client.fit.samples, client.fit.epochs
    return samples * 2 * work.server + epochs * samples * STEP * work.estimate
