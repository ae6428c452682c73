"""What a gRPC server's chunks hold, beside what the ledger counts."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import TypeVar

import grpc

from fedsplit.recording.ledger import DIRECTIONS
from fedsplit.training.experiment import Experiment
from fedsplit.transport.grpc.protocol import federation_pb2 as pb

Frame = TypeVar("Frame", pb.FromClient, pb.FromServer)


class ChunkWeigher(grpc.ServerInterceptor):  # type: ignore[misc]
    """Adds up the contents of chunks in both directions, by round, and sees whether labels are among them."""

    def __init__(self) -> None:
        self.carried: Counter[tuple[int, str]] = Counter()
        self.saw_labels = False

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler:
        handler = continuation(handler_call_details)

        def attend(
            requests: Iterator[pb.FromClient], context: grpc.ServicerContext
        ) -> Iterator[pb.FromServer]:
            return self._weighed("down", handler.stream_stream(self._weighed("up", requests), context))

        return grpc.stream_stream_rpc_method_handler(
            attend, handler.request_deserializer, handler.response_serializer
        )

    def _weighed(self, direction: str, frames: Iterator[Frame]) -> Iterator[Frame]:
        for frame in frames:
            self.saw_labels |= any(tensor.codec == pb.LABELS for tensor in frame.tensors)
            if frame.WhichOneof("content") == "chunk":
                self.carried[frame.identity.round, direction] += len(frame.chunk.content)
            yield frame


def counted(experiment: Experiment) -> Counter[tuple[int, str]]:
    """The ledger's bytes, by round and direction, with what gRPC sends beside the load."""
    rounds = range(len(experiment.records))
    totals = {
        (t, direction): sum(experiment.ledger.of_round(t)[direction].values())
        for t in rounds
        for direction in DIRECTIONS
    }
    assert sum(totals.values()) == experiment.ledger.load
    apart = {(t, "down"): experiment.ledger.copies(t) for t in rounds}
    apart |= {(t, "up"): experiment.ledger.observed_bytes(t) for t in rounds}
    return Counter(totals) + Counter(apart)
