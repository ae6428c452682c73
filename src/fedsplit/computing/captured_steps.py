"""CUDA graphs: a step that starts many small kernels is captured once, and from then on started as one.

A graph does the same kernels on the same memory again. So whatever differs from call to call must be in
tensors: inputs are copied to where the graph reads them, state lives where it is, and outputs are copied
from where the graph writes them.
"""

import warnings
from collections import Counter
from collections.abc import Callable, Hashable
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from fedsplit.errors import UserError, first_line

Outputs: TypeAlias = tuple[Tensor, ...]
Argument: TypeAlias = Tensor | float | Hashable

WARM_UP = 3
"""Calls before a capture, as in `torch.cuda.make_graphed_callables`: in them libraries make their plans and
workspaces, and optimizers their state, none of which may happen in a capture."""
MOST_FORMS = 8
"""Graphs of one function. A client has two or three batch sizes; the rows of a stack that take part in a
step are new with every client that has no batch left, and each graph holds its inputs, its outputs and
some MB of the driver's. Forms that come often are warm first, so what stays eager is rare."""


class Graph(Protocol):
    """Captured work that can be replayed."""

    def replay(self) -> None:
        """Do it again, on the same memory."""


class Recorder(Protocol):
    """Captures work as graphs; `CudaRecorder` is the one there is."""

    def warm_up(self, work: Callable[[], Outputs]) -> Outputs:
        """Do some work as a capture of it would."""

    def capture(self, work: Callable[[], Outputs]) -> tuple[Outputs, Graph]:
        """Capture some work without doing it; the outputs are where each replay writes them.

        Raises:
            UserError: it cannot be captured.
        """


class GraphedFunction:
    """A function that works in place on state of its own, captured for every form of its arguments.

    Tensors among the arguments may change in their values, not in shape, type or strides, without a new
    capture. Floats may too: the function gets them as 0-d tensors, float64. Anything else is taken as
    constant, and part of the form. The state must stay where it is: `drop` what was captured before
    tensors are replaced. Nothing may wait for the device, be drawn, or be decided by values.

    Args:
        function: gives a tuple of tensors; the first argument that is a tensor says on which device.
    """

    def __init__(self, function: Callable[..., Outputs], recorder: Recorder) -> None:
        self._function, self._recorder = function, recorder
        self._calls: Counter[Hashable] = Counter()
        self._captured: dict[Hashable, _Capture] = {}

    def __call__(self, *arguments: Argument) -> Outputs:
        """Outputs of the function, which the caller may keep."""
        form = tuple(_form(each) for each in arguments)
        if form not in self._captured:
            self._calls[form] += 1
            if len(self._captured) == MOST_FORMS:
                return self._function(*_copy_arguments(arguments))
            if self._calls[form] <= WARM_UP:
                return self._recorder.warm_up(lambda: self._function(*_copy_arguments(arguments)))
            self._captured[form] = _Capture(self._function, self._recorder, arguments)
        return self._captured[form](arguments)

    def drop(self) -> None:
        """Forget what was captured: the state is no longer where it was."""
        self._calls.clear()
        self._captured.clear()


def _form(argument: Argument) -> Hashable:
    if isinstance(argument, Tensor):
        return argument.shape, argument.dtype, argument.stride()
    return float if isinstance(argument, float) else argument


def _copy_arguments(arguments: tuple[Argument, ...]) -> list[Argument]:
    """Arguments with their floats as tensors, which are filled on the device: nothing waits for a copy."""
    device = next(each.device for each in arguments if isinstance(each, Tensor))
    return [
        torch.full((), each, dtype=torch.float64, device=device) if isinstance(each, float) else each
        for each in arguments
    ]


class _Capture:
    """A graph with the memory of its inputs and outputs."""

    def __init__(
        self, function: Callable[..., Outputs], recorder: Recorder, arguments: tuple[Argument, ...]
    ) -> None:
        self._inputs = [
            each.clone() if isinstance(each, Tensor) else each for each in _copy_arguments(arguments)
        ]
        self._outputs, self._graph = recorder.capture(lambda: function(*self._inputs))

    def __call__(self, arguments: tuple[Argument, ...]) -> Outputs:
        for place, argument in zip(self._inputs, arguments, strict=True):
            if isinstance(place, Tensor) and isinstance(argument, Tensor):
                place.copy_(argument)
            elif isinstance(place, Tensor):
                place.fill_(argument)  # type: ignore[arg-type]  # a float
        self._graph.replay()
        return tuple(output.clone() for output in self._outputs)


class CudaRecorder:
    """Captures on a CUDA device. All graphs share one pool of memory for what is only there while they run.

    That is sound since they run one at a time, and what they give is copied before the next one runs.

    Args:
        device: a CUDA device.

    Raises:
        UserError: it is another.
    """

    def __init__(self, device: torch.device) -> None:
        if device.type != "cuda":
            raise UserError("cuda_graphs", True, f"must be false on device={device}")
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()
        # A pool that all graphs have left cannot be captured into again: an empty one stays.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns that the graph is empty
            _, self._stays = self.capture(tuple)

    def warm_up(self, work: Callable[[], Outputs]) -> Outputs:
        """Run a step before its capture, on the stream that captures, whose workspaces are its own."""
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            outputs = work()
        current.wait_stream(self._stream)
        return outputs

    def capture(self, work: Callable[[], Outputs]) -> tuple[Outputs, Graph]:
        """Capture a step as a CUDA graph, into the pool of memory that all graphs share."""
        graph = torch.cuda.CUDAGraph()
        try:
            with (
                torch.cuda.device(self._device),
                torch.cuda.graph(graph, pool=self._pool, stream=self._stream),
            ):
                outputs = work()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            message = f"must be false: a step cannot be captured ({first_line(error)})"
            raise UserError("cuda_graphs", True, message) from error
        return outputs, graph
