import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedsplit.computing.model_state import ModelState
from fedsplit.estimators.alignment import Alignment
from fedsplit.estimators.estimator import WINDOW, Chunk, FitStep
from fedsplit.estimators.gradient_of_loss import GradientOfLoss
from fedsplit.models.auxiliary import LinearAuxiliary
from fedsplit.objectives.classification import Classification
from fedsplit.objectives.objective import Objective
from fedsplit.optim.optimizers import Adam
from fedsplit.optim.schedules import Constant
from fedsplit.parties.messages import Upload
from fedsplit.parties.split_server import SplitServer
from fedsplit.state.weights import Weights
from tests.conftest import Build

SHAPE, CLASSES = (3, 2, 2), 4
OBJECTIVE = Classification(CLASSES)
ADAM = Adam(lr=0.01, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, amsgrad=False)


def _head() -> LinearAuxiliary:
    torch.manual_seed(0)
    return LinearAuxiliary(smashed_shape=SHAPE, num_classes=CLASSES)


def _alignment(seed: int = 3, **changes: int) -> Alignment:
    head = _head()
    sizes = {"epochs": 3, "batch_size": 4, "max_dataset_size": 10, **changes}
    return Alignment(
        new_auxiliary=lambda: ModelState(head, ADAM),
        estimator=GradientOfLoss(),
        objective=OBJECTIVE,
        seed=seed,
        **sizes,
    )


def _initial_weights() -> Weights:
    return dict(_head().state_dict())


def _align(alignment: Alignment, client: int, round: int, server: SplitServer) -> Weights:
    return alignment.align(client, round, server, initially=_initial_weights())


@pytest.fixture
def server() -> SplitServer:
    """With batch statistics, dropout, and an optimizer that was stepped."""
    torch.manual_seed(1)
    module = nn.Sequential(
        nn.Conv2d(3, 6, 1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(24, CLASSES),
    )
    server = SplitServer(module, OBJECTIVE, ADAM, Constant(), seed=3)
    for step in range(2):
        server.step(0, _upload(9, step))
    return server


def _upload(client: int, step: int, samples: int = 5) -> Upload:
    draw = torch.Generator().manual_seed(100 * client + step)
    z = torch.randn(samples, *SHAPE, generator=draw)
    return Upload(client, step, z, torch.randint(CLASSES, (samples,), generator=draw))


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, dict):
        return set(left) == set(right) and all(_same(left[key], right[key]) for key in left)
    return torch.equal(left, right) if isinstance(left, Tensor) else bool(left == right)


def _stored(clients: list[int], alignment: Alignment, steps: range = range(3)) -> Alignment:
    for client in clients:
        for step in steps:
            upload = _upload(client, step)
            alignment.store(upload.client, upload.z, upload.y)
    return alignment


@pytest.mark.parametrize("interval", [1, 2, 5])
def test_client_of_every_round_aligns_at_every_multiple_of_the_interval(
    server: SplitServer, interval: int
) -> None:
    alignment, aligned = _stored([0], _alignment(epochs=1)), []
    for t in range(12):
        if alignment.is_due(0, t, interval):
            _align(alignment, 0, t, server)
            aligned.append(t)
    assert aligned == [t for t in range(12) if t % interval == 0]


def test_client_of_some_rounds_aligns_when_the_interval_has_passed(server: SplitServer) -> None:
    alignment, aligned = _stored([0], _alignment(epochs=1)), []
    for t in (2, 4, 6, 7, 9, 11, 20, 24, 25):
        if alignment.is_due(0, t, 5):
            _align(alignment, 0, t, server)
            aligned.append(t)
    assert aligned == [2, 7, 20, 25]
    assert alignment.is_due(1, 25, 5)  # each client has its own count


