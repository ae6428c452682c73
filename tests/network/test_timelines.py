"""Two clients with known bytes, links and speeds; what each algorithm's round takes is worked out by hand.

Client 0: 1 MB/s up, 2 MB/s down, 0.1 s, 1 M multiply-adds a second, 10 samples in batches of 4, 4 and 2.
Client 1: half of it, 0.2 s, 7 samples in batches of 4 and 3.
The split server does 10 M multiply-adds a second.
"""

from dataclasses import replace

import pytest

from fedsplit.estimators.fit import Fit
from fedsplit.network.clock import Clock
from fedsplit.network.network import SimulatedDevice, SimulatedNetwork
from fedsplit.network.timelines.ampere import AmpereTimeline
from fedsplit.network.timelines.cse_fsl import CseFslTimeline
from fedsplit.network.timelines.cycle_sl import CycleSlTimeline
from fedsplit.network.timelines.fed_avg import FedAvgTimeline
from fedsplit.network.timelines.fsl_sage import FslSageTimeline
from fedsplit.network.timelines.lgl_sl import LglSlTimeline
from fedsplit.network.timelines.minibatch_sfl import MinibatchSflTimeline
from fedsplit.network.timelines.splitfed import SplitFedV1Timeline, SplitFedV2Timeline
from fedsplit.network.timelines.timeline import Timeline, Work
from fedsplit.network.timelines.vanilla_sl import VanillaSlTimeline
from fedsplit.recording.ledger import Direction, Kind, Messages

MB = 1_000_000
WORK = Work(client=10_000, server=100_000, auxiliary=5_000, estimate=10_000)
SAMPLES = {0: 10, 1: 7}
BATCHES = {0: [4, 4, 2], 1: [4, 3]}
DEVICES = {
    0: SimulatedDevice(up=8e6, down=16e6, speed=1e6, latency=0.1),
    1: SimulatedDevice(up=4e6, down=8e6, speed=0.5e6, latency=0.2),
}


class TwoClients(SimulatedNetwork):
    def device(self, client: int, seed: int) -> SimulatedDevice:
        return DEVICES[client]


NETWORK = TwoClients(
    up_mbps=None,
    down_mbps=None,
    latency_s=0,
    client_gmacs=None,
    server_up_mbps=None,
    server_down_mbps=None,
    server_gmacs=0.01,
    cost_per_mb=None,
)


def weights(direction: Direction, kind: Kind, size: int) -> Messages:
    return {(client, direction, kind, 0): size for client in SAMPLES}


def smashed(client: int, step: int) -> Messages:
    """0.1 MB a sample, labels included."""
    size = BATCHES[client][step] * MB // 10
    return {(client, "up", "smashed", step): size - 4, (client, "up", "labels", step): 4}


def seconds(
    timeline: Timeline,
    messages: Messages,
    fits: dict[int, Fit] | None = None,
    network: TwoClients = NETWORK,
    samples_at_rest: int = 0,
) -> float:
    clock = Clock(network, timeline, WORK, batch_size=4, local_epochs=1, seed=0)
    return clock.seconds(3, messages, SAMPLES.__getitem__, fits or {}, samples_at_rest)


def test_fed_avg_round_takes_as_long_as_its_slowest_client() -> None:
    messages = weights("down", "full_weights", 2 * MB) | weights("up", "full_weights", 2 * MB)
    # client 0: 0.1 + 2/2 down, 10 samples of 3 (10 k + 100 k), 0.1 + 2/1 up
    first = 1.1 + 10 * 0.33 + 2.1
    # client 1: 0.2 + 2/1 down, 7 samples at half the speed, 0.2 + 2/0.5 up
    second = 2.2 + 7 * 0.66 + 4.2
    assert seconds(FedAvgTimeline(), messages) == pytest.approx(max(first, second)) == 11.02
    alone = {key: size for key, size in messages.items() if key[0] == 0}
    assert seconds(FedAvgTimeline(), alone) == pytest.approx(first) == 6.5


