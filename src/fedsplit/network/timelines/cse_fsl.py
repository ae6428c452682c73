"""CSE-FSL: nobody waits for the split server, which works off what arrives."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from typing_extensions import override

from fedsplit.network.timelines.timeline import STEP, ClientRound, Round, Timeline


class Arrival(NamedTuple):
    """Smashed data that reach the split server, in seconds from the start of the round."""

    at: float
    samples: int


@dataclass(frozen=True)
class LocalTimes:
    """Times of a client's local training, in seconds from the start of the round.

    Args:
        arrivals: times of arrival of smashed data at the split server.
        end: time when its weights have arrived.
    """

    arrivals: list[Arrival]
    end: float


class CseFslTimeline(Timeline):
    """Clients train and upload meanwhile; the round ends with their weights and an empty queue."""

    @override
    def seconds(self, round: Round) -> float:
        step = round.work.local_passes * (round.work.client + round.work.auxiliary)
        starts = {each.client: each.download("client_weights", "auxiliary_weights") for each in round.clients}
        return training_end(round, starts, step=step)


def training_end(round: Round, starts: Mapping[int, float], *, step: int, idle_from: float = 0.0) -> float:
    """Time at which all weights have arrived and the split server has stepped on all uploads.

    Args:
        starts: time when each client starts its local training.
        step: multiply-adds of a local step, for a sample.
        idle_from: time from which the split server is idle.
    """
    local = [train_locally(client, starts[client.client], round, step) for client in round.clients]
    arrivals = [arrival for each in local for arrival in each.arrivals]
    return max(server_end(arrivals, idle_from, round), *(each.end for each in local))


def train_locally(client: ClientRound, start: float, round: Round, step: int) -> LocalTimes:
    """Smashed data leave after the forward pass, one batch after the other, while training goes on."""
    now = link_free = start
    arrivals = []
    for number, samples in enumerate(client.batches):
        sent_before = number == 0 and client.fit is not None
        if client.has("up", "smashed", number) and not sent_before:
            ready = now + client.compute(samples * round.work.client)
            link_free = max(link_free, ready) + client.sending("smashed", "labels", step=number)
            arrivals.append(Arrival(link_free + client.device.latency, samples))
        now += client.compute(samples * step)
    weights = client.upload("client_weights", "auxiliary_weights")
    return LocalTimes(arrivals, max(link_free, now) + weights)


def server_end(arrivals: Iterable[Arrival], idle_from: float, round: Round) -> float:
    """Time at which the split server has stepped on all uploads, first come, first served."""
    done = idle_from
    for arrival in sorted(arrivals):
        done = max(done, arrival.at) + arrival.samples * STEP * round.work.server / round.servers.speed
    return done
