"""A captured function gives what it gave, whatever its arguments hold; see `emulated_graphs`."""

import pytest
import torch
from torch import Tensor

from fedsplit.computing.captured_steps import MOST_FORMS, WARM_UP, CudaRecorder, GraphedFunction, Outputs
from fedsplit.errors import UserError
from tests.computing.emulated_graphs import EmulatedRecorder


class Accumulator:
    """State that a function moves, and what it should be."""

    def __init__(self) -> None:
        self.total = torch.zeros(3)
        self.recorder = EmulatedRecorder()
        self.graphed = GraphedFunction(self.add, self.recorder)

    def add(self, x: Tensor, factor: Tensor | float, sign: int = 1) -> Outputs:
        self.total.add_((x * factor).sum(0) * sign)
        return self.total * 2, x + 1


def test_graphed_function_computes_each_call_once_with_its_own_values() -> None:
    ours = Accumulator()
    expected = torch.zeros(3)
    kept: list[tuple[Tensor, Tensor]] = []
    for call in range(3 * WARM_UP):
        x, factor = torch.randn(4, 3), 0.5 + call
        doubled, plus = ours.graphed(x, factor)
        expected = expected + (x * factor).sum(0)
        assert torch.equal(ours.total, expected)
        kept += [(doubled, expected * 2), (plus, x + 1)]
    for result, meant in kept:  # what a caller kept is not written to by later calls
        assert torch.equal(result, meant)
    assert (ours.recorder.warmed, ours.recorder.captures) == (WARM_UP, 1)
    assert ours.recorder.replays == 2 * WARM_UP


def test_graphed_function_captures_each_shape_type_stride_and_constant_separately() -> None:
    ours = Accumulator()
    expected = torch.zeros(3)
    forms = [
        (torch.randn(4, 3), 1),
        (torch.randn(5, 3), 1),
        (torch.randn(3, 4).T, 1),
        (torch.randn(4, 3).double(), 1),
        (torch.randn(4, 3), -1),
    ]
    for _ in range(WARM_UP + 2):
        for x, sign in forms:
            _, plus = ours.graphed(x, 1.0, sign)
            assert torch.equal(plus, x + 1)
            assert plus.dtype == x.dtype
            expected = expected + (x.sum(0) * sign).to(expected.dtype)
    torch.testing.assert_close(ours.total, expected, rtol=0, atol=1e-5)
    assert ours.recorder.captures == len(forms)
    assert ours.recorder.replays == 2 * len(forms)


def test_graphed_function_captures_at_most_most_forms_and_computes_others_without_a_graph() -> None:
    ours = Accumulator()
    expected = torch.zeros(3)
    for _ in range(WARM_UP + 2):
        for size in range(1, MOST_FORMS + 3):
            x = torch.full((size, 3), float(size))
            ours.graphed(x, 1.0)
            expected += size * size
            assert torch.equal(ours.total, expected)
    assert ours.recorder.captures == MOST_FORMS
    assert ours.recorder.replays == 2 * MOST_FORMS


def test_dropped_graph_is_captured_again_with_the_new_state() -> None:
    ours = Accumulator()
    for _ in range(WARM_UP + 1):
        ours.graphed(torch.ones(1, 3), 1.0)
    before, ours.total = ours.total, torch.zeros(3)
    ours.graphed.drop()
    for call in range(WARM_UP + 2):
        ours.graphed(torch.ones(1, 3), 1.0)
        assert torch.equal(ours.total, torch.full((3,), call + 1.0))
    assert torch.equal(before, torch.full((3,), WARM_UP + 1.0))
    assert ours.recorder.captures == 2


def test_emulated_recorder_refuses_waiting_for_the_host_and_replays_frozen_numbers() -> None:
    x = torch.ones(3)
    reads = GraphedFunction(lambda x: (x * float(x.sum()),), EmulatedRecorder())
    calls = iter(range(100))
    counts = GraphedFunction(lambda x: (x * next(calls),), EmulatedRecorder())
    for _ in range(WARM_UP):
        reads(x)
        counts(x)
    with pytest.raises(AssertionError, match="makes the host wait"):
        reads(x)
    assert [float(counts(x)[0]) for x in (x[:1],)] == [WARM_UP]
    assert [counts(x)[0].tolist() for _ in range(2)] == [[WARM_UP + 1.0] * 3] * 2


def test_graphs_are_captured_on_cuda_devices_only() -> None:
    with pytest.raises(UserError, match="cuda_graphs=True: must be false on device=cpu"):
        CudaRecorder(torch.device("cpu"))