def split_messages(order: tuple[int, int]) -> Messages:
    """Of both versions of SplitFed; cut gradients take 0.2 MB a sample, client models 2 MB."""
    messages = weights("down", "client_weights", 2 * MB)
    for client in order:
        for step, samples in enumerate(BATCHES[client]):
            messages |= smashed(client, step)
            messages[client, "down", "cut_gradient", step] = samples * MB // 5
    return messages | weights("up", "client_weights", 2 * MB)


# A local step of client 0 with b samples: forward 0.01 b; up 0.1 + 0.1 b; server 0.03 b, or with half of its
# speed 0.06 b; down 0.1 + 0.1 b; backward 0.02 b.
# Seconds of client 1: 0.02 b; 0.2 + 0.2 b; the same; 0.2 + 0.2 b; 0.04 b.
TRIPS = {0: 3 * 0.2 + 10 * 0.26, 1: 2 * 0.4 + 7 * 0.49}
SHARED_TRIPS = {0: 3 * 0.2 + 10 * 0.29, 1: 2 * 0.4 + 7 * 0.52}


def test_splitfed_v1_round_waits_for_every_cut_gradient_and_shares_the_server() -> None:
    first = 1.1 + SHARED_TRIPS[0] + 2.1
    second = 2.2 + SHARED_TRIPS[1] + 4.2
    assert seconds(SplitFedV1Timeline(), split_messages((0, 1))) == pytest.approx(max(first, second))
    alone = {key: size for key, size in split_messages((0, 1)).items() if key[0] == 0}
    assert seconds(SplitFedV1Timeline(), alone) == pytest.approx(1.1 + TRIPS[0] + 2.1)


def test_round_with_tails_waits_for_both_cuts() -> None:
    """Client 0 alone: beside its trips, down 0.1 + 0.05 b, the tail's step 0.003 b, up 0.1 + 0.1 b."""
    messages = {key: size for key, size in split_messages((0, 1)).items() if key[0] == 0}
    for step, samples in enumerate(BATCHES[0]):
        messages[0, "down", "smashed", step] = samples * MB // 10
        messages[0, "up", "cut_gradient", step] = samples * MB // 10
    tails = 3 * 0.2 + 10 * (0.05 + 0.003 + 0.1)
    expected = pytest.approx(1.1 + TRIPS[0] + tails + 2.1)
    clock = Clock(
        NETWORK, SplitFedV1Timeline(), replace(WORK, tail=1_000), batch_size=4, local_epochs=1, seed=0
    )
    assert clock.seconds(0, messages, SAMPLES.__getitem__, {}) == expected


def test_splitfed_v2_round_is_the_sum_of_its_clients_in_the_order_of_their_turns() -> None:
    turns = TRIPS[0] + TRIPS[1]
    assert seconds(SplitFedV2Timeline(), split_messages((0, 1))) == pytest.approx(
        # client 0 begins after its download, client 1 right after it; its upload ends the round
        1.1 + turns + 4.2
    )
    assert seconds(SplitFedV2Timeline(), split_messages((1, 0))) == pytest.approx(
        # client 1 begins, and uploads for longer than client 0 takes for its turn and its upload
        2.2 + TRIPS[1] + max(4.2, TRIPS[0] + 2.1)
    )


def test_splitfed_v2_round_waits_for_a_client_with_a_long_download() -> None:
    messages = split_messages((0, 1))
    messages[1, "down", "client_weights", 0] = 20 * MB
    assert seconds(SplitFedV2Timeline(), messages) == pytest.approx(20.2 + TRIPS[1] + 4.2)


def test_splitfed_v2_round_waits_for_a_client_with_a_long_upload() -> None:
    messages = split_messages((1, 0))
    messages[1, "up", "client_weights", 0] = 20 * MB
    assert seconds(SplitFedV2Timeline(), messages) == pytest.approx(2.2 + TRIPS[1] + 40.2)