@pytest.mark.parametrize("others", [[], [0, 1], [1, 0], [3, 1, 0]])
def test_alignment_of_a_client_does_not_depend_on_other_clients_or_their_order(
    server: SplitServer, others: list[int]
) -> None:
    alone = _stored([2], _alignment())
    together = _stored([*others, 2], _alignment())
    for t in (0, 4):
        for client in others:
            _align(together, client, t, server)
        assert _same(_align(together, 2, t, server), _align(alone, 2, t, server))


def test_alignment_leaves_the_server_unchanged(server: SplitServer) -> None:
    before = copy.deepcopy(server.state())
    alignment = _stored([0, 1], _alignment())
    for client in (0, 1):
        _align(alignment, client, 0, server)
    assert _same(server.state(), before)
    assert any("running_mean" in name for name in before["weights"])
    assert float(before["optimizer"]["0.weight"]["step"]) == 2


def test_alignment_brings_the_estimates_closer_to_the_true_cut_gradients(server: SplitServer) -> None:
    alignment = _stored([0], _alignment(epochs=150, batch_size=10), steps=range(2))
    z, y = (
        torch.cat(parts) for parts in zip(*((_upload(0, s).z, _upload(0, s).y) for s in (0, 1)), strict=True)
    )
    head = _head()
    true = server.cut_gradients(z, y, seed=0)

    def error(weights: dict[str, Tensor]) -> float:
        return float((head.input_gradient(weights, z, y) - true).square().sum())

    assert error(_align(alignment, 0, 0, server)) < 0.7 * error(dict(head.state_dict()))


def test_alignment_steps_are_descent_on_the_squared_error_to_the_cut_gradients(server: SplitServer) -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(12, CLASSES))  # no dropout: gradients need no seed
    plain = SplitServer(module, OBJECTIVE, ADAM, Constant(), seed=3)
    found = _stored([0], _alignment(epochs=4, batch_size=100)).align(
        0, 0, plain, initially=_initial_weights()
    )
    z, y = (torch.cat([getattr(_upload(0, s), part) for s in (0, 1, 2)])[-10:] for part in ("z", "y"))
    leaf = z.clone().requires_grad_()
    (true,) = torch.autograd.grad(F.cross_entropy(module(leaf), y, reduction="sum"), leaf)
    head = _head()
    built = ADAM.build(list(head.parameters()))
    for _ in range(4):
        estimate = head.input_gradient(dict(head.named_parameters()), z, y)
        built.zero_grad()
        (estimate - true).square().sum().backward()
        built.step()
    for name, parameter in head.named_parameters():
        torch.testing.assert_close(found[name], parameter.detach(), rtol=1e-5, atol=1e-6)


def _after_restart(state: dict[str, Any]) -> Alignment:
    other = _stored([5], _alignment())  # what it held is forgotten
    other.load_state(copy.deepcopy(state))
    return other


def test_alignment_loaded_from_its_state_continues_with_the_same_bits(server: SplitServer) -> None:
    alignment = _alignment()
    _stored([0, 2], alignment)
    _align(alignment, 0, 3, server)
    _align(alignment, 2, 4, server)
    _stored([1], alignment)  # has uploaded, has not aligned
    other = _after_restart(alignment.state())
    assert _same(other.state(), alignment.state())
    for each in (other, alignment):
        _stored([0, 1, 2, 4], each, steps=range(3, 5))  # client 4 is new
    assert [other.is_due(c, 6, 3) for c in (0, 1, 2, 4)] == [True, True, False, True]
    for client in (0, 1, 2, 4):
        assert _same(_align(other, client, 7, server), _align(alignment, client, 7, server))
    assert _same(other.state(), alignment.state())
    assert set(other.auxiliary_weights()) == {0, 1, 2, 4}


def test_later_alignments_do_not_start_from_the_given_weights(server: SplitServer) -> None:
    given = {name: torch.full_like(value, 0.125) for name, value in _head().state_dict().items()}
    once, elsewhere = _stored([0], _alignment()), _stored([0], _alignment())
    assert not _same(once.align(0, 0, server, initially=given), _align(elsewhere, 0, 0, server))
    twin = _stored([0], _alignment())
    twin.align(0, 0, server, initially=given)
    assert _same(_align(once, 0, 1, server), twin.align(0, 1, server, initially=given))
    assert set(once.auxiliary_weights()) == {0}


