"""Links of weights: what is rounded away is not lost, and both ends always know the same."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from fedsplit.quant.codec import Codec
from fedsplit.quant.codecs.affine import affine
from fedsplit.quant.codecs.bfloat16 import BFloat16
from fedsplit.quant.codecs.float16 import Float16
from fedsplit.quant.codecs.identity import Identity
from fedsplit.quant.codecs.sign import Sign
from fedsplit.quant.codecs.topk import TopK
from fedsplit.quant.codecs.zstd import Zstd
from fedsplit.quant.quantization import WeightsCodecs
from fedsplit.quant.weights_link import Delivery, Downlink, Uplink
from fedsplit.recording.checkpoint import Checkpoint, load_latest, save
from fedsplit.state.weights import Weights
from tests.cases import long_but

CPU = torch.device("cpu")
EXACT = Identity()
INT4 = affine(bits=4, granularity="block")
INT8 = affine(bits=8, granularity="block")
LOSSY: dict[str, Codec] = {
    "int2": affine(bits=2, granularity="block", range="mse"),
    "int4": INT4,
    "int4 stochastic": affine(bits=4, granularity="block", rounding="stochastic"),
    "sign": Sign(),
    "topk": TopK(fraction=0.1),
    "bf16": BFloat16(),
}
ONE_OF_EACH = ("int4 stochastic", "sign", "topk", "bf16")
"""Codecs of each kind, where what is tested is how links repeat them."""
SHAPES = {"conv.weight": (6, 4, 3, 3), "fc.weight": (20, 30), "fc.bias": (20,), "norm.weight": (20,)}
COUNTER = "norm.num_batches_tracked"


def random_weights(seed: int, dtype: torch.dtype = torch.float32) -> Weights:
    """Weights of normal values, and a counter."""
    draw = torch.Generator().manual_seed(seed)
    weights = {name: torch.randn(shape, generator=draw).to(dtype) for name, shape in SHAPES.items()}
    return weights | {COUNTER: torch.tensor(seed + 2**40)}


def trained_weights(weights: Weights, seed: int) -> Weights:
    """Weights after training: a small step with a direction that stays and one that is new."""
    always, new = random_weights(999), random_weights(seed)
    return {
        name: tensor + 0.01 * always[name] + 0.02 * new[name] if name != COUNTER else tensor + 5
        for name, tensor in weights.items()
    }


def tensors_of(weights: Weights) -> Weights:
    return {name: tensor for name, tensor in weights.items() if tensor.is_floating_point()}


def error(ours: Weights, theirs: Weights) -> float:
    """Euclidean distance over all floating-point tensors."""
    squares = [(ours[name] - theirs[name]).double().square().sum() for name in SHAPES]
    return float(torch.stack(squares).sum().sqrt())


def bound(meant: Tensor, codec: Codec) -> Tensor:
    """The largest error of a message, and of adding it to weights in float32."""
    codec = codec if meant.ndim > 1 else Float16()
    return codec.error_bound(meant) + 2e-6


def payload(delivery: Delivery) -> int:
    return sum(each.transfer.size for each in delivery.tensors)


def expected_payload(meant: Weights, codec: Codec, small: Codec) -> int:
    """Bytes on the wire, from messages that are really packed; whole numbers take 8 bytes each."""
    packed = [(codec if tensor.ndim > 1 else small).encode(tensor) for tensor in tensors_of(meant).values()]
    counters = [tensor for tensor in meant.values() if not tensor.is_floating_point()]
    return sum(len(message.payload) for message in packed) + sum(8 * each.numel() for each in counters)


def same(ours: Weights, theirs: Weights) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(t, theirs[name]) for name, t in ours.items())


def down(codec: Codec, whole: Codec = INT8) -> Downlink:
    return Downlink(WeightsCodecs(up=codec, down=codec, whole=whole), CPU)


def up(codec: Codec) -> Uplink:
    return Uplink(WeightsCodecs(up=codec, down=codec, whole=INT8), CPU)


# Error feedback


@pytest.mark.parametrize("name", LOSSY)
def test_downlink_error_of_held_weights_stays_within_that_of_one_message(name: str) -> None:
    codec, link = LOSSY[name], down(LOSSY[name])
    weights = random_weights(0)
    held = link.share(weights, [0], 0, seed=0)[0].weights
    naive = dict(held)
    for t in range(1, 60):
        before, weights = weights, trained_weights(weights, t)
        meant = {n: tensor - held[n] for n, tensor in tensors_of(weights).items()}
        held = link.share(weights, [0], t, seed=t)[0].weights
        for n, tensor in meant.items():
            assert bool(((weights[n] - held[n]).double().abs() <= bound(tensor, codec)).all()), (t, n)
            if tensor.ndim > 1:  # without feedback: each step's own difference
                naive[n] = naive[n] + codec.simulate(weights[n] - before[n], seed=t).decoded
    drift = {n: float((weights[n] - naive[n]).norm() / (weights[n] - held[n]).norm()) for n in SHAPES}
    assert all(drift[n] > 2 for n in SHAPES if len(SHAPES[n]) > 1), drift


@pytest.mark.parametrize("name", LOSSY)
def test_uplink_error_of_the_sum_of_uploads_stays_within_that_of_one_message(
    name: str,
) -> None:
    codec, link = LOSSY[name], up(LOSSY[name])
    received = random_weights(0)
    total = {n: torch.zeros(shape, dtype=torch.float64) for n, shape in SHAPES.items()}
    naive = {n: torch.zeros(shape, dtype=torch.float64) for n, shape in SHAPES.items()}
    residual: Weights = {n: torch.zeros(shape) for n, shape in SHAPES.items()}
    for t in range(60):
        own = trained_weights(received, t)
        delivery = link.send(3, own, received, seed=t)
        for n in SHAPES:
            meant = own[n] - received[n] + residual[n]
            total[n] += delivery.weights[n].double() - own[n].double()
            assert bool((total[n].abs() <= bound(meant, codec) + t * 2e-7).all()), (t, n)
            residual[n] = -total[n].float()
            chosen = codec if meant.ndim > 1 else Float16()
            difference = own[n] - received[n]
            naive[n] += chosen.simulate(difference, seed=t).decoded.double() - difference.double()
        received = trained_weights(received, 1000 + t)  # what the server makes of it
    drift = {n: float(naive[n].norm() / total[n].norm()) for n in SHAPES if len(SHAPES[n]) > 1}
    assert all(ratio > 2 for ratio in drift.values()), drift


@pytest.mark.parametrize("name", long_but(ONE_OF_EACH, LOSSY))
def test_downlink_converges_to_weights_that_do_not_change(name: str) -> None:
    link, weights = down(LOSSY[name]), trained_weights(random_weights(0), 1)
    link.share(random_weights(0), [0], 0, seed=0)
    errors = [error(link.share(weights, [0], t, seed=t)[0].weights, weights) for t in range(1, 301)]
    assert errors[0] > 1e-4
    assert errors[-1] < 1e-5
    for earlier, later in zip(errors, errors[25:], strict=False):
        assert later < max(0.6 * earlier, 1e-5)  # geometrically; the sign, the slowest, by 0.45


@pytest.mark.parametrize("name", long_but(ONE_OF_EACH, LOSSY))
def test_uplink_mean_of_repeated_uploads_converges_to_the_upload(name: str) -> None:
    link, received, own = up(LOSSY[name]), random_weights(0), trained_weights(random_weights(0), 1)
    total = {n: torch.zeros(shape, dtype=torch.float64) for n, shape in SHAPES.items()}
    errors = []
    for t in range(1, 401):
        arrived = link.send(0, own, received, seed=t).weights
        total = {n: total[n] + arrived[n] for n in SHAPES}
        errors.append(error({n: total[n] / t for n in SHAPES}, own))
    assert errors[-1] < max(errors[0] / 25, 1e-6)  # as 1/t, from when the residual has grown to its size


def test_uplink_residual_is_kept_for_each_client_alone() -> None:
    together, alone = up(INT4), up(INT4)
    received = random_weights(0)
    for t in range(4):
        other = together.send(1, trained_weights(received, 50 + t), received, seed=7)
        ours = together.send(0, trained_weights(received, t), received, seed=t)
        assert same(ours.weights, alone.send(0, trained_weights(received, t), received, seed=t).weights)
        assert not same(ours.weights, other.weights)


def test_uplink_residual_is_sent_with_the_next_upload_of_the_client() -> None:
    link, received = up(TopK(fraction=0.1)), random_weights(0)
    own = trained_weights(received, 1)
    first = link.send(0, own, received, seed=0).weights
    later = random_weights(5)
    second = link.send(0, later, later, seed=1)  # nothing new is meant
    codec = TopK(fraction=0.1)
    missing = own["fc.weight"] - received["fc.weight"] - (first["fc.weight"] - received["fc.weight"])
    arrived = {n: second.weights[n] - later[n] for n in SHAPES}
    expected = codec.decode(codec.encode(missing))
    torch.testing.assert_close(arrived["fc.weight"], expected, rtol=1e-2, atol=1e-6)


# Who gets what


def test_downlink_gives_clients_that_hold_the_same_weights_the_very_same_tensors() -> None:
    link, weights = down(LOSSY["int4 stochastic"]), random_weights(0)
    for t in range(3):
        deliveries = link.share(weights, [0, 2, 5], t, seed=t)
        assert deliveries[0] is deliveries[2] is deliveries[5]
        assert link.weights_at(0) is link.weights_at(2) is deliveries[0].weights
        weights = trained_weights(weights, t)


def test_downlink_sends_a_difference_to_clients_of_the_last_round_and_whole_weights_to_others() -> None:
    link, weights = down(LOSSY["int2"]), random_weights(0)
    whole, difference = (
        expected_payload(weights, codec, small)
        for codec, small in ((INT8, EXACT), (LOSSY["int2"], Float16()))
    )
    assert whole > 2 * difference
    history = [[0, 1, 2], [0, 1], [0, 1, 2], [0, 2], [1], [0, 1, 2]]
    for t, clients in enumerate(history):
        weights = trained_weights(weights, t)
        deliveries = link.share(weights, clients, t, seed=t)
        assert sorted(deliveries) == clients
        for client in clients:
            shared = t > 0 and client in history[t - 1]
            assert payload(deliveries[client]) == (difference if shared else whole), (t, client)
            sent = deliveries[client]
            meant = {n: each.original for n, each in zip(sent.weights, sent.tensors, strict=True)}
            assert same(meant, weights) is not shared
        assert {c for c in range(3) if link.weights_at(c) is not None} >= set(clients)


def test_downlink_sends_a_difference_after_rounds_without_any_client() -> None:
    link = down(INT4)
    link.share(random_weights(0), [0, 1], 3, seed=0)
    delivery = link.share(trained_weights(random_weights(0), 1), [0], 17, seed=1)[0]
    assert payload(delivery) == expected_payload(random_weights(0), INT4, Float16())


def test_clients_with_weights_of_their_own_keep_them_through_rounds_without_a_message() -> None:
    link, weights = down(INT4), {client: random_weights(client) for client in range(3)}
    whole, difference = (
        expected_payload(random_weights(0), c, s) for c, s in ((INT8, EXACT), (INT4, Float16()))
    )
    expected: dict[int, Weights] = {}
    for t, client in enumerate([0, 1, 2, 1, 2, 2, 0, 1]):
        weights[client] = trained_weights(weights[client], t)
        delivery = link.send(client, weights[client], seed=t)
        assert payload(delivery) == (difference if client in expected else whole)
        if client in expected:
            step = weights[client]["fc.weight"] - expected[client]["fc.weight"]
            arrived = expected[client]["fc.weight"] + INT4.decode(INT4.encode(step))
            assert torch.equal(delivery.weights["fc.weight"], arrived)
        assert link.weights_at(client) is delivery.weights
        expected[client] = delivery.weights


def test_first_weights_of_a_client_alone_are_a_difference_to_those_it_shared() -> None:
    link = down(INT4)
    shared = link.share(random_weights(0), [0, 1], 0, seed=0)[0].weights
    delivery = link.send(1, trained_weights(random_weights(0), 1), seed=1)
    assert payload(delivery) == expected_payload(random_weights(0), INT4, Float16())
    assert same(link.weights_at(0) or {}, shared)
    assert link.weights_at(1) is delivery.weights


def test_downlink_holds_nothing_for_a_client_that_was_never_sent_weights() -> None:
    link = down(INT4)
    link.share(random_weights(0), [1], 0, seed=0)
    assert link.weights_at(0) is None


# Codecs of each tensor


def test_delivered_tensors_and_sizes_are_those_of_packed_messages() -> None:
    link = down(INT4)
    first = link.share(random_weights(0), [0], 0, seed=0)[0]
    second = link.share(random_weights(1), [0], 1, seed=0)[0]
    for delivery, codec, small in ((first, INT8, EXACT), (second, INT4, Float16())):
        for each in delivery.tensors:
            chosen = (
                codec if each.original.ndim > 1 else small if each.original.is_floating_point() else EXACT
            )
            message = chosen.encode(each.original)
            assert torch.equal(chosen.decode(message), each.transfer.decoded)
            assert len(message.payload) == each.transfer.size


@pytest.mark.parametrize("codec", [*LOSSY.values(), Zstd(INT4, 3)], ids=[*LOSSY, "zstd"])
def test_integers_and_vectors_of_whole_weights_arrive_exactly(codec: Codec) -> None:
    weights = random_weights(0)
    delivery = down(codec, whole=codec).share(weights, [0], 0, seed=0)[0]
    for name in ("fc.bias", "norm.weight", COUNTER):
        assert torch.equal(delivery.weights[name], weights[name])
        assert delivery.weights[name].dtype == weights[name].dtype
    assert not torch.equal(delivery.weights["fc.weight"], weights["fc.weight"])
    assert payload(delivery) == expected_payload(weights, codec, EXACT)


@pytest.mark.parametrize("name", LOSSY)
def test_differences_of_vectors_travel_in_float16_and_integers_exactly(name: str) -> None:
    link, first, second = down(LOSSY[name]), random_weights(0), random_weights(1)
    held = link.share(first, [0], 0, seed=0)[0].weights
    sent = link.share(second, [0], 1, seed=1)[0].weights
    own = trained_weights(second, 2)
    uploaded = up(LOSSY[name]).send(0, own, sent, seed=2).weights
    for small in ("fc.bias", "norm.weight"):
        assert torch.equal(sent[small], held[small] + (second[small] - held[small]).half().float())
        assert torch.equal(uploaded[small], sent[small] + (own[small] - sent[small]).half().float())
    assert torch.equal(sent[COUNTER], second[COUNTER])
    assert torch.equal(uploaded[COUNTER], own[COUNTER])


def test_upload_size_is_the_bytes_of_its_packed_messages() -> None:
    received = random_weights(0)
    for codec in LOSSY.values():
        delivery = up(codec).send(0, trained_weights(received, 1), received, seed=0)
        assert payload(delivery) == expected_payload(received, codec, Float16())


def test_stochastic_rounding_differs_between_equal_tensors_of_other_names() -> None:
    stochastic = LOSSY["int4 stochastic"]
    link = down(stochastic, whole=stochastic)
    same_values = torch.linspace(-1, 1, 600).view(20, 30)
    weights = link.share({"a": same_values, "b": same_values.clone()}, [0], 0, seed=0)[0].weights
    assert not torch.equal(weights["a"], weights["b"])


# Nothing coded


def test_links_without_codecs_pass_the_very_tensors_on_and_keep_nothing() -> None:
    codecs = WeightsCodecs(EXACT, EXACT, EXACT)
    downlink, uplink = Downlink(codecs, CPU), Uplink(codecs, CPU)
    for t in range(3):
        weights, own = random_weights(t), random_weights(10 + t)
        deliveries = downlink.share(weights, [0, 1], t, seed=0) | {2: downlink.send(2, weights, seed=0)}
        deliveries[3] = uplink.send(0, own, downlink.weights_at(0), seed=0)
        for client, delivery in deliveries.items():
            meant = own if client == 3 else weights
            assert all(delivery.weights[name] is tensor for name, tensor in meant.items())
            assert payload(delivery) == sum(t.numel() * t.element_size() for t in meant.values())
        assert downlink.weights_at(0) is downlink.weights_at(2) is None
    assert uplink.state() == {}


def test_exact_downlink_goes_with_a_coded_uplink() -> None:
    codecs = WeightsCodecs(up=INT4, down=EXACT, whole=EXACT)
    downlink, uplink = Downlink(codecs, CPU), Uplink(codecs, CPU)
    weights = random_weights(0)
    for t in range(3):
        delivery = downlink.share(weights, [0, 1], t, seed=t)[0]
        assert all(delivery.weights[name] is tensor for name, tensor in weights.items())
        own = trained_weights(weights, t)
        uploaded = uplink.send(0, own, downlink.weights_at(0), seed=t)
        assert payload(uploaded) == expected_payload(weights, INT4, Float16())
        assert 0 < error(uploaded.weights, own) < error(own, weights) / 5
        weights = own


def test_exact_uplink_goes_with_a_coded_downlink() -> None:
    codecs = WeightsCodecs(up=EXACT, down=INT4, whole=INT8)
    downlink, uplink = Downlink(codecs, CPU), Uplink(codecs, CPU)
    weights = random_weights(0)
    for t in range(3):
        delivery = downlink.share(weights, [0], t, seed=t)[0]
        expected = (INT4, Float16()) if t else (INT8, EXACT)
        assert payload(delivery) == expected_payload(weights, *expected)
        assert error(delivery.weights, weights) > 0
        own = trained_weights(delivery.weights, t)
        uploaded = uplink.send(0, own, downlink.weights_at(0), seed=t)
        assert all(uploaded.weights[name] is tensor for name, tensor in own.items())
        weights = own


@pytest.mark.parametrize("up_codec", [INT4, EXACT], ids=["up int4", "up none"])
def test_downlink_that_codes_only_whole_weights_is_exact_from_the_second_round_on(up_codec: Codec) -> None:
    link = Downlink(WeightsCodecs(up=up_codec, down=EXACT, whole=INT8), CPU)
    assert payload(link.share(random_weights(0), [0], 0, seed=0)[0]) == expected_payload(
        random_weights(0), INT8, EXACT
    )
    assert same(link.share(random_weights(1), [0], 1, seed=1)[0].weights, random_weights(1))


@pytest.mark.parametrize("name", LOSSY)
def test_float64_weights_stay_float64_and_converge_by_error_feedback(name: str) -> None:
    downlink, uplink = down(LOSSY[name]), up(LOSSY[name])
    start = random_weights(0, torch.float64)
    weights = random_weights(1, torch.float64)
    downlink.share(start, [0], 0, seed=0)
    errors = []
    for t in range(1, 101):
        received = downlink.share(weights, [0], t, seed=t)[0].weights
        uploaded = uplink.send(0, weights, received, seed=t).weights
        for arrived in (received, uploaded):
            assert {tensor.dtype for tensor in tensors_of(arrived).values()} == {torch.float64}
        errors.append(error(received, weights))
    assert errors[-1] < errors[0] / 100
    assert torch.equal(received[COUNTER], weights[COUNTER])


# Going on after a kill


@pytest.mark.parametrize("name", LOSSY)
def test_links_resumed_from_a_checkpoint_deliver_the_same_bits(name: str, tmp_path: Path) -> None:
    def links() -> tuple[Downlink, Downlink, Uplink]:
        return down(LOSSY[name]), down(LOSSY[name]), up(LOSSY[name])

    cohorts = [[0, 1, 2], [1, 2], [0, 1, 2], [0, 1, 2], [1, 2], [0, 1, 2]]  # killed after three

    def rounds(link: tuple[Downlink, Downlink, Uplink], numbers: range) -> list[dict[int, Delivery]]:
        shared, own, uploads = link
        done = []
        for t in numbers:
            deliveries = shared.share(random_weights(t), cohorts[t], t, seed=t)
            for client in cohorts[t]:
                deliveries[10 + client] = own.send(client, random_weights(100 * client + t), seed=t)
                trained = trained_weights(deliveries[client].weights, t + 7 * client)
                deliveries[20 + client] = uploads.send(
                    client, trained, shared.weights_at(client), seed=client + t
                )
            done.append(deliveries)
        return done

    straight = links()
    rounds(straight, range(3))
    state = {str(number): link.state() for number, link in enumerate(straight)}
    save(tmp_path / "checkpoint", Checkpoint(3, state))
    expected = rounds(straight, range(3, 6))
    found = load_latest(tmp_path / "checkpoint")
    assert found is not None
    resumed = links()
    for number, link in enumerate(resumed):
        link.load_state(found.state[str(number)])
    actual = rounds(resumed, range(3, 6))
    for ours, theirs in zip(actual, expected, strict=True):
        assert ours.keys() == theirs.keys()
        for client, delivery in ours.items():
            assert same(delivery.weights, theirs[client].weights), client
            assert payload(delivery) == payload(theirs[client])
        assert ours[1] is ours[2]  # what they held was the same before the kill
        assert ours.get(0) is not ours[1]


def test_link_forgets_its_own_state_when_another_is_loaded() -> None:
    link, other, residuals, others = down(INT4), down(INT4), up(INT4), up(INT4)
    link.share(random_weights(0), [0], 0, seed=0)
    residuals.send(0, random_weights(1), random_weights(0), seed=0)
    other.share(random_weights(5), [0, 1], 0, seed=0)
    others.send(1, random_weights(1), random_weights(0), seed=0)
    other.load_state(link.state())
    others.load_state(residuals.state())
    assert other.weights_at(1) is None
    assert same(other.weights_at(0) or {}, link.weights_at(0) or {})
    assert list(others.state()) == ["0"]


def test_batch_norm_statistics_arrive_exactly_even_where_they_collapse() -> None:
    codecs = WeightsCodecs(
        affine(bits=4, granularity="block"), affine(bits=4, granularity="block"), Identity()
    )
    downlink = Downlink(codecs, torch.device("cpu"))
    for round, variance in enumerate((1.5, 1e-5, 3e-7)):
        meant = {"norm.running_var": torch.full((8,), variance), "fc.weight": torch.randn(4, 8)}
        arrived = downlink.share(meant, [0], round, seed=round)[0].weights["norm.running_var"]
        assert (arrived >= 0).all()
        assert torch.allclose(arrived, meant["norm.running_var"], rtol=0, atol=2**-23)