def test_vanilla_sl_round_is_the_sum_of_all_that_its_clients_do() -> None:
    expected = 1.1 + TRIPS[0] + 2.1 + 2.2 + TRIPS[1] + 4.2
    for order in ((0, 1), (1, 0)):
        assert seconds(VanillaSlTimeline(), split_messages(order)) == pytest.approx(expected)


@pytest.mark.parametrize(("timeline", "sample"), [(MinibatchSflTimeline(), 0.03), (CycleSlTimeline(), 0.05)])
def test_minibatch_round_waits_in_every_step_for_the_slowest_client(
    timeline: Timeline, sample: float
) -> None:
    # client 1 is later with its first two batches, of 4 and 3 samples; the server has 8 and 7 then
    first = 2.2 + 4 * 0.02 + 0.2 + 4 * 0.2 + 8 * sample
    second = first + 0.2 + 4 * 0.2 + 4 * 0.04 + 3 * 0.02 + 0.2 + 3 * 0.2 + 7 * sample
    # client 0 has a third of 2
    third = second + 0.1 + 4 * 0.1 + 4 * 0.02 + 2 * 0.01 + 0.1 + 2 * 0.1 + 2 * sample
    ends = third + 0.1 + 2 * 0.1 + 2 * 0.02 + 2.1, second + 0.2 + 3 * 0.2 + 3 * 0.04 + 4.2
    assert seconds(timeline, split_messages((0, 1))) == pytest.approx(max(ends))


def test_lgl_sl_round_is_that_of_each_client_alone_with_its_share_of_the_server() -> None:
    steps = {0: [0, 1, 2], 1: [0, 1]}
    messages = weights("down", "client_weights", MB) | local_messages(steps, "client_weights")
    slow = replace(NETWORK, server_gmacs=0.005)
    alone = [{key: size for key, size in messages.items() if key[0] == client} for client in SAMPLES]
    expected = max(seconds(CseFslTimeline(), each, network=slow) for each in alone)
    assert seconds(LglSlTimeline(), messages) == pytest.approx(expected)


def test_ampere_round_of_uploads_ends_when_the_server_has_gone_through_all_of_them() -> None:
    messages = weights("down", "client_weights", 2 * MB) | local_messages({0: [0, 1, 2], 1: [0, 1]})
    # client 1 is done last: its link is busy from its first forward pass on, and has nothing left to send
    arrived = 2.2 + 4 * 0.02 + 7 * 0.2 + 0.2
    trained = 17 * 0.03
    timeline = AmpereTimeline()
    assert seconds(timeline, messages, samples_at_rest=17) == pytest.approx(arrived + trained)
    assert seconds(timeline, {}, samples_at_rest=17) == pytest.approx(trained)
    devices = messages | weights("up", "auxiliary_weights", MB)
    assert seconds(timeline, devices) == seconds(CseFslTimeline(), devices)


def local_messages(steps: dict[int, list[int]], *kinds_up: Kind) -> Messages:
    messages: Messages = {}
    for client, uploaded in steps.items():
        for step in uploaded:
            messages |= smashed(client, step)
    for kind in kinds_up:
        messages |= weights("up", kind, MB)
    return messages