def test_upload_stored_without_alignment_makes_no_auxiliary_model(server: SplitServer) -> None:
    alignment = _stored([0, 1], _alignment())
    assert alignment.auxiliary_weights() == {}
    _align(alignment, 1, 0, server)
    assert set(alignment.auxiliary_weights()) == {1}
    assert alignment.is_due(0, 0, 1)


def test_order_of_chunks_follows_from_seed_and_round(server: SplitServer) -> None:
    def aligned(seed: int, round: int) -> Tensor:
        return _stored([0], _alignment(seed, batch_size=2)).align(
            0, round, server, initially=_initial_weights()
        )["fc.weight"]

    torch.manual_seed(1)
    first = aligned(3, 0)
    torch.manual_seed(2)
    assert torch.equal(aligned(3, 0), first)
    assert not torch.equal(aligned(4, 0), first)
    assert not torch.equal(aligned(3, 1), first)


def test_configured_tolerance_ends_alignments_early(tiny: Build) -> None:
    def aligned(epochs: int, tolerance: str) -> dict[str, Weights]:
        settings = (f"auxiliary.align_epochs={epochs}", f"auxiliary.align_tolerance={tolerance}")
        experiment = tiny("algorithm=fsl_sage", *settings)
        experiment.run_round(0)
        return experiment.algorithm.auxiliary_weights()

    early = aligned(60, "0.99")
    assert _same(early, aligned(WINDOW + 1, "null"))
    assert _same(aligned(60, "0"), aligned(60, "null"))
    assert not _same(early, aligned(60, "null"))


class _Recording(GradientOfLoss):
    """Notes what it is asked to fit, and leaves the model as it is."""

    def __init__(self) -> None:
        self.fits: list[tuple[list[Chunk], list[FitStep]]] = []

    def fit(
        self,
        model: ModelState,
        objective: Objective,
        chunks: Sequence[Chunk],
        steps: Sequence[FitStep],
        *,
        tolerance: float = 0.0,
    ) -> None:
        self.fits.append((list(chunks), list(steps)))


def _recorded(seed: int = 3, **changes: int) -> tuple[Alignment, _Recording]:
    estimator, head = _Recording(), _head()
    sizes = {"epochs": 3, "batch_size": 4, "max_dataset_size": 10, **changes}
    alignment = Alignment(
        new_auxiliary=lambda: ModelState(head, ADAM),
        estimator=estimator,
        objective=OBJECTIVE,
        seed=seed,
        **sizes,
    )
    return alignment, estimator


def _constant_weights(value: float) -> Weights:
    return {name: torch.full_like(tensor, value) for name, tensor in _head().state_dict().items()}


def test_first_alignment_of_a_client_starts_from_exactly_the_given_weights(server: SplitServer) -> None:
    alignment, _ = _recorded()
    _stored([0, 1], alignment)
    given = _constant_weights(0.125)
    assert _same(alignment.align(0, 0, server, initially=given), _constant_weights(0.125))
    for tensor in given.values():
        tensor.zero_()  # the auxiliary model keeps none of the memory it started from
    assert _same(alignment.align(0, 1, server, initially=_constant_weights(5.0)), _constant_weights(0.125))
    assert _same(alignment.align(1, 1, server, initially=_constant_weights(5.0)), _constant_weights(5.0))
    assert _same(alignment.auxiliary_weights(), {0: _constant_weights(0.125), 1: _constant_weights(5.0)})