def test_cse_fsl_round_ends_when_all_weights_have_arrived_and_the_server_queue_is_empty() -> None:
    down = weights("down", "client_weights", MB) | weights("down", "auxiliary_weights", MB)
    messages = down | local_messages({0: [0, 2], 1: [0]}, "client_weights", "auxiliary_weights")
    # client 0 starts at 0.1 + 2/2 = 1.1; a sample takes 3 (0.01 + 0.005) = 0.045.
    # Batch 0 is ready at 1.14 and sent by 1.54; batch 2 ready at 1.1 + 8 * 0.045 + 2 * 0.01 = 1.48, when the
    # link is still busy, so sent by 1.54 + 0.2 = 1.74. Training ends at 1.55, weights are sent from 1.74.
    # client 1 starts at 2.2; batch 0 is ready at 2.28, sent by 3.08; training ends at 2.2 + 7 * 0.09 = 2.83.
    weights_here = [1.74 + 0.1 + 2, 3.08 + 0.2 + 4]
    # the server takes 0.03 a sample: 1.64 to 1.76, 1.84 to 1.90, 3.28 to 3.40, long before the weights
    assert seconds(CseFslTimeline(), messages) == pytest.approx(max(weights_here)) == 7.28
    alone = {key: size for key, size in messages.items() if key[0] == 0}
    assert seconds(CseFslTimeline(), alone) == pytest.approx(weights_here[0])
    # at a hundredth of its speed it takes 3: from 1.64 on, without a pause
    slow = replace(NETWORK, server_gmacs=0.0001)
    assert seconds(CseFslTimeline(), messages, network=slow) == pytest.approx(1.64 + 10 * 3)


def test_cse_fsl_server_is_idle_until_an_upload_arrives() -> None:
    messages = local_messages({0: [0], 1: [1]})
    # nothing is downloaded or given back. Client 0: ready 0.04, here at 0.54. Client 1: ready at 4 * 0.09 +
    # 3 * 0.02 = 0.42, here at 0.42 + 0.6 + 0.2 = 1.22. At 0.1 a sample: 0.54 to 0.94, 1.22 to 1.52.
    slow = replace(NETWORK, server_gmacs=0.003)
    assert seconds(CseFslTimeline(), messages, network=slow) == pytest.approx(1.52)


def test_fsl_sage_clients_without_alignment_do_not_wait_for_the_server() -> None:
    down = weights("down", "client_weights", 2 * MB)
    messages = down | local_messages({0: [0, 2], 1: [0]}, "client_weights")
    # a sample takes 3 * 0.01 + 0.01 = 0.04 at client 0, 0.08 at client 1. Client 0 starts at 1.1, sends until
    # 1.54, batch 2 ready at 1.44, so until 1.74, weights here at 1.74 + 0.1 + 1.
    # Client 1 starts at 2.2, sends from 2.28 until 3.08, training ends at 2.76, weights at 3.08 + 0.2 + 2.
    assert seconds(FslSageTimeline(), messages) == pytest.approx(max(2.84, 5.28))
    slow = replace(NETWORK, server_gmacs=0.0001)
    assert seconds(FslSageTimeline(), messages, network=slow) == pytest.approx(1.64 + 10 * 3)


def test_fsl_sage_alignment_delays_only_the_clients_that_align() -> None:
    down = weights("down", "client_weights", 2 * MB) | {(0, "down", "auxiliary_weights", 0): MB}
    messages = down | local_messages({0: [0, 2], 1: [0]}, "client_weights")
    fits = {
        0: Fit(round=3, samples=20, epochs=5),
        1: Fit(round=2, samples=99, epochs=99),
    }  # 1: another round's
    # client 0: first batch ready at 1.14, here at 1.14 + 0.1 + 0.4 = 1.64; server step until 1.76;
    # cut gradients 20 * 2 * 0.01 = 0.4, fit 5 * 20 * 3 * 0.001 = 0.3, until 2.46; auxiliary model here at
    # 2.46 + 0.1 + 0.5 = 3.06. It trains 10 * 0.04 until 3.46, batch 2 ready at 3.06 + 0.32 + 0.02 = 3.40,
    # sent until 3.60, weights here at 3.60 + 0.1 + 1 = 4.70. Client 1 as ever: 5.28.
    assert seconds(FslSageTimeline(), messages, fits) == pytest.approx(max(4.70, 5.28))
    # without client 1 the round is client 0's
    alone = {key: size for key, size in messages.items() if key[0] == 0}
    assert seconds(FslSageTimeline(), alone, fits) == pytest.approx(4.70)
    # if the server takes a hundred times as long: step until 1.64 + 12, cut gradients and fit 70, auxiliary
    # model 0.6 later at 84.24; meanwhile client 1's batch waits from 3.28 on: 83.64 + 12 = 95.64. Client 0's
    # second batch is here at 84.24 + 0.34 + 0.3 = 84.88, so after it: 95.64 + 6 = 101.64.
    slow = replace(NETWORK, server_gmacs=0.0001)
    assert seconds(FslSageTimeline(), messages, fits, slow) == pytest.approx(101.64)


def test_fsl_sage_alignments_begin_after_the_server_trained_on_every_first_batch() -> None:
    down = weights("down", "client_weights", 2 * MB) | weights("down", "auxiliary_weights", MB)
    messages = down | local_messages({0: [0], 1: [0]}, "client_weights")
    fits = {client: Fit(round=3, samples=20, epochs=5) for client in SAMPLES}
    # client 1's first batch is ready at 2.28, here at 3.28; server step until 3.40; two alignments of 0.7
    # until 4.80. Auxiliary models here at 5.40 and 4.80 + 0.2 + 1 = 6.00; trained at 5.80 and 6.56;
    # weights here at 5.80 + 1.1 and 6.56 + 2.2.
    assert seconds(FslSageTimeline(), messages, fits) == pytest.approx(8.76)


def test_fsl_sage_warm_start_takes_the_time_of_cse_fsl() -> None:
    down = weights("down", "client_weights", MB) | weights("down", "auxiliary_weights", MB)
    messages = down | local_messages({0: [0, 2], 1: [0]}, "client_weights", "auxiliary_weights")
    assert seconds(FslSageTimeline(), messages) == pytest.approx(7.28)


def test_server_bandwidth_is_divided_among_simultaneous_clients() -> None:
    messages = weights("down", "full_weights", 2 * MB) | weights("up", "full_weights", 2 * MB)
    # 0.75 MB/s up and 1.5 MB/s down, half of it for each: less than either has
    narrow = replace(NETWORK, server_up_mbps=6.0, server_down_mbps=12.0)
    first, second = 0.1 + 2 / 0.75 + 3.3 + 0.1 + 2 / 0.375, 0.2 + 2 / 0.75 + 4.62 + 0.2 + 2 / 0.375
    assert seconds(FedAvgTimeline(), messages, network=narrow) == pytest.approx(max(first, second))
    # in its turn, a client of SplitFed v2 has all of it
    wide = replace(NETWORK, server_up_mbps=8.0, server_down_mbps=16.0)
    # weights take 1 MB/s down and 0.5 MB/s up for both, turns are as before
    expected = 2.1 + sum(TRIPS.values()) + 4.2
    assert seconds(SplitFedV2Timeline(), split_messages((0, 1)), network=wide) == pytest.approx(expected)


def test_unlimited_network_takes_only_its_latency() -> None:
    free = SimulatedNetwork(
        up_mbps=None,
        down_mbps=None,
        latency_s=0.25,
        client_gmacs=None,
        server_up_mbps=None,
        server_down_mbps=None,
        server_gmacs=None,
        cost_per_mb=None,
    )
    clock = Clock(free, SplitFedV1Timeline(), WORK, batch_size=4, local_epochs=1, seed=0)
    # there and back for weights, and for each of three local steps
    assert clock.seconds(0, split_messages((0, 1)), SAMPLES.__getitem__, {}) == 4 * 0.5


@pytest.mark.parametrize("client", [0, 1])
def test_local_epochs_multiply_the_time_of_training(client: int) -> None:
    clock = Clock(NETWORK, FedAvgTimeline(), WORK, batch_size=4, local_epochs=3, seed=0)
    messages: Messages = {(client, "up", "full_weights", 0): 0}
    sample = 0.33 if client == 0 else 0.66
    found = clock.seconds(0, messages, SAMPLES.__getitem__, {})
    assert found == pytest.approx(3 * SAMPLES[client] * sample + DEVICES[client].latency)