def test_clients_that_had_aligned_before_a_restart_do_not_start_from_the_given_weights(
    server: SplitServer,
) -> None:
    alignment, _ = _recorded()
    _stored([0, 1], alignment).align(0, 0, server, initially=_constant_weights(0.125))
    other, _ = _recorded()
    other.load_state(copy.deepcopy(alignment.state()))
    assert _same(other.auxiliary_weights(), {0: _constant_weights(0.125)})
    assert [other.is_due(client, 0, 1) for client in (0, 1)] == [False, True]
    assert _same(other.align(0, 1, server, initially=_constant_weights(5.0)), _constant_weights(0.125))
    assert _same(other.align(1, 1, server, initially=_constant_weights(5.0)), _constant_weights(5.0))


def test_alignment_state_keeps_rings_and_auxiliary_models_apart(server: SplitServer) -> None:
    alignment = _stored([0, 1], _alignment())
    _align(alignment, 1, 2, server)
    state = alignment.state()
    assert set(state) == {"rings", "auxiliaries"}
    assert set(state["rings"]) == {"0", "1"}
    assert set(state["auxiliaries"]) == {"1"}
    assert state["auxiliaries"]["1"]["last_round"] == 2
    ring = copy.deepcopy(state["rings"])
    _align(alignment, 1, 5, server)
    assert _same(alignment.state()["rings"], ring)  # aligning reads the ring only
    assert alignment.state()["auxiliaries"]["1"]["last_round"] == 5


def test_alignment_epoch_steps_once_on_every_chunk_with_a_new_seed(server: SplitServer) -> None:
    alignment, estimator = _recorded(epochs=6, batch_size=2)
    _stored([0, 1], alignment)
    for client, round in ((0, 0), (0, 1), (1, 0)):
        _align(alignment, client, round, server)
    seeds = []
    for chunks, steps in estimator.fits:
        assert [len(chunk.y) for chunk in chunks] == [2] * 5
        epochs = [[step.chunk for step in steps[i : i + 5]] for i in range(0, len(steps), 5)]
        assert [sorted(epoch) for epoch in epochs] == [list(range(5))] * 6
        assert len({tuple(epoch) for epoch in epochs}) > 1
        seeds += [step.seed for step in steps]
    assert len(set(seeds)) == len(seeds) == 3 * 30
    again, twin = _recorded(epochs=6, batch_size=2)
    _stored([1], again)
    _align(again, 1, 0, server)
    assert twin.fits[0][1] == estimator.fits[2][1]


def test_dropout_in_an_auxiliary_model_follows_from_the_seed_of_the_run() -> None:
    plain = SplitServer(
        nn.Sequential(nn.Flatten(), nn.Linear(12, CLASSES)), OBJECTIVE, ADAM, Constant(), seed=3
    )
    torch.manual_seed(0)
    head = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(12, CLASSES))

    def aligned(seed: int, round: int, around: int) -> Tensor:
        torch.manual_seed(around)
        alignment = Alignment(
            new_auxiliary=lambda: ModelState(head, ADAM),
            estimator=GradientOfLoss(),
            objective=OBJECTIVE,
            seed=seed,
            epochs=2,
            batch_size=100,  # one chunk: nothing but dropout is drawn
            max_dataset_size=10,
        )
        initially = dict(head.state_dict())
        return _stored([0], alignment).align(0, round, plain, initially=initially)["2.weight"]

    first = aligned(3, 0, around=1)
    assert torch.equal(aligned(3, 0, around=2), first)
    assert not torch.equal(aligned(4, 0, around=1), first)
    assert not torch.equal(aligned(3, 1, around=1), first)


def test_optimizer_of_an_auxiliary_model_keeps_its_state_between_alignments() -> None:
    twice, once = (_stored([0], _alignment(batch_size=100, epochs=epochs)) for epochs in (2, 4))
    plain = SplitServer(
        nn.Sequential(nn.Flatten(), nn.Linear(12, CLASSES)), OBJECTIVE, ADAM, Constant(), seed=3
    )
    _align(twice, 0, 0, plain)  # one chunk and no dropout: two alignments are one of as many epochs
    found, expected = _align(twice, 0, 1, plain), _align(once, 0, 0, plain)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-7)
